"""Words, shapes, pairs and objects that are none: refused by name."""

import numpy as np
import pytest

import keras_flows as kf
from keras_flows.ops import given

pytestmark = pytest.mark.once


def mlp(**options):
    return kf.networks.MLP(2, 8, 1, **options)


def policy_network(shape):
    return kf.networks.ChunkMLP(2, 4, shape, width=8, depth=1)


WORDS = {
    "architecture": lambda w: kf.networks.SongUNet((8, 8, 3), architecture=w),
    "base": lambda w: kf.interpolants.StochasticInterpolant(base=w),
    "by": lambda w: kf.samplers.SASolver(by=w),
    "cell": lambda w: kf.networks.PolicyRNN(2, 4, (2, 3), cell=w),
    "derivative": lambda w: kf.objectives.LSD(derivative=w),
    "diffusion": lambda w: kf.samplers.EulerMaruyama(diffusion=w),
    "gamma": lambda w: kf.interpolants.StochasticInterpolant(gamma=w),
    "method": lambda w: kf.objectives.DistributionMatching(method=w),
    "norm": lambda w: kf.SiTInterface(mlp(), norm=w),
    "prediction": lambda w: kf.DiscreteInterface(mlp(), prediction=w),
    "reference": lambda w: kf.metrics.HistogramKL(
        kf.datasets.Checkerboard(), reference=w
    ),
    "schedule": lambda w: kf.interpolants.VariancePreserving(schedule=w),
    "solver_type": lambda w: kf.samplers.DPMSolverPP(solver_type=w),
    "stop_gradient": lambda w: kf.objectives.LSD(stop_gradient=w),
    "variance": lambda w: kf.samplers.DDPM(variance=w),
    "variant": lambda w: kf.samplers.UniPC(variant=w),
    "weighting": lambda w: kf.DiscreteInterface(mlp(), weighting=w),
}


@pytest.mark.parametrize("bad", ["no_such", b"x", [], {}, 0, "array", object])
@pytest.mark.parametrize("name", WORDS)
def test_words(name, bad):
    bad = np.array(["a", "b"]) if bad == "array" else bad
    with pytest.raises(ValueError, match=f"`{name}`"):
        WORDS[name](bad)


SHAPES = {
    "dim": lambda s: kf.networks.MLP(s, 8, 1),
    "image_shape": lambda s: kf.networks.DiT(s, width=8, num_heads=2),
    "channel_mult": lambda s: kf.networks.SongUNet((8, 8, 3), channel_mult=s),
    "condition_shape": policy_network,
    "observation_shape": lambda s: kf.networks.PerStepMLPEncoder(s),
    "shape": lambda s: kf.SiTInterface(mlp(), ema=None).sample_t(s),
}


@pytest.mark.parametrize(
    "bad", [-(2**70), np.inf, "ab", None, ("a", 2), (2.5, 2), (-1, 2), object()]
)
@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name, bad):
    with pytest.raises(ValueError, match=f"`{name}`"):
        SHAPES[name](bad)


def generated(**options):
    model = kf.SiTInterface(mlp(), ema=None)
    return model.generate(2, num_steps=1, **options)


def predicted(**options):
    model = kf.SiTInterface(mlp(), ema=None)
    return model.pred(
        **{"x_t": np.zeros((2, 2), "float32"), "t": 0.5} | options
    )


NUMBERS = {
    "noise": lambda v: generated(noise=v),
    "guidance_interval": lambda v: generated(guidance_interval=v),
    "t": lambda v: predicted(t=v),
    "x_t": lambda v: predicted(x_t=v),
    "x": lambda v: kf.samplers.log_likelihood(
        kf.SiTInterface(mlp(), ema=None), v
    ),
    "data": lambda v: kf.networks.MinMax().adapt(v),
}


@pytest.mark.parametrize(
    "bad", ["a word", object(), np.array([["a", "b"]] * 2), [["a"]], 1j]
)
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(name, bad):
    with pytest.raises(ValueError, match=f"`{name}`"):
        NUMBERS[name](bad)


@pytest.mark.parametrize("bad", ["int32", "words", 0.5, int])
def test_dtypes(bad):
    with pytest.raises(ValueError, match="`dtype`"):
        kf.networks.DiT((4, 4, 3), 2, 8, 1, 2, dtype=bad)


@pytest.mark.parametrize(
    "bad", [np.full((2, 2), np.nan, "float32"), np.zeros((0, 2)), 0.5]
)
def test_states_that_are_none(bad):
    with pytest.raises(ValueError, match="`x_t` must be"):
        predicted(x_t=bad)


def test_fit_without_data():
    model = kf.SiTInterface(mlp(), ema=None)
    model.compile("sgd")
    with pytest.raises(ValueError, match="`x` is missing"):
        model.fit()


OBJECTS = {
    "policy": lambda v: kf.policies.Controller(v),
    "env": lambda v: kf.policies.record(kf.policies.Policy, v, 0, "a.gif"),
    "fn": lambda v: kf.objectives.FunctionObjective(v),
    "model": lambda v: kf.check_jvp(v, np.zeros((2, 2), "float32")),
    "network": lambda v: kf.networks.clone_network(v, "copy"),
}


@pytest.mark.parametrize("bad", [0.5, "a word", [], None, int])
@pytest.mark.parametrize("name", OBJECTS)
def test_objects(name, bad):
    with pytest.raises(ValueError, match=f"`{name}`|`policy`"):
        OBJECTS[name](bad)


def test_what_fits_arrives_as_pythons_own():
    assert given.sizes("x", [np.int64(2), 3], ndim=2) == (2, 3)
    assert given.sizes("x", np.int32(2), single=True) == (2,)
    assert given.pair("x", np.array([0.1, 0.9])) == (0.1, 0.9)
    assert given.choice("x", None, ("a", "b"), none=True) is None
    with pytest.raises(ValueError, match="one of ab, cd.*Did you mean 'ab'"):
        given.choice("x", "abc", ("ab", "cd"))


def test_a_schedule_of_constant_noise_has_an_inverse():
    path = kf.interpolants.VariancePreserving(beta_min=4.0, beta_max=4.0)
    t = np.array([0.2, 0.7], "float32")
    back = path.time_from_ratio(path.sigma(t) / path.alpha(t))
    np.testing.assert_allclose(np.asarray(back), t, rtol=1e-4)
