"""A config builds no more than the weights beside it can fill.

A few bytes of config.json may ask for terabytes. What the weights hold is
known before anything is built, and bounds it, whatever the class is.
"""

import contextlib
import math
import threading

import keras

from keras_flows.presets.limits import beyond
from keras_flows.presets.limits import limits

# Live weights and averages of several kinds are saved each; a class may build
# what it clones or replaces.
_TIMES = 4
# Ends of the names of numbers that are no sizes.
_COUNTS = ("seed", "steps", "salt", "object_id")
_lock = threading.RLock()


def check_shapes(config, saved, path):
    """Refuse sizes in a config of more elements than there are weights.

    Tables and images of such a size are made before any variable is.

    Args:
        config: what config.json holds.
        saved: {place: Array} of the weights.
        path: of config.json, for the message.
    """
    elements = sum(math.prod(array.shape) for array in saved.values())
    most = max(elements, limits().shape_elements)
    waiting = [("", config)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.items())
            continue
        sizes = value if isinstance(value, list) else [value]
        waiting.extend((name, v) for v in sizes if isinstance(v, (dict, list)))
        if name.endswith(_COUNTS):
            continue
        if all(type(v) is int for v in sizes):
            if math.prod(abs(v) for v in sizes if v) > most:
                shown = f"{value}" if len(sizes) < 10 else f"{value[:9]}..."
                raise ValueError(
                    f"{path} holds {name!r} = {shown}, more than its weights "
                    f"have elements. {beyond('shape_elements')}"
                )


def within(saved):
    """Variables that are made meanwhile, in this thread, fit the weights.

    Args:
        saved: {place: Array} of the weights.

    Raises:
        ValueError: before the first variable beyond that is allocated.
    """
    left = {
        "unsaved_variables": _TIMES * len(saved) + limits().unsaved_variables,
        "unsaved_elements": limits().unsaved_elements
        + _TIMES * sum(math.prod(array.shape) for array in saved.values()),
    }
    return _spending(
        left,
        lambda name, shape: (
            f"it asks for more {name.removeprefix('unsaved_')} than the "
            f"weights beside it can fill. {beyond(name)}"
        ),
    )


def at_most(elements):
    """Variables that are made meanwhile have at most so many elements.

    A weight of shape (10^6, 1) takes 4 MB and says that the width is 10^6: a
    network of that width would take terabytes.

    Raises:
        ValueError: before the first variable beyond that is allocated.
    """
    return _spending(
        {"elements": elements},
        lambda name, shape: (
            "a network of the sizes that the weights tell would have more "
            f"than {elements:,} numbers; one weight asks for the shape {shape}."
        ),
    )


@contextlib.contextmanager
def _spending(left, said):
    """Count the variables that this thread makes.

    Args:
        left: how many "...variables" and "...elements" may be made.
        said: function (name of what is spent, shape) to the message.
    """
    thread = threading.get_ident()
    cls = keras.Variable
    refused = []

    def counted(self, initializer, shape=None, *args, **kwargs):
        if threading.get_ident() == thread:
            sizes = shape
            if sizes is None:
                sizes = getattr(initializer, "shape", ())
            sizes = tuple(size for size in sizes if isinstance(size, int))
            for name in left:
                spent = 1 if name.endswith("variables") else math.prod(sizes)
                left[name] -= spent
                if left[name] < 0:
                    refused.append(said(name, sizes))
                    raise ValueError(refused[0])
        original(self, initializer, shape, *args, **kwargs)

    with _lock:
        own, original = "__init__" in vars(cls), cls.__init__
        cls.__init__ = counted
        try:
            yield
        finally:
            if own:
                cls.__init__ = original
            else:
                del cls.__init__
    if refused:
        # Where Keras, or the class, went on after it.
        raise ValueError(refused[0])
