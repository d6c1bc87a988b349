"""Time grids on every path: what every one of them holds to.

Those of solvers end at `t_data`, those of jump models where the path ends; a
chain's are whole timesteps.
"""

import numpy as np
import pytest
from keras import ops

import keras_flows as kf
from keras_flows.samplers.base import batch_of
from keras_flows.samplers.grids import jump_grid
from keras_flows.samplers.grids import time_grid

paths = kf.interpolants
PATHS = {
    "linear, noise at 0": paths.Linear(0.0),
    "linear, noise at 1": paths.Linear(1.0),
    "trigonometric, noise at 0": paths.Trigonometric(0.0),
    "trigonometric, noise at 1": paths.Trigonometric(1.0),
    "vp, linear": paths.VariancePreserving(),
    "vp, cosine": paths.VariancePreserving("cosine"),
    "ve": paths.VarianceExploding(),
    "trigflow": paths.TrigFlow(),
    "chain": paths.DiscreteVariancePreserving(),
    "chain, cosine": paths.DiscreteVariancePreserving("cosine"),
    "chain, scaled": paths.DiscreteVariancePreserving("scaled_linear"),
    "short chain": paths.DiscreteVariancePreserving("cosine", 10),
}
CHAINS = [name for name in PATHS if "chain" in name]
GRIDS = (None, "uniform", "karras", "log_snr", "cosine")


@pytest.fixture(params=PATHS)
def case(request):
    return request.param


@pytest.fixture(params=GRIDS)
def grid(request):
    return request.param


def float64(f, t):
    with kf.ops.eager_float64() as number:
        return number(f, t)


def log_snr(path, t):
    return np.log(float64(path.alpha, t) / float64(path.sigma, t))


def falls(path, times):
    return np.all(np.diff(times) * (path.t_data - path.t_noise) > 0)


def index_of(path, times):
    """Whole indices of a chain's times, checked to be whole."""
    index = times * path.num_timesteps
    np.testing.assert_allclose(index, np.round(index), atol=1e-9)
    return np.round(index).astype(int)


# Grids of solvers.


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
def test_grids_of_solvers(case, grid, shift):
    path = PATHS[case]
    for steps in (1, 2, 3, 10):
        if shift != 1.0 and steps == 10 and case == "short chain":
            # Ten of ten timesteps cannot be moved.
            continue
        times = time_grid(path, steps, grid, shift)
        assert times.shape == (steps + 1,) and times.dtype == np.float64
        assert times[0] == path.t_noise and times[-1] == path.t_data
        assert falls(path, times)
        # N calls, none beyond `t_last`.
        assert np.all(path.toward_data(times[:-1], path.t_last))
        # They stay apart in the float32 of a walk, and can be given.
        assert falls(path, times.astype("float32"))
        np.testing.assert_array_equal(
            time_grid(path, steps, tuple(times)), times
        )


def test_uniform_is_even_in_levels(case):
    path = PATHS[case]
    times = time_grid(path, 8)
    stops = path.t_last != path.t_data
    levels = path.level(times[:-1] if stops else times)
    tol = 1.5 / path.num_timesteps if case in CHAINS else 1e-12
    last = path.level(path.t_last)
    expected = np.linspace(1.0, last, 8 if stops else 9)
    np.testing.assert_allclose(levels, expected, atol=tol)


def test_uniform_on_the_exploding_path_is_karras():
    path = PATHS["ve"]
    for steps in (1, 2, 18):
        uniform, karras = (time_grid(path, steps, g) for g in (None, "karras"))
        np.testing.assert_allclose(uniform, karras, rtol=1e-9)
    # Both ends exact.
    assert uniform[0] == 80.0 and uniform[-2] == 0.002


# Chains.


