"""Numbers and flags of every public constructor: in range, or an error.

The walk is over what the package makes public, so that a class that is added
is walked too. Numbers are looked at before anything else, so that other
arguments may be nonsense here.
"""

import inspect
import types

import numpy as np
import pytest

import keras_flows as kf
from keras_flows.ops.scalars import flag
from keras_flows.ops.scalars import integer
from keras_flows.ops.scalars import number

pytestmark = pytest.mark.once

# Not made by users, who reach them through what checks for them.
INNER = {
    "Batch": "what an objective is handed",
    "Bound": "what a sampler is handed",
    "Holder": "a base class, whose flag is its subclass's",
    "Labels": "made by labels_of",
    "Request": "made by generate",
    "Rollout": "made by evaluate",
    "Served": "made by export",
    "Source": "made by from_export and from_preset",
    "jvp": "called by objectives",
    "Dense": "Keras's own, whose flag is Keras's",
    "SeedGenerator": "Keras's own; models check their seed",
    "upload_preset": "its flag goes to the hub as it is",
}
# Numbers below 0 that have a meaning.
SIGNED = {
    "t_mu": "of a log of times",
    "n_mu": "a mean",
    "mu": "of a log of times",
    "guidance_scale": "away from the condition",
    "teacher_guidance_scale": "away from the condition",
    "alpha": "SiD's, which may be 1.2 or negative",
    "bias": "of a logit",
    "curvature": "a factor of a moment",
    "guidance_power": "scales may be denser above",
    "shift_factor": "a mean of latents",
}
# Numbers whose default is whole, and which need not be.
REAL = {"t_shift_base", "mlp_ratio"}
# Optional numbers: their default None does not tell.
OPTIONAL = {
    "num_classes", "condition_dim", "seed", "decay", "std", "clip", "s_max",
    "num_timesteps", "hidden_width", "decoder_dim", "decoder_heads",
    "columns", "image_size",
}  # fmt: skip


def public():
    """name -> class or function with a number or a flag among its defaults."""
    # Some are imported at their first use.
    everything = [getattr(kf, name) for name in dir(kf)]
    modules = [kf] + [
        m
        for m in everything
        if isinstance(m, types.ModuleType)
        and m.__name__.startswith("keras_flows")
    ]
    found = {}
    for module in modules:
        for name, thing in vars(module).items():
            ours = getattr(thing, "__module__", "").startswith("keras_flows")
            if name.startswith("_") or not ours or thing in found.values():
                continue
            if inspect.isclass(thing) or inspect.isfunction(thing):
                if not (
                    inspect.isclass(thing) and issubclass(thing, Exception)
                ):
                    found[f"{module.__name__}.{name}"] = thing
    return found


def cases():
    for path, thing in public().items():
        if thing.__name__ in INNER:
            continue
        for name, parameter in inspect.signature(thing).parameters.items():
            default = parameter.default
            if name == "ema":
                continue  # an `EMA`, which has a test of its own
            if isinstance(default, (bool, int, float)) or (
                default is None and name in OPTIONAL
            ):
                yield pytest.param(thing, name, id=f"{path}-{name}")


def bad_values(name, default):
    if isinstance(default, bool):
        return ["False", "True", 2, 0, np.nan, [True]]
    bad = [np.nan, np.inf, -np.inf, "3", True, False, [1, 2], 1j]
    if name not in SIGNED:
        bad += [-1, -0.5]
    bad += [1e30, -1e30]
    if isinstance(default, int) and name not in REAL:
        bad += [2.5, np.float32(2.5)]
    return bad


@pytest.mark.parametrize("thing, name", cases())
def test_numbers_and_flags(thing, name):
    signature = inspect.signature(thing).parameters
    others = {
        n: 1
        for n, p in signature.items()
        if p.default is p.empty and p.kind in (0, 1, 3) and n != name
    }
    for bad in bad_values(name, signature[name].default):
        with pytest.raises((ValueError, TypeError)) as error:
            thing(**others, **{name: bad})
        assert f"`{name}`" in str(error.value), (bad, str(error.value))


def test_what_is_left_out_is_there():
    names = {thing.__name__ for thing in public().values()}
    assert set(INNER) <= names
    walked = {case.values[1] for case in cases()}
    assert set(SIGNED) | OPTIONAL | REAL <= walked


