"""What a framework says while it is imported, held back unless it fails."""

import contextlib
import os
import sys
import tempfile


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
