"""One good line of output: what the frameworks say is left out.

Warnings of this library stay, each a line. The standard library alone is used
here: scripts run this file by its path, before anything else.
"""

import contextlib
import logging
import os
import sys
import tempfile
import warnings


@contextlib.contextmanager
def muted():
    """Hold back what is written to standard error, by C++ also.

    TensorFlow greets before its log has a level. Where the body raises, all
    that was held back is written after all.
    """
    try:
        error = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        # No file, as in a notebook.
        yield
        return
    sys.stderr.flush()
    before = os.dup(error)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), error)
        try:
            yield
        except BaseException:
            os.dup2(before, error)
            held.seek(0)
            os.write(error, held.read())
            raise
        finally:
            os.dup2(before, error)
            os.close(before)


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
