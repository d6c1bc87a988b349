"""Objectives by name."""

from __future__ import annotations

import dataclasses
import typing

import keras

from keras_flows.objectives.base import FunctionObjective
from keras_flows.objectives.base import Objective
from keras_flows.objectives.flow_map import CTM
from keras_flows.objectives.flow_map import Shortcut
from keras_flows.objectives.flow_matching import Flow
from keras_flows.objectives.mean_flow import MeanFlow
from keras_flows.objectives.moment_matching import IMM
from keras_flows.objectives.policy import MIP
from keras_flows.objectives.policy import TSD
from keras_flows.objectives.policy import Regression
from keras_flows.objectives.policy import StraightFlow
from keras_flows.objectives.self_distillation import AYF
from keras_flows.objectives.self_distillation import EMD
from keras_flows.objectives.self_distillation import ESD
from keras_flows.objectives.self_distillation import LMD
from keras_flows.objectives.self_distillation import LSD
from keras_flows.objectives.self_distillation import MF
from keras_flows.objectives.self_distillation import PSD

if typing.TYPE_CHECKING:
    from typing import Any

_KNOWN = {
    cls.name: cls
    for cls in (
        Flow, MeanFlow, CTM, PSD, LSD, ESD, MF, LMD, EMD, AYF, Shortcut, IMM,
        Regression, StraightFlow, TSD, MIP,
    )
}  # fmt: skip


def names() -> list[str]:
    """The names that `get` knows."""
    return tuple(_KNOWN)


def get(identifier: Any, **options: Any) -> Any:
    """An `Objective` by name, class or function, or as it is.

    Options go with a name or a class: `get("lsd", stop_gradient="none")`.

    A function (model, batch) -> terms is taken to predict a velocity; where it
    does not, or has terms to log, wrap it in `FunctionObjective` or write a
    class.

    Raises:
        ValueError: if the name is unknown; the message lists the known ones.
    """
    if isinstance(identifier, str) and identifier.lower() in _KNOWN:
        identifier = _KNOWN[identifier.lower()]
    if isinstance(identifier, type) and issubclass(identifier, Objective):
        return _made(identifier, options)
    if options:
        raise ValueError(
            "Options of an objective go with its name or class. Received: "
            f"{options} with {identifier!r}."
        )
    if isinstance(identifier, Objective):
        return identifier
    if callable(identifier) and not isinstance(identifier, type):
        return FunctionObjective(identifier)
    raise ValueError(
        f"Unknown `objective`: {identifier!r}. Known: "
        f"{', '.join(sorted(_KNOWN))}, an `Objective` such as "
        "kf.objectives.LSD(stop_gradient='none'), or a function "
        "(model, batch) -> terms."
    )


def _made(cls, options):
    known = [field.name for field in dataclasses.fields(cls)]
    for key in options:
        if key not in known:
            raise ValueError(
                f"Objective '{cls.name}' has no option {key!r}. Known: "
                f"{', '.join(known) or 'none'}."
            )
    return cls(**options)


def serialize(objective):
    """The name of an objective with its default options, else its config."""
    if objective.name in _KNOWN and objective == _KNOWN[objective.name]():
        return objective.name
    return keras.saving.serialize_keras_object(objective)
