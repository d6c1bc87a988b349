"""The types of public signatures."""

import os
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

# A tensor of JAX, TensorFlow or PyTorch: which, only the backend knows.
Tensor: TypeAlias = Any
# What becomes one: a tensor, an array, numbers in lists.
ArrayLike: TypeAlias = npt.ArrayLike | Tensor
# One, or several by name.
Tree: TypeAlias = ArrayLike | Mapping[str, ArrayLike]
Shape: TypeAlias = tuple[int, ...]
PathLike: TypeAlias = str | os.PathLike[str]
# An episode: "observation", "action" and further arrays.
Episode: TypeAlias = Mapping[str, Any]
Episodes: TypeAlias = Sequence[Episode]
Array: TypeAlias = np.ndarray
