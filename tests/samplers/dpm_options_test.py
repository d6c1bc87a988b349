"""Options of DPM-Solver++: the order near the end, Heun's rule, the start."""

import dataclasses

import numpy as np
import pytest
from helpers.mixture import MIXTURE
from helpers.mixture import Exact
from helpers.mixture import array
from helpers.mixture import flow
from helpers.mixture import paths
from helpers.mixture import tensor
from helpers.mixture import walk
from published import solver_toy as toy

import keras_flows as kf

DPM = kf.samplers.DPMSolverPP
Z = np.random.default_rng(0).standard_normal((64, 2))


def end(sampler, path, steps):
    start = Z * array(path.sigma(tensor(path.t_noise)))
    return walk(sampler, Exact(path), start, sampler.times(path, steps))[-1]


def error(sampler, path, steps):
    """Distance from the exact flow's end."""
    t = tensor(path.t_noise)
    ratio = max(float(array(path.alpha(t) / path.sigma(t))), np.exp(-9.0))
    expected = flow(MIXTURE, Z, np.log(ratio), 9.0, 1e-7) * np.exp(-9.0)
    return np.sqrt(np.mean((end(sampler, path, steps) - expected) ** 2))


@pytest.mark.once
def test_the_order_before_the_last_step():
    """Lowered, kept, or as diffusers has it: kept from 15 steps on."""
    lowered, kept, either = (
        DPM(3, lower_order_final=value) for value in (True, False, None)
    )
    path = paths.VariancePreserving()
    for steps, same in ((14, lowered), (15, kept), (20, kept)):
        found = end(either, path, steps)
        np.testing.assert_array_equal(found, end(same, path, steps))
    assert np.abs(end(lowered, path, 15) - end(kept, path, 15)).max() > 1e-3
    # What speaks for each of them.
    assert error(kept, path, 10) < 0.8 * error(lowered, path, 10)
    linear = paths.Linear(1.0)
    assert error(lowered, linear, 20) < 0.3 * error(kept, linear, 20)
    # Only order 3 has such a step.
    for order in (1, 2):
        one, two = (
            end(dataclasses.replace(s, order=order), path, 8)
            for s in (lowered, kept)
        )
        np.testing.assert_array_equal(one, two)


@pytest.mark.once
@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_heun_is_the_published_rule(tau):
    """k-diffusion's `sample_dpmpp_2m_sde(solver_type="heun")`, by hand.

    With D' = (D - D_before) / r and the noise e, in their words
    x_r = sigma_r / sigma_t e^-(tau^2 h) x + (1 - e^-kh) D
    + ((1 - e^-kh) / (-kh) + 1) D' + sigma_r sqrt(1 - e^-(2 tau^2 h)) e.
    """
    model = Exact(paths.VarianceExploding())
    times = np.array([80.0, 20.0, 4.0, 1.0, 0.3])
    z, *noises = toy.noises(4)
    found = walk(
        DPM(2, tau=tau, solver_type="heun"), model, 80.0 * z, times, noises,
        lowered=False,
    )  # fmt: skip
    x, k, before = 80.0 * z, 1 + tau**2, None
    for t, r, e in zip(times[:-1], times[1:], noises):
        data = MIXTURE.denoise(np, x, 1.0, t)
        h = np.log(t / r)
        x = r / t * np.exp(-(tau**2) * h) * x - np.expm1(-k * h) * data
        if before is not None:
            change = (data - before[0]) / (before[1] / h)
            x = x + (np.expm1(-k * h) / (k * h) + 1) * change
        x = x + r * np.sqrt(-np.expm1(-2 * tau**2 * h)) * e
        before = data, h
    np.testing.assert_allclose(found[-1], x, atol=1e-8)
    other = walk(DPM(2, tau=tau), model, 80.0 * z, times, noises, False)
    assert np.abs(other[-1] - x).max() > 1e-2


@pytest.mark.once
def test_options_are_named():
    with pytest.raises(ValueError, match="`solver_type`.*'euler'"):
        DPM(solver_type="euler")
    with pytest.raises(ValueError, match="`lower_order_final`.*'yes'"):
        DPM(lower_order_final="yes")
