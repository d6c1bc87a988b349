"""Imported before Keras: the frameworks' greetings and logs are left out."""

import pathlib
import runpy

_FILE = pathlib.Path(__file__).parents[1] / "keras_flows" / "_quiet.py"
_quiet = runpy.run_path(str(_FILE))
_quiet["silence"]()
with _quiet["muted"]():
    import keras  # noqa: F401
