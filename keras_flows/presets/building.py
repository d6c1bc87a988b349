"""A model of sizes that a file tells is not built larger than the file.

A weight of shape (10^6, 1) takes 4 MB and says that the width is 10^6: a
network of that width would take terabytes.
"""

import contextlib
import functools
import math
import threading

import keras

_lock = threading.RLock()


@contextlib.contextmanager
def at_most(numbers):
    """Weights that layers make meanwhile, in this thread, have so many numbers.

    Raises:
        ValueError: where a layer asks for more, before it is made.
    """
    thread, made = threading.get_ident(), 0
    original = keras.Layer.add_weight

    @functools.wraps(original)
    def add_weight(self, shape=None, *args, **kwargs):
        nonlocal made
        if threading.get_ident() == thread:
            made += math.prod(shape or ())
            if made > numbers:
                raise ValueError(
                    "a network of the sizes that the weights tell would have "
                    f"more than {numbers:,} numbers; {self.name!r} asks for "
                    f"the shape {tuple(shape)}."
                )
        return original(self, shape, *args, **kwargs)

    with _lock:
        keras.Layer.add_weight = add_weight
        try:
            yield
        finally:
            keras.Layer.add_weight = original
