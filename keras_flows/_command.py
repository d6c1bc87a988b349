"""Whether this process is the command line, which chooses the backend.

`keras-flows` and `python -m keras_flows` import the package before they have
read `--backend`, and `--help` needs no backend at all. So the package is bare
there until `load`.
"""

import importlib
import os
import sys

NAME = "keras_flows"


def is_command():
    """Whether Python was started for the command line."""
    started = sys.argv[0] if sys.argv else ""
    if started == "-m":
        # The module's own name; Python is still looking for it.
        words = sys.orig_argv
        return f"-m{NAME}" in words or (
            "-m" in words and words[words.index("-m") + 1 :][:1] == [NAME]
        )
    return os.path.basename(started).partition(".")[0] == "keras-flows"


_state = {"bare": is_command()}


def is_bare():
    """Whether the package has been imported without its contents so far."""
    return _state["bare"]


def load():
    """Import the contents, on the backend that the environment names.

    Raises:
        ImportError: if that is not installed.
    """
    if _state["bare"]:
        _state["bare"] = False
        # Processes that this one starts are not the command line.
        sys.argv[0] = NAME
        importlib.reload(sys.modules[NAME])
