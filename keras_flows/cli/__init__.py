"""The command line: `keras-flows`, or `python -m keras_flows`.

`main` reads the flags before it imports Keras, so that `--backend` is heard
and `--help` answers at once. docs/cli.md shows each command.
"""

from keras_flows.cli.entry import main
from keras_flows.cli.flags import parser

__all__ = ["main", "parser"]
