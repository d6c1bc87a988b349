"""The noise of sampling: drawn on the host, by seed, step and index alone."""

import numpy as np

from keras_flows.ops import float_dtype


class Streams:
    """Standard normal noise of a seed, one stream a step.

    NumPy's Philox, whose key is the seed; step k starts 2^128 k numbers
    further on, and step 0 is the start. A step's stream gives one sample after
    the other, in whatever batches it is asked for: sample i of step k is the
    same for every batch size, number of samples and steps, on every backend.

    Args:
        seed: int, or None for a fresh one.
    """

    def __init__(self, seed):
        self._bits = np.random.Philox(seed)
        self._streams = {}

    def draw(self, step, shape):
        """The noise of the next shape[0] samples at a step, an array."""
        if step not in self._streams:
            bits = self._bits.jumped(step)
            self._streams[step] = np.random.Generator(bits)
        stream = self._streams[step]
        return stream.standard_normal(shape, dtype=float_dtype())
