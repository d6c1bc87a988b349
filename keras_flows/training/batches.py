"""Datasets as Keras's three trainers want them, and what they say of none."""

import copy


class _TupleBatches:
    """A torch collate function that wraps a bare batch in a tuple."""

    def __init__(self, collate):
        self.collate = collate

    def __call__(self, rows):
        batch = self.collate(rows)
        return batch if isinstance(batch, (tuple, list, dict)) else (batch,)


def with_tuple_batches(x):
    """A torch DataLoader of bare arrays, as Keras wants it.

    Keras takes the rows of a bare batch for its parts on JAX, and fails on
    TensorFlow. The user's loader is left as it is.
    """
    if not (
        type(x).__module__.startswith("torch.utils.data")
        and hasattr(x, "collate_fn")
    ):
        return x
    x = copy.copy(x)
    x.collate_fn = _TupleBatches(x.collate_fn)
    return x


EMPTY = (
    "`x` yielded no batch: the dataset is empty, or `steps_per_epoch` is 0. "
    "Pass at least one batch; a generator that was used up must be made anew."
)


# What the three trainers say when no batch came, none of it to the point.
_EMPTY_SIGNS = ("has length 0", "Empty Logs", "'logs'")


def is_empty_data_error(error):
    return isinstance(error, (ValueError, UnboundLocalError)) and any(
        sign in str(error) for sign in _EMPTY_SIGNS
    )
