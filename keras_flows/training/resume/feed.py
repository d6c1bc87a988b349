"""Training data that knows where it is, and goes back there.

Keras reads data by iterators of its own, which have no position. While a run
is kept by a `Checkpoint`, `fit` reads a feed instead. A position is the number
of batches that were trained on since the run began; what was only read ahead
does not count.
"""

import numpy as np


class Feed:
    """Batches from a position on.

    A subclass gives `batches` (of one pass over the data, None if it has no
    end or no known one) and `facts` (JSON values that must be the same for a
    run to go on).
    """

    batches = None
    facts = {}

    def __init__(self):
        self.position = 0

    def snapshot(self):
        """(JSON values, functions that write files) that `restore` goes by.

        The functions each take a folder, and may be called later, when the
        data has moved on.
        """
        return {"position": self.position, **self.facts}, []

    def restore(self, state, folder):
        """Go back to where `state` was taken.

        Args:
            state: the JSON values of `snapshot`.
            folder: where its functions wrote.

        Raises:
            ValueError: if the data is not that of the run.
        """
        state = dict(state)
        position = state.pop("position")
        differ = [k for k in self.facts if self.facts[k] != state.get(k)]
        if differ:
            raise ValueError(
                "`x` is not the data of the run that is to go on: "
                + ", ".join(
                    f"{key} was {state.get(key)!r} and is {self.facts[key]!r}"
                    for key in differ
                )
                + ". Build it as it was, or name another folder."
            )
        self.position = position

    def begin_at(self, position):
        """Go on at the start of a pass, where the run had other data.

        What has no order of its own for each pass begins anew.
        """
        self.position = position

    def trained(self, position):
        """Everything before `position` was trained on."""
        self.position = position

    def take(self, count):
        """A generator of the next `count` batches, as tuples."""
        raise NotImplementedError

    def close(self):
        """The run ends here."""


def as_tuple(batch):
    """A batch as Keras wants it."""
    if isinstance(batch, list):
        return tuple(batch)
    return batch if isinstance(batch, tuple) else (batch,)


def on_host(leaf):
    """A tensor of any framework as an array."""
    if hasattr(leaf, "detach"):
        leaf = leaf.detach().cpu()
    return leaf.numpy() if hasattr(leaf, "numpy") else np.asarray(leaf)
