"""Grids, guidance and tracing of the fast solvers; bad input."""

import keras
import numpy as np
import pytest
from helpers.close import close
from helpers.mixture import ENDS
from helpers.mixture import array
from helpers.mixture import labelled
from helpers.mixture import paths
from keras import ops
from published import solver_toy as toy

import keras_flows as kf
from keras_flows.samplers.grids import time_grid

# Guidance, tracing.


ALL = {
    "dpm_solver": 4, "dpm_solver++": 4, "dpm_solver++sde": 4, "unipc": 4,
    "sa_solver": 5, "edm": 3, "dormand_prince": 1,
}  # fmt: skip


@pytest.mark.once
@pytest.mark.parametrize("name", ALL)
def test_guidance(name):
    """From label 0 by 2.5 to label 1 is label 2, as velocities are linear."""
    model = labelled(paths.Linear(1.0))
    arguments = {"num_steps": ALL[name], "seed": 0, "sampler": name}
    plain = model.generate(6, condition=2, **arguments)
    guided = model.generate(
        6, condition=1, negative_condition=0, guidance_scale=2.5, **arguments
    )
    other = model.generate(6, condition=1, **arguments)
    close(array(guided), array(plain), 5)
    assert np.abs(array(other) - array(plain)).max() > 0.5
    assert str(guided.dtype).endswith("float32")


def test_unrolled_in_a_trace():
    """As exports have it: all steps, with the grid, in one graph."""
    model = labelled(paths.Linear(0.0))
    z = toy.noises(0)[0].astype("float32")
    sampler = kf.samplers.UniPC(2, grid="log_snr")
    labels = ops.ones((len(z),), "int32")

    def run(z):
        bound = kf.samplers.Bound(model, condition=labels)
        return sampler.unrolled(bound, model.start(z), 3)

    found = kf.ops.compiled(run, model.variables)(z)
    expected = model.generate(noise=z, condition=1, num_steps=3,
                              sampler=sampler)  # fmt: skip
    np.testing.assert_allclose(array(found), array(expected), atol=1e-5)


@pytest.mark.once
@pytest.mark.parametrize("name", ["dpm_solver", "dpm_solver++", "sa_solver"])
def test_unrolled(name):
    model, z = labelled(paths.Trigonometric(1.0)), toy.noises(0)[0]
    sampler = kf.samplers.get(name)
    if name == "sa_solver":
        sampler = kf.samplers.SASolver(tau=0.0)
    z = z.astype("float32")
    bound = kf.samplers.Bound(model, condition=ops.ones((len(z),), "int32"))
    found = sampler.unrolled(bound, model.start(ops.convert_to_tensor(z)), 5)
    expected = model.generate(noise=z, condition=1, num_steps=5,
                              sampler=sampler)  # fmt: skip
    np.testing.assert_allclose(
        array(found.detach()), array(expected), atol=1e-5
    )


# Grids and bad input.


@pytest.mark.once
@pytest.mark.parametrize("case", ENDS)
def test_grids_run_from_noise_to_data(case):
    path = ENDS[case]
    for grid in ("uniform", "karras", "log_snr", "cosine"):
        for steps in (1, 2, 10):
            times = time_grid(path, steps, grid)
            assert times.shape == (steps + 1,) and times.dtype == np.float64
            assert times[0] == path.t_noise and times[-1] == path.t_data
            assert np.all(np.diff(times) * (path.t_data - path.t_noise) > 0)
            # A grid can be given as its own times.
            np.testing.assert_array_equal(
                time_grid(path, steps, tuple(times)), times
            )


