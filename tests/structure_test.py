"""The shape of the house: short lines of inheritance, few frames."""

import pathlib
import sys

import keras
import numpy as np
import pytest

import keras_flows as kf
from keras_flows.training import TrainStep

ROOT = pathlib.Path(kf.__file__).parent
# sCD is sCT with a teacher, and the one class more.
LONGER = {"SCDInterface": 5}

MODELS = [
    cls
    for module in (kf.interfaces, kf.policies)
    for cls in vars(module).values()
    if isinstance(cls, type) and issubclass(cls, keras.Model)
]


@pytest.mark.once
@pytest.mark.parametrize("cls", MODELS, ids=lambda cls: cls.__name__)
def test_few_classes_stand_in_line(cls):
    """At most four of ours beside the backend's train step."""
    ours = [
        c
        for c in cls.__mro__
        if c.__module__.startswith("keras_flows") and c is not TrainStep
    ]
    assert len(ours) <= LONGER.get(cls.__name__, 4), ours


def mlp(two_times=False):
    return kf.networks.MLP(2, width=8, depth=1, two_times=two_times)


def teacher():
    model = kf.SiTInterface(mlp())
    model.trainable = False
    return model


WALKED = {
    "SiT": lambda: kf.SiTInterface(mlp()),
    "EDM": lambda: kf.EDMInterface(mlp()),
    "MeanFlow": lambda: kf.MeanFlowInterface(mlp(True)),
    "LSD": lambda: kf.FlowMapInterface(mlp(True), "lsd"),
    "Consistency": lambda: kf.ConsistencyInterface(mlp()),
    "DMD": lambda: kf.DMDInterface(teacher()),
}


def chain_to_the_network(call):
    """Our frames from `call` to the first network call.

    Without those of the networks, and of the backend edge, `ops`.
    """
    stack, found = [], []

    def profile(frame, event, argument):
        file = frame.f_code.co_filename
        if not file.startswith(str(ROOT)):
            return
        if event == "return":
            stack.pop()
            return
        if event == "call":
            edge = file.startswith(str(ROOT / "ops"))
            stack.append("" if edge else frame.f_code.co_qualname)
            layer = str(ROOT / "networks" / "layers")
            if file.startswith(layer) and not found:
                found.append([name for name in stack[:-1] if name])

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    assert found, "no network was called"
    return found[0]


@pytest.mark.once
@pytest.mark.parametrize("name", WALKED)
def test_a_reader_walks_few_frames(name):
    """From `generate`, and from `train_step`, to the network."""
    model = WALKED[name]()
    model.compile(keras.optimizers.Adam(1e-3))
    x = np.random.default_rng(0).standard_normal((16, 2)).astype("float32")
    model.fit(x, batch_size=16, verbose=0)
    for call in (
        lambda: model.generate(4, seed=0),
        lambda: model.train_step((x,)),
    ):
        chain = chain_to_the_network(call)
        assert len(chain) <= 8, chain
