"""Interpolants: the mathematics of time. x_t = alpha(t) x + sigma(t) n."""

from __future__ import annotations

import typing
from keras_flows.interpolants.base import Interpolant
from keras_flows.interpolants.discrete import DiscreteVariancePreserving
from keras_flows.interpolants.gaussian import Linear
from keras_flows.interpolants.gaussian import TrigFlow
from keras_flows.interpolants.gaussian import Trigonometric
from keras_flows.interpolants.gaussian import VarianceExploding
from keras_flows.interpolants.gaussian import VariancePreserving
from keras_flows.interpolants.stochastic import StochasticInterpolant
from keras_flows.interpolants.time_laws import Beta
from keras_flows.interpolants.time_laws import LogitNormal
from keras_flows.interpolants.time_laws import LogNormal
from keras_flows.interpolants.time_laws import TimeLaw
from keras_flows.interpolants.time_laws import Uniform
from keras_flows.interpolants.time_laws import get_time_law
from keras_flows.interpolants.time_pairs import PAIRS
from keras_flows.interpolants.time_pairs import time_pairs
from keras_flows.ops import resolve

if typing.TYPE_CHECKING:
    from typing import Any

_KNOWN = {
    cls.__name__: cls
    for cls in (
        DiscreteVariancePreserving,
        Linear,
        TrigFlow,
        Trigonometric,
        VarianceExploding,
        VariancePreserving,
        StochasticInterpolant,
    )
}


def get(identifier: Any) -> Any:
    """An interpolant from its name, config or instance.

    Raises:
        ValueError: if the name is unknown; the message lists the known ones.
    """
    return resolve(identifier, _KNOWN, "interpolant", Interpolant)


__all__ = [
    "Beta",
    "DiscreteVariancePreserving",
    "get",
    "get_time_law",
    "Interpolant",
    "Linear",
    "LogitNormal",
    "LogNormal",
    "StochasticInterpolant",
    "TimeLaw",
    "TrigFlow",
    "Trigonometric",
    "Uniform",
    "VarianceExploding",
    "VariancePreserving",
]
