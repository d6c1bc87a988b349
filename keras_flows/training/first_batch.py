"""The first batch of what a model is given: what it is checked, or built by."""

import itertools
import types

import keras

from keras_flows.networks.building import needs_batch


def completed(model, x, y=None):
    """What to train on, after subclassed networks were built by its start.

    Args:
        model: a `Trainable`.
        x, y: as given to `fit`.

    Returns:
        x, or of a generator one that yields the same.

    Raises:
        ValueError: if there is no batch to see without losing it.
    """
    if not any(
        needs_batch(network)
        for each in model.everything()
        for network in each.networks()
    ):
        return x
    if hasattr(x, "shape"):
        data = (x,) if y is None else (x, y)
    elif isinstance(x, types.GeneratorType):
        data = next(x, None)
        x = _chained(data, x)
    elif isinstance(x, tuple):
        data = x if y is None else (x, y)
    else:
        data = first_batch(x)
    if data is None:
        raise ValueError(
            "`x` shows no batch by which to build the subclassed network of "
            f"this {type(model).__name__}. Call it once before: "
            "model.train_on_batch(x, condition), or the network on a dict "
            "with 'x' and 't'."
        )
    first, condition, _ = model.unpack(data)
    model.complete(first, condition)
    return x


def _chained(first, rest):
    """A generator again: Keras knows no other iterator."""
    yield from itertools.chain([first], rest)


def first_batch(x):
    """The first batch of a dataset that can be read again, else None."""
    rows = getattr(x, "dataset", None)
    if hasattr(x, "collate_fn"):  # a torch DataLoader
        # By hand: its iterator draws a seed and starts workers.
        if x.batch_size is None or not hasattr(rows, "__len__"):
            return None
        count = min(len(rows), x.batch_size)
        return x.collate_fn([rows[i] for i in range(count)]) if count else None
    if isinstance(x, keras.utils.PyDataset):
        return None if x.num_batches == 0 else x[0]
    if not hasattr(x, "__iter__") or iter(x) is x:  # a generator
        return None
    if hasattr(x, "__getitem__") and hasattr(x, "__len__"):
        return x[0] if len(x) else None
    return next(iter(x), None)
