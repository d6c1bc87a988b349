"""One good line of output: what the frameworks say is left out.

Warnings of this library stay, each a line.
"""

import logging
import os
import sys
import warnings

# Of TensorFlow and XLA in C++, before they are imported.
SILENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "GRPC_VERBOSITY": "ERROR",
    "ABSL_MIN_LOG_LEVEL": "3",
}


def silence():
    """Call it before Keras is imported; processes started later inherit it."""
    for name, value in SILENT.items():
        os.environ.setdefault(name, value)
    warnings.simplefilter("ignore")
    warnings.filterwarnings(
        "always", category=UserWarning, module=r"keras_flow"
    )
    warnings.showwarning = _line
    for name in ("absl", "tensorflow", "tf2onnx", "jax", "jax._src", "h5py"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _line(message, category, filename, lineno, file=None, line=None):
    print(f"warning: {message}", file=file or sys.stderr)
