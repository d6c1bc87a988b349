"""Compiled programs that outlive the process."""

import os
import pathlib
import warnings

import keras

from keras_flows.ops import given
from keras_flows.ops.scalars import checked


@checked(folder=given.path_of)
def compilation_cache(folder: str | os.PathLike[str]) -> None:
    """Keep what XLA compiles in a folder, for the next process.

    ```python
    kf.training.compilation_cache("runs/compiled")  # before the first `fit`
    ```

    A program is found again by its content: code, shapes, versions and device.
    The second process traces its step, and compiles nothing. Processes may
    share a folder; nothing is ever taken out of it.

    On JAX it is `jax_compilation_cache_dir`, for all programs, small ones too.
    On TensorFlow, which has no such cache for what `jit_compile` compiles, and
    on PyTorch, where steps are not compiled, a warning says so.

    Args:
        folder: is made if it does not exist.
    """
    folder = pathlib.Path(folder)
    if keras.backend.backend() != "jax":
        warnings.warn(
            "`compilation_cache` does nothing on the backend "
            f"{keras.backend.backend()!r}: only JAX keeps what it compiles.",
            stacklevel=3,
        )
        return
    import jax

    folder.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
