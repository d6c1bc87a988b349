"""Samples depend on the seed and their index alone."""

import functools

import numpy as np
import pytest
from helpers.mixture import array
from helpers.mixture import labelled
from helpers.mixture import paths

import keras_flows as kf
from keras_flows.samplers.noise import Streams

SAMPLERS = {
    "ddim": kf.samplers.DDIM(eta=0.7),
    "ddpm": "ddpm",
    "dpm_solver++sde": "dpm_solver++sde",
    "edm": kf.samplers.EDM(8.0),
    "euler_maruyama": "euler_maruyama",
    "flow_map_jump": kf.samplers.FlowMapJump(renoise=0.5),
    "sa_solver": "sa_solver",
    "euler": "euler",
}


START = array(Streams(5).draw(0, (10, 2)))


@functools.lru_cache
def flow_map():
    network = kf.networks.MLP(2, width=8, depth=1, two_times=True)
    return kf.FlowMapInterface(network, "lsd", ema=None)


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_depend_on_seed_and_index_alone(name):
    sampler = SAMPLERS[name]

    def made(num, **kwargs):
        x = flow_map().generate(
            num, seed=5, num_steps=4, sampler=sampler, **kwargs
        )
        return array(x)

    ten = made(10)
    for found, expected in (
        (made(3), ten[:3]),
        (made(10, batch_size=4), ten),
        (made(10, batch_size=1), ten),
        (made(None, noise=START.astype("float32")), ten),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    other = flow_map().generate(10, seed=6, num_steps=4, sampler=sampler)
    assert np.abs(array(other) - ten).min() > 1e-5


def test_a_guided_condition_stays_with_its_sample():
    model = labelled(paths.Linear(1.0))
    labels = np.array([0, 1, 2, 1, 0])
    kwargs = {"seed": 2, "num_steps": 3, "sampler": "ddpm"}
    kwargs["guidance_scale"] = 2.0
    whole = array(model.generate(condition=labels, **kwargs))
    for size in (2, 3):
        x = model.generate(condition=labels, batch_size=size, **kwargs)
        np.testing.assert_allclose(array(x), whole, rtol=1e-5, atol=1e-5)


def test_streams_are_normal_and_independent():
    streams = Streams(7)
    steps = np.stack([array(streams.draw(k, (2000, 5))) for k in range(4)])
    start = np.random.Generator(np.random.Philox(7)).standard_normal(
        (2000, 5), dtype="float32"
    )
    np.testing.assert_array_equal(steps[0], start)
    correlation = np.corrcoef(steps.reshape(4, -1)) - np.eye(4)
    assert np.abs(correlation).max() < 5e-2 and abs(steps.std() - 1) < 2e-2
    # Whatever was drawn before.
    later = array(Streams(7).draw(3, (2000, 5)))
    np.testing.assert_array_equal(later, steps[3])
