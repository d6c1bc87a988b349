"""A mask counts in every term of every model, or is refused by name."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

import keras_flows as kf

ROWS, STEPS = 6, 4


def network(two_times=False, channels=2):
    """Each step of x by itself, so that no network carries the padding."""
    keras.utils.set_random_seed(0)
    inputs = {"x": keras.Input((STEPS, 2)), "t": keras.Input(())}
    if two_times:
        inputs["r"] = keras.Input(())
    times = [
        keras.layers.RepeatVector(STEPS)(keras.layers.Reshape((1,))(time))
        for name, time in inputs.items()
        if name != "x"
    ]
    h = keras.layers.Concatenate()([inputs["x"], *times])
    h = keras.layers.Dense(8, "tanh")(h)
    return keras.Model(inputs, keras.layers.Dense(channels)(h))


PLAIN = {"ema": None, "seed": 0}
MAPS = ("lsd", "psd", "ctm", "shortcut", "esd", "mf")
POLICIES = ("flow", "regression", "straight_flow", "mip", "tsd")


def frozen(model):
    model.trainable = False
    return model


def taught(objective):
    teacher = frozen(kf.FlowMapInterface(network(True), "lsd", **PLAIN))
    return kf.FlowMapInterface(
        network(True), objective, teacher=teacher, **PLAIN
    )


def reparametrized():
    held = kf.MeanFlowInterface(network(True), **PLAIN)
    return kf.ReparametrizedInterface(held, kf.interpolants.TrigFlow())


COUNTS = {
    "SiT": lambda: kf.SiTInterface(network(), **PLAIN),
    "EDM": lambda: kf.EDMInterface(network(), **PLAIN),
    "pseudo_huber": lambda: kf.SiTInterface(
        network(), norm="pseudo_huber", **PLAIN
    ),
    "discrete": lambda: kf.DiscreteInterface(
        network(), time_scale=1e-3, **PLAIN
    ),
    "variances": lambda: kf.DiscreteInterface(
        network(channels=4),
        "cosine",
        4,
        learn_sigma=True,
        time_scale=0.2,
        **PLAIN,
    ),
    "MeanFlow": lambda: kf.MeanFlowInterface(network(True), **PLAIN),
    "consistency": lambda: kf.ConsistencyInterface(network(), **PLAIN),
    "progressive": lambda: kf.ProgressiveInterface(
        frozen(kf.SiTInterface(network(), **PLAIN)), num_steps=(2, 1)
    ),
    "reparametrized": reparametrized,
    "lmd": lambda: taught("lmd"),
    **{
        name: lambda name=name: kf.FlowMapInterface(
            network(True), name, **PLAIN
        )
        for name in MAPS
    },
    **{
        name: lambda name=name: kf.FlowMapInterface(network(), name, **PLAIN)
        for name in POLICIES
    },
}
REFUSES = {
    "ayf": lambda: taught("ayf"),
    "sCT": lambda: kf.SCTInterface(network(), **PLAIN),
    "imm": lambda: kf.FlowMapInterface(
        network(True), kf.objectives.IMM(particles=2), **PLAIN
    ),
    "stable": lambda: kf.SiTInterface(network(), stable_target=True, **PLAIN),
    "dmd": lambda: kf.DMDInterface(frozen(kf.SiTInterface(network()))),
    "half": lambda: kf.FlowMapInterface(network(), HalfMasked(), **PLAIN),
}


@dataclasses.dataclass(frozen=True)
class HalfMasked(kf.objectives.Objective):
    """One of its two terms forgets the mask."""

    name = "half_masked"
    terms = ("mse", "size")

    def __call__(self, model, batch):
        error = model.net(batch.x, batch.x[:, 0, 0]) - batch.x
        mse, size = batch.norm(error), kf.ops.mean_flat(ops.abs(error))
        return {"loss": mse + size, "mse": mse, "size": size}


def data():
    x = np.random.default_rng(0).uniform(-1, 1, (ROWS, STEPS, 2))
    mask = np.ones((ROWS, STEPS))
    mask[0, 2:] = mask[1, 0] = mask[3, 1:] = mask[4] = 0
    return x.astype("float32"), mask.astype("float32")


def terms(model, x, mask):
    """With the same draws every time."""
    for each in model.everything():
        if "seed_generator" in each.__dict__:
            each.seed_generator.state.assign(np.array([7, 0], "uint32"))
    found = model.loss(x, None, {"mask": mask})
    return {
        name: ops.convert_to_numpy(ops.stop_gradient(term))
        for name, term in found.items()
    }


@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("variances", "progressive", "lsd")
        else pytest.param(name, marks=pytest.mark.once)
        for name in COUNTS
    ],
)
def test_what_a_mask_leaves_out_is_in_no_term(name):
    model = COUNTS[name]()
    x, mask = data()
    hole = mask[..., None] == 0
    want = terms(model, x, mask)
    other = terms(model, np.where(hole, 30.0, x).astype("float32"), mask)
    assert set(want) == set(other)
    for term in want:
        assert want[term].shape == (ROWS,)
        np.testing.assert_allclose(
            other[term], want[term], rtol=1e-5, atol=1e-7, err_msg=term
        )
    kept = terms(model, np.where(hole, x, x + 1.0).astype("float32"), mask)
    for term in want:
        if not term.endswith("_share"):
            assert np.abs(kept[term] - want[term]).max() > 1e-7, term


@pytest.mark.once
@pytest.mark.parametrize("name", COUNTS)
def test_a_mask_of_ones_is_no_mask(name):
    model = COUNTS[name]()
    x, mask = data()
    masked = terms(model, x, np.ones_like(mask))
    for each in model.everything():
        if "seed_generator" in each.__dict__:
            each.seed_generator.state.assign(np.array([7, 0], "uint32"))
    for term, value in model.loss(x).items():
        value = ops.convert_to_numpy(ops.stop_gradient(value))
        np.testing.assert_allclose(value, masked[term], rtol=1e-5, atol=1e-7)


@pytest.mark.once
@pytest.mark.parametrize("name", REFUSES)
def test_a_model_that_cannot_use_a_mask_says_so(name):
    with pytest.raises(ValueError, match="'mask'"):
        terms(REFUSES[name](), *data())


@pytest.mark.once
@pytest.mark.parametrize("name", [*COUNTS, *REFUSES])
def test_unknown_extras_and_wrong_masks_are_refused(name):
    model = {**COUNTS, **REFUSES}[name]()
    x, mask = data()
    for extras in ({"msk": mask}, {"mask": mask, "more": mask}, mask,
                   {"mask": mask[:1]}, {"mask": mask[:, :2]},
                   {"mask": None}):  # fmt: skip
        with pytest.raises(ValueError, match="mask|extras"):
            model.loss(x, None, extras)


@pytest.mark.once
def test_a_bridge_refuses_extras():
    path = kf.interpolants.StochasticInterpolant(gamma="none")
    model = kf.StochasticInterpolantInterface(
        network(), interpolant=path, **PLAIN
    )
    x, mask = data()
    with pytest.raises(ValueError, match="'mask'"):
        model.loss((x, x), None, {"mask": mask})
