"""A model for use alone: its averages in the place of its weights."""

from __future__ import annotations

import typing

import keras
from keras import ops

from keras_flows.ops import given
from keras_flows.presets.changes import interfaces
from keras_flows.presets.configs import serialized

if typing.TYPE_CHECKING:
    from typing import Any


def slim(model: keras.Model) -> Any:
    """A copy whose weights are the first averages, and which has no others.

    It samples as the model does, and is half as large; training it further
    starts from the averages.

    Args:
        model: an interface or policy with `ema`, as `save_to_preset` takes.

    Returns:
        A new model of the same class, with `ema=[]`.

    Raises:
        ValueError: if the model keeps no averages.
    """
    given.having("model", model, ("start_averages",), "an interface or policy")
    config = keras.saving.serialize_keras_object(model)
    for each in serialized(config):
        if isinstance(each["config"], dict) and "ema" in each["config"]:
            each["config"]["ema"] = []
    hidden, averages = set(), {}
    model.start_averages()
    for interface in interfaces(model):
        # A consistency model's targets are averages that its loss needs.
        targets = {id(target) for target in getattr(interface, "targets", ())}
        for ema, network in interface.averages.pairs:
            if id(ema) in targets:
                continue
            hidden.update(id(v) for v in ema.variables)
            for live, average in zip(
                network.variables, ema.averages, strict=True
            ):
                averages.setdefault(id(live), average)
    if not averages:
        raise ValueError(
            "`model` keeps no averages (`ema`), so there is nothing to leave "
            "out: save it as it is."
        )
    copy = keras.saving.deserialize_keras_object(config)
    kept = [v for v in model.variables if id(v) not in hidden]
    for new, old in zip(copy.variables, kept, strict=True):
        # A copy: JAX would donate a buffer that two variables share.
        new.assign(ops.copy(averages.get(id(old), old).value))
    return copy