@pytest.mark.once
@pytest.mark.parametrize("shift", [1.0, 2.0])
@pytest.mark.parametrize("name", CHAINS)
def test_grids_of_chains_are_whole_timesteps(name, grid, shift):
    path = PATHS[name]
    for steps in (1, 2, 5, path.num_timesteps // 3):
        for times, ends in (
            (time_grid(path, steps, grid, shift), (1, 0)),
            (jump_grid(path, steps, grid, shift), (None, 0)),
        ):
            index = index_of(path, times)
            assert index[0] == path.num_timesteps and index[-1] == ends[1]
            assert len(np.unique(index)) == steps + 1
            if steps > 1 and ends[0] is not None:
                assert index[-2] == ends[0]


@pytest.mark.once
@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_has_no_more_steps_than_timesteps(name, grid):
    path = PATHS[name]
    count = path.num_timesteps
    all_of_them = np.arange(count, -1, -1)
    times = time_grid(path, count, grid)
    np.testing.assert_array_equal(index_of(path, times), all_of_them)
    times = jump_grid(path, count, grid)
    np.testing.assert_array_equal(index_of(path, times), all_of_them)
    for make in (time_grid, jump_grid):
        with pytest.raises(ValueError, match=rf"num_steps.*{count + 1}"):
            make(path, count + 1, grid)


@pytest.mark.once
@pytest.mark.parametrize("name", CHAINS[:3])
def test_log_snr_on_a_chain_is_as_even_as_whole_timesteps_allow(name):
    path = PATHS[name]
    count = path.num_timesteps
    for steps in (10, 50, 400):
        index = index_of(path, time_grid(path, steps, "log_snr"))[:-1]
        lam = log_snr(path, index / count)
        gaps = np.diff(lam)
        # An even step of log-SNR is at most half a timestep off, where it is
        # longer than one; else one timestep after the other is taken.
        next_to = np.abs(np.diff(index)) == 1
        one = log_snr(path, (index[1:] - 1 + (index[1:] == 1)) / count)
        longest = np.maximum(np.abs(one - lam[1:]), np.diff(-lam[::-1])[::-1])
        assert np.all(gaps > 0)
        free = ~next_to & (index[:-1] < count - 1)
        if free.sum() > 3:
            middle = np.median(gaps[free])
            assert np.all(gaps[free] < middle + longest[free])
            assert np.all(gaps[free][: free.sum() // 2] > 0.5 * middle)
        # Even in t, the last step took from a tenth to half of log-SNR.
        uniform = index_of(path, time_grid(path, steps))[:-1]
        even = np.diff(log_snr(path, uniform / count))
        assert gaps.max() <= even.max() + 1e-9


class Gaussian:
    """N(0, 0.36) as samplers see a model, exact."""

    n_mu, n_sigma = 0.0, 1.0

    def __init__(self, path):
        self.interpolant = path

    def denoise(self, x, t):
        path = self.interpolant
        alpha, sigma = (
            kf.ops.bcast_right(f(t), x) for f in (path.alpha, path.sigma)
        )
        return 0.36 * alpha / (0.36 * alpha**2 + sigma**2) * x


def std_after(sampler, path, num_steps):
    """Of the samples: each is affine in its start and its noises."""
    model, times = Gaussian(path), sampler.times(path, num_steps)
    most = max(1, sampler.history)
    x = ops.convert_to_tensor(np.eye(1, num_steps + 1))
    state = sampler.begin(path, num_steps)
    for i, (t, r) in enumerate(zip(times[:-1], times[1:], strict=True)):
        noise = ops.convert_to_tensor(np.eye(1, num_steps + 1, i + 1))
        x, state = sampler.advance(
            model, x, batch_of(t, x), batch_of(r, x),
            noise if sampler.stochastic else None,
            state, min(num_steps - 1 - i, most),
        )  # fmt: skip
    return np.sqrt(np.sum(ops.convert_to_numpy(x) ** 2))


@pytest.mark.once
@pytest.mark.parametrize(
    "name, num_steps",
    [(name, steps) for name in CHAINS[:3] for steps in (50, 100)]
    + [(CHAINS[0], 400)],
)
@pytest.mark.parametrize(
    "sampler",
    ["dpm_solver++sde", "dpm_solver++", "dpm_solver", "unipc", "sa_solver"],
)
def test_solvers_keep_the_spread_of_a_chain(sampler, name, num_steps):
    """Even in t, the last steps spanned most of log-SNR: 14 % too much."""
    sampler = kf.samplers.get(sampler)
    std = std_after(sampler, PATHS[name], num_steps)
    assert abs(std - 0.6) < 0.02 * 0.6, std


# Grids of jump models.


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_jump_grids(case, grid, shift):
    path = PATHS[case]
    end = path.t_data if case in CHAINS else path.t_last
    for steps in (1, 2, 5):
        times = jump_grid(path, steps, grid, shift)
        assert times.shape == (steps + 1,) and times.dtype == np.float64
        assert times[0] == path.t_noise and times[-1] == end
        assert falls(path, times)
        assert np.all(path.level(times[:-1]) > path.level(path.t_last))
        np.testing.assert_array_equal(
            kf.samplers.FlowMapJump(grid, shift=shift).times(path, steps),
            times,
        )
        # They can be given, and so can those that end at `t_data`.
        onward = (*times[:-1], path.t_data)
        for given in (tuple(times), onward):
            np.testing.assert_array_equal(jump_grid(path, steps, given), given)


def test_jump_grids_are_even_in_levels(case):
    path = PATHS[case]
    for steps in (1, 2, 5):
        levels = path.level(jump_grid(path, steps))
        # All of these divide the numbers of timesteps.
        np.testing.assert_allclose(
            levels, np.linspace(1.0, 0.0, steps + 1), atol=1e-12
        )


class Recorder:
    """A jump model that notes where it is called, and where it jumps to."""

    n_mu, n_sigma = 0.0, 1.0

    def __init__(self, path):
        self.interpolant, self.calls = path, []

    def jump(self, x, t, r):
        at = (float(ops.convert_to_numpy(time)[0]) for time in (t, r))
        self.calls.append(tuple(at))
        return x

    def end(self, x, t):
        return self.jump(x, t, ops.full_like(t, self.interpolant.t_last))


@pytest.mark.parametrize("renoise", [0.0, 0.5, 1.0])
def test_n_calls_are_n_jumps(case, renoise):
    path, steps = PATHS[case], 4
    model, sampler = Recorder(path), kf.samplers.FlowMapJump(renoise=renoise)
    x = ops.ones((1, 2))
    noises = [ops.zeros((1, 2))] * steps
    grid = sampler.times(path, steps).astype("float32")
    sampler.unrolled_on(grid, lambda t, r: model, x, steps, noises)
    times = jump_grid(path, steps).astype("float32")
    starts, ends = np.array(model.calls).T
    np.testing.assert_allclose(starts, times[:-1], rtol=1e-6)
    # With noise anew each jump is to where the flow ends.
    assert ends[-1] == (np.float32(path.t_last) if renoise == 1 else times[-1])
    assert np.all(path.toward_data(ends[:-1], np.float32(path.t_last)))
    # CTM's gamma sampling: sqrt(1 - gamma^2) of the way from the data.
    keep = np.sqrt(1.0 - renoise**2)
    expected = path.within(path.t_data + keep * (times[1:-1] - path.t_data))
    np.testing.assert_allclose(ends[:-1], expected, rtol=1e-5)
    if case == "ve":
        expected = np.maximum(keep * times[1:-1], 0.002)
        np.testing.assert_allclose(ends[:-1], expected, rtol=1e-5)


def test_two_jumps_of_a_consistency_model_are_not_one():
    """On its own path the second call was at sigma_min, which returns x."""
    network = kf.networks.MLP(2, width=8, depth=1)
    model = kf.ConsistencyInterface(network, ema=None, seed=0)
    z = np.random.default_rng(0).standard_normal((64, 2)).astype("float32")
    one, two = (
        ops.convert_to_numpy(model.generate(noise=z, num_steps=n, seed=0))
        for n in (1, 2)
    )
    assert np.abs(one - two).mean() > 1e-3


# Times that are given.


def broken(path):
    """Name -> (times of two steps, what the error names)."""
    noise, data, last = path.t_noise, path.t_data, path.t_last
    middle = float(path.time_of_level(np.asarray(0.5)))
    # There is less noise than data.
    late = float(path.time_of_level(np.asarray(0.02)))
    away = 0.1 * (noise - data)
    return {
        "backwards": (last, middle, noise),
        "to and fro": (noise, last, middle),
        "still": (noise, middle, middle),
        "late start": (late, 0.5 * (late + last), last),
        "early end": (noise, 0.5 * (middle + noise), middle),
        "before noise": (noise + away, middle, data),
        "beyond data": (noise, middle, data - away),
        "nan": (noise, float("nan"), data),
    }


@pytest.mark.once
@pytest.mark.parametrize("make", [time_grid, jump_grid])
@pytest.mark.parametrize("fault", broken(PATHS["ve"]))
def test_times_that_do_not_run_from_noise_to_data(case, fault, make):
    path = PATHS[case]
    times = broken(path)[fault]
    with pytest.raises(ValueError, match="(?s)`grid`.*Received.*Give") as error:
        make(path, 2, times)
    for end in (path.t_noise, path.t_data, path.t_last):
        assert str(end) in str(error.value)
    assert str(float(times[1])) in str(error.value)


@pytest.mark.once
@pytest.mark.parametrize("make", [time_grid, jump_grid])
def test_what_is_no_sequence_of_times(make):
    for given in ((1.0, 0.5, 0.0), 0.5, ("a", "b"), ((1.0, 0.0), (1.0, 0.0))):
        with pytest.raises(ValueError, match="`grid`.*give 2.*Received"):
            make(paths.Linear(), 1, given)


@pytest.mark.parametrize("make", [time_grid, jump_grid])
def test_times_may_be_rounded_to_float32(case, make):
    path = PATHS[case]
    times = make(path, 3)
    rounded = times.astype("float32").tolist()
    np.testing.assert_allclose(make(path, 3, rounded), times, rtol=1e-6)
