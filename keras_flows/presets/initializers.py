"""No random initial values for weights that are read from a file next."""

import contextlib
import threading

import keras
from keras import ops

_RANDOM = (
    keras.initializers.Orthogonal,
    keras.initializers.RandomNormal,
    keras.initializers.RandomUniform,
    keras.initializers.TruncatedNormal,
    # Also Glorot's, He's and LeCun's.
    keras.initializers.VarianceScaling,
)
_lock = threading.RLock()


@contextlib.contextmanager
def skipped():
    """Random initializers give zeros meanwhile, in this thread.

    JAX compiles each of them once for each shape: most of the time that it
    takes to load a small preset. Keras has no switch for this.
    """
    thread = threading.get_ident()

    def quick(original):
        def call(self, shape, dtype=None):
            if threading.get_ident() != thread:
                return original(self, shape, dtype)
            return ops.zeros(shape, dtype)

        return call

    with _lock:
        originals = {cls: cls.__call__ for cls in _RANDOM}
        for cls, original in originals.items():
            cls.__call__ = quick(original)
        try:
            yield
        finally:
            for cls, original in originals.items():
                cls.__call__ = original
