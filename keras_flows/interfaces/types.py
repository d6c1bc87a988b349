"""The types of the interfaces' arguments."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

import keras

from keras_flows import interpolants
from keras_flows import objectives
from keras_flows import samplers
from keras_flows.ops.types import ArrayLike
from keras_flows.ops.types import PathLike
from keras_flows.ops.types import Tensor
from keras_flows.ops.types import Tree
from keras_flows.training import EMA

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ArrayLike", "Figure", "PathLike", "Tensor", "Tree"]

Path: TypeAlias = str | interpolants.Interpolant
TimeLaw: TypeAlias = str | interpolants.TimeLaw
Objective: TypeAlias = str | objectives.Objective | Callable[..., Any]
Sampler: TypeAlias = str | samplers.Sampler
Averages: TypeAlias = float | EMA | Sequence[float | EMA]
NullLabel: TypeAlias = int | float | Mapping[str, int | float]
Model: TypeAlias = keras.Model
Range: TypeAlias = tuple[float, float]
