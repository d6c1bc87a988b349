"""Numbers and flags of every interface are told in its config, and read."""

import inspect

import keras
import pytest

import keras_flows as kf

pytestmark = pytest.mark.once


def mlp(two_times=False):
    return kf.networks.MLP(2, 8, 1, two_times=two_times, num_classes=3)


def teacher(**options):
    model = kf.SiTInterface(mlp(), ema=None, **options)
    model.trainable = False
    return model


def trig_teacher():
    return teacher(interpolant=kf.interpolants.TrigFlow(0.5))


# What each is made of beside its numbers.
GIVEN = {
    kf.SiTInterface: lambda: {"network": mlp()},
    kf.EDMInterface: lambda: {"network": mlp()},
    kf.FlowMapInterface: lambda: {
        "network": mlp(True), "objective": "lmd",
        "teacher": teacher(interpolant=kf.interpolants.Linear(0.0)),
    },
    kf.MeanFlowInterface: lambda: {"network": mlp(True)},
    kf.ConsistencyInterface: lambda: {
        "network": mlp(), "interpolant": kf.interpolants.Linear(1.0),
        "schedule": "constant", "teacher": teacher(),
    },
    kf.SCTInterface: lambda: {"network": mlp()},
    kf.SCDInterface: lambda: {"network": mlp(), "teacher": trig_teacher()},
    kf.DiscreteInterface: lambda: {"network": mlp(), "prediction": "v"},
    kf.StochasticInterpolantInterface: lambda: {
        "network": mlp(), "noise_network": mlp(),
    },
    kf.DMDInterface: lambda: {"teacher": teacher()},
    kf.ProgressiveInterface: lambda: {"teacher": teacher()},
    kf.REPAInterface: lambda: {
        "interface": kf.SiTInterface(
            kf.networks.DiT((4, 4, 1), 2, 8, 2, 2), ema=None
        ),
        "layer": "block_0",
    },
}  # fmt: skip
# An average is told as an `EMA`.
OTHERS = {cls: {"ema"} for cls in GIVEN}
# Settled by the class, or not to be had without another network or teacher.
OTHERS[kf.FlowMapInterface] |= {"n_mu", "n_sigma"}
OTHERS[kf.ConsistencyInterface] |= {"n_mu", "n_sigma"}
OTHERS[kf.SCDInterface] |= {"n_mu", "n_sigma", "x_sigma", "stable_target"}
OTHERS[kf.DiscreteInterface] |= {
    "learn_sigma", "n_mu", "n_sigma", "t_mu", "t_sigma", "t_shift_base",
    "x_sigma",
}  # fmt: skip
OTHERS[kf.StochasticInterpolantInterface] |= {"stable_target"}


def arguments(cls):
    """(name, default) of the numbers and flags, those passed on included."""
    found = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters
        for name, parameter in parameters.items():
            if isinstance(parameter.default, (bool, int, float)):
                found.setdefault(name, parameter.default)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return found


def another(default):
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default + 1
    return 0.75 * default if default else 0.25


@pytest.mark.parametrize("cls", GIVEN, ids=lambda cls: cls.__name__)
def test_arguments_come_back(cls):
    """All at once; each has a value of its own that is not its default."""
    changed = {
        name: another(default)
        for name, default in arguments(cls).items()
        if name not in OTHERS[cls] | {"stable_target"}
    }
    check(cls, {**GIVEN[cls](), **changed}, changed)


@pytest.mark.parametrize("cls", GIVEN, ids=lambda cls: cls.__name__)
def test_stable_targets_come_back(cls):
    if "stable_target" not in arguments(cls) or "stable_target" in OTHERS[cls]:
        pytest.skip("has none")
    given = GIVEN[cls]()
    # Of data alone.
    given.pop("teacher", None)
    given.pop("objective", None)
    check(cls, {**given, "stable_target": True}, {"stable_target": True})


def check(cls, given, changed):
    model = cls(**given)
    saved = keras.saving.serialize_keras_object(model)
    again = keras.saving.deserialize_keras_object(saved)
    for config in (saved["config"], again.get_config()):
        assert {name: config[name] for name in changed} == changed
