"""The backend that Keras will load, looked for before Keras does."""

import importlib.util
import json
import os
import pathlib
import sys

BACKENDS = ("jax", "tensorflow", "torch")


def chosen():
    """The backend that Keras will take, and where that is said."""
    if "KERAS_BACKEND" in os.environ:
        return os.environ["KERAS_BACKEND"], "the variable KERAS_BACKEND"
    home = os.environ.get("KERAS_HOME", pathlib.Path.home() / ".keras")
    file = pathlib.Path(home) / "keras.json"
    try:
        return json.loads(file.read_text())["backend"], str(file)
    except (OSError, ValueError, KeyError, TypeError):
        return "tensorflow", "Keras's default"


def check_backend():
    """The backend's name; refuses to import Keras on one that is missing.

    Keras's own error would name a module that the user never asked for.

    Raises:
        ImportError: naming the backends that are installed, and the line to
            add.
    """
    if "keras" in sys.modules:
        return sys.modules["keras"].config.backend()
    backend, source = chosen()
    installed = [name for name in BACKENDS if importlib.util.find_spec(name)]
    if backend in installed:
        return backend
    if not installed:
        raise ImportError(
            "keras_flows needs one of JAX, TensorFlow and PyTorch, and none is "
            "installed: pip install jax, tensorflow or torch."
        )
    state = "is not installed" if backend in BACKENDS else "has no training"
    raise ImportError(
        f"Keras would take the backend {backend!r} ({source}), which {state}; "
        f"installed: {', '.join(installed)}. Before the first import of keras "
        f'or keras_flows add os.environ["KERAS_BACKEND"] = "{installed[0]}" '
        f"after import os, or in the shell export KERAS_BACKEND={installed[0]}."
    )