def test_grids_are_uniform_in_what_they_say():
    path = paths.Linear(0.0)
    # Noise fractions of Linear are sigma; the ends are 0.999 and 0.001.
    sigma = 1.0 - time_grid(path, 6, "log_snr")
    lam = np.log((1 - sigma[1:-1]) / sigma[1:-1])
    np.testing.assert_allclose(np.diff(lam), 2 * np.log(999) / 5, rtol=1e-6)
    sigma = 1.0 - time_grid(path, 6, "karras")[1:-1]
    root = (sigma / (1 - sigma)) ** (1 / 7)
    ends = np.array([999.0, 1 / 999.0]) ** (1 / 7)
    np.testing.assert_allclose(root, np.linspace(*ends, 6)[1:], rtol=1e-6)
    cosine = 1.0 - time_grid(path, 6, "cosine")
    np.testing.assert_allclose(
        cosine, np.cos(np.pi / 2 * np.arange(7) / 6), atol=1e-12
    )
    vp = paths.VariancePreserving()
    with kf.ops.eager_float64() as number:
        t = time_grid(vp, 6, "log_snr")[:-1]
        lam = np.log(number(vp.alpha, t) / number(vp.sigma, t))
    np.testing.assert_allclose(np.diff(lam), (lam[-1] - lam[0]) / 5, rtol=1e-5)
    shifted = 1.0 - time_grid(path, 6, "log_snr", shift=2.0)[1:-1]
    plain = 1.0 - time_grid(path, 6, "log_snr")[1:-1]
    np.testing.assert_allclose(shifted, 2 * plain / (1 + plain), rtol=1e-6)


def likelihood(**kwargs):
    model = kf.FlowMapInterface(kf.networks.MLP(2, 4, 1), "flow", ema=None)
    return kf.samplers.log_likelihood(model, np.zeros((2, 2)), **kwargs)


ERRORS = {
    "order of ++": (lambda: kf.samplers.DPMSolverPP(4), "`order`.*4"),
    "order": (lambda: kf.samplers.DPMSolver(0), "`order`.*0"),
    "order of unipc": (lambda: kf.samplers.UniPC(2.5), "`order`.*2.5"),
    "variant": (lambda: kf.samplers.UniPC(variant="bh3"), "`variant`.*bh3"),
    "tau": (lambda: kf.samplers.DPMSolverPP(tau=-1.0), "`tau`.*-1.0"),
    "corrector": (lambda: kf.samplers.SASolver(2, 5), "`corrector_order`.*5"),
    "interval": (
        lambda: kf.samplers.SASolver(interval=(0.8, 0.2)),
        "`interval`.*low <= high",
    ),
    "by": (lambda: kf.samplers.SASolver(by="time"), "`by`.*time"),
    "churn": (lambda: kf.samplers.EDM(-1.0), "`s_churn`.*-1.0"),
    "s_max": (lambda: kf.samplers.EDM(1.0, 2.0, 1.0), "`s_max`.*`s_min`"),
    "rtol": (lambda: kf.samplers.DormandPrince(0.0), "`rtol`.*0.0"),
    "grid": (
        lambda: time_grid(paths.Linear(), 4, "sigmoid"), "`grid`.*log_snr",
    ),
    "shift": (
        lambda: time_grid(paths.Linear(), 4, "karras", 0.0), "`shift`.*0.0",
    ),
    "start": (
        lambda: kf.samplers.UniPC(grid=(0.4, 0.2, 0.0)).times(
            paths.Linear(1.0), 2
        ),
        r"mostly data.*`start=\(x, t\)`.*from noise to data",
    ),
    "stochastic likelihood": (
        lambda: likelihood(sampler="sa_solver"), "`sampler` draws noise",
    ),
    "fixed likelihood": (
        lambda: likelihood(sampler="unipc"), "must be a DormandPrince",
    ),
    "trace": (lambda: likelihood(trace="full"), "`trace`.*full"),
    "probes": (lambda: likelihood(probes=0), "`probes`.*0"),
    "adaptive export": (
        lambda: kf.FlowMapInterface(
            kf.networks.MLP(2, 4, 1), "flow", ema=None
        ).export("unused", sampler="dormand_prince"),
        "`sampler` chooses its steps",
    ),
}  # fmt: skip


@pytest.mark.once
@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    make, message = ERRORS[case]
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.once
def test_samplers_are_saved():
    for name in ALL:
        sampler = kf.samplers.get(name)
        config = keras.saving.serialize_keras_object(sampler)
        assert kf.samplers.get(config) == sampler
