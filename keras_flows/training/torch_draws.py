"""Keras's random numbers on PyTorch: one generator kept, draws that replay.

Keras makes a `torch.Generator` for every draw and seeds it by its own seed
generator. One that is kept gives the same numbers. While a `Recording` of a
step runs, a draw is noted in it as an input of the step; `again` makes it for
the next step, from the same seed generator.
"""

import contextlib
import threading

import keras
import torch
from keras.src.backend.common.stateless_scope import in_stateless_scope
from keras.src.backend.torch import random
from keras.src.backend.torch.core import get_device

from keras_flows.training.seeds import SeedGenerator

_local = threading.local()


@torch.compiler.disable
def generator_of(seed):
    """A seeded generator for one draw: Keras's `torch_seed_generator`."""
    device = str(get_device())
    if device == "meta":
        return None
    recording = getattr(_local, "recording", None)
    if recording is None:
        return _seeded(seed, device)
    with recording.paused():
        generator = _seeded(seed, device)
    recording.seed = seed
    return generator


def _seeded(seed, device):
    kept = _local.__dict__.setdefault("generators", {})
    if device not in kept:
        kept[device] = torch.Generator(device=device)
    kinds = (keras.random.SeedGenerator, SeedGenerator)
    if type(seed) in kinds and not in_stateless_scope():
        # What `next` does, without the tensors between.
        state = seed.state.value.detach()
        first, second = state.tolist()
        state[1:].add_(1)
    else:
        first, second = (int(part) for part in random.draw_seed(seed))
    kept[device].manual_seed((first + second) & 0xFFFFFFFF)
    return kept[device]


random.torch_seed_generator = generator_of


@contextlib.contextmanager
def noted_in(recording):
    """Within, draws are inputs of what is recorded."""
    _local.recording = recording
    try:
        yield
    finally:
        _local.recording = None


def again(draws):
    """The tensors of a `Recording`'s draws, in this step."""
    return [
        operator(*args, **{**kwargs, "generator": generator_of(seed)})
        for seed, operator, args, kwargs in draws
    ]


def states(draws):
    """The states that `again` moves, each once."""
    found = {
        id(seed): seed.state.value.detach()
        for seed, *_ in draws
        if hasattr(seed, "state")
    }
    return list(found.values())