@pytest.mark.parametrize(
    "argument, bad",
    [
        ("guidance_scale", np.nan),
        ("guidance_scale", "2"),
        ("guidance_scale", 1e30),
        ("guidance_interval", (0.0, np.nan)),
        ("seed", -1),
        ("seed", 0.5),
        ("seed", "0"),
        ("num_steps", np.nan),
        ("num_steps", True),
        ("batch_size", 0),
        ("batch_size", 1.5),
        ("use_ema", "False"),
        ("noise", np.full((2, 2), np.nan, "float32")),
        ("guidance_channels", True),
    ],
)
def test_arguments_of_generate(argument, bad):
    model = kf.SiTInterface(kf.networks.MLP(2, 8, 1, num_classes=3), ema=None)
    options = {"condition": [0, 1], "num_steps": 1, "guidance_scale": 2.0}
    with pytest.raises(ValueError, match=f"`{argument}"):
        model.generate(**options | {argument: bad})


@pytest.mark.parametrize(
    "make, told",
    [
        (
            lambda: kf.interpolants.VariancePreserving(
                beta_min=30.0, beta_max=20.0
            ),
            "`beta_min` must not be above `beta_max`",
        ),
        (lambda: kf.interpolants.Uniform(0.7, 0.3), "`low` must be below"),
        (
            lambda: kf.metrics.HistogramKL(BOARD, extent=500.0),
            "`extent` and `bins`",
        ),
        (lambda: kf.metrics.HistogramKL(BOARD, bins=1), "`extent` and `bins`"),
        (
            lambda: kf.metrics.HistogramKL(BOARD, extent=0.1),
            "`extent` must be the half width",
        ),
        (
            lambda: kf.metrics.HistogramKL(
                BOARD, extent=500.0, reference="density"
            ),
            "`extent`",
        ),
        (lambda: kf.metrics.HistogramKL(BOARD, eps=0.5), "`eps`"),
        (
            lambda: kf.MeanFlowInterface(
                kf.networks.MLP(2, 8, 1, two_times=True),
                guidance_t_min=0.9,
                guidance_t_max=0.1,
            ),
            "`guidance_t_min` must not be above `guidance_t_max`",
        ),
    ],
)
def test_pairs_of_numbers(make, told):
    with pytest.raises(ValueError, match=told):
        make()


BOARD = kf.datasets.Checkerboard()


@pytest.mark.parametrize("bad", [np.nan, "0.9", True, 1.0, -0.1, 1e30])
def test_the_decay_of_an_average(bad):
    with pytest.raises(ValueError, match="`decay`|`ema`"):
        kf.SiTInterface(kf.networks.MLP(2, 8, 1), ema=bad)


def test_numbers_of_numpy_become_pythons_own():
    for value in (np.float32(0.5), np.array(0.5), np.array([0.5]), 0.5):
        found = number("x", value, 0, 1)
        assert type(found) is float and found == 0.5
    for value in (np.int64(3), np.array(3), np.uint8(3), 3):
        assert type(integer("n", value, 1)) is int
        assert type(number("x", value)) is int
    assert flag("f", np.bool_(True)) is True
    model = kf.SiTInterface(
        kf.networks.MLP(np.int64(2), np.int32(8), np.uint8(1)),
        t_mu=np.float32(0.5),
        t_shift_base=np.int64(16),
        seed=np.int64(3),
        ema=np.float64(0.9),
        stable_target=np.bool_(False),
    )
    again = type(model).from_config(model.get_config())
    assert again.t_mu == 0.5 and again.seed == 3
    sampler = kf.samplers.DDIM(eta=np.float32(0.5))
    assert sampler == kf.samplers.DDIM(eta=0.5)


def test_the_message_says_range_and_value():
    with pytest.raises(ValueError, match="`a` must be a finite number above 0"):
        number("a", np.nan, above=0)
    with pytest.raises(
        ValueError,
        match="`b` must be an int of at least 1 and at most 3. Received: 4.",
    ):
        integer("b", 4, 1, 3)
    with pytest.raises(
        ValueError, match="`c` must be True or False. Received: 'no'."
    ):
        flag("c", "no")
