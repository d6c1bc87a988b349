"""What users hand to `fit`, as Keras's three trainers want it.

A batch is x, (x, condition) or (x, condition, extras), extras a dict, or the
weights of the examples, (B,), as Keras's own `sample_weight`.
"""

import copy
import types

import keras
import numpy as np
from keras import ops

from keras_flows.ops import share_of

# Keras takes no None inside a batch on TensorFlow, and drops the weights of
# data without y. (x, None, extras) goes through it as (x, {_NO_CONDITION:
# extras}).
_NO_CONDITION = "(no condition)"
_WEIGHT = "weight"


def without_none(batch):
    """A batch of a dataset as a tuple in which there is no None."""
    if isinstance(batch, list):
        batch = tuple(batch)
    if not isinstance(batch, tuple):
        return batch
    while len(batch) > 1 and batch[-1] is None:
        batch = batch[:-1]
    if len(batch) == 3 and batch[1] is None:
        return batch[0], {_NO_CONDITION: batch[2]}
    return batch


def unpacked(data):
    """(x, condition, extras) of a batch that went through Keras.

    Raises:
        ValueError: if it has another number of elements.
    """
    if not isinstance(data, (tuple, list)):
        data = (data,)
    if not 1 <= len(data) <= 3:
        raise ValueError(
            "A batch must be x, (x, condition) or (x, condition, "
            f"extras). Received {len(data)} elements."
        )
    x, condition, extras = (*data, None, None)[:3]
    if isinstance(condition, dict) and set(condition) == {_NO_CONDITION}:
        return x, None, condition[_NO_CONDITION]
    return x, condition, extras


class Mapped(keras.utils.PyDataset):
    """function(batch) of a PyDataset's batches; all else is the user's."""

    def __init__(self, dataset, function):
        super().__init__(
            workers=dataset.workers,
            use_multiprocessing=dataset.use_multiprocessing,
            max_queue_size=dataset.max_queue_size,
        )
        self.dataset, self.function = dataset, function

    @property
    def num_batches(self):
        return self.dataset.num_batches

    def __getitem__(self, index):
        return self.function(self.dataset[index])

    def on_epoch_begin(self):
        self.dataset.on_epoch_begin()

    def on_epoch_end(self):
        self.dataset.on_epoch_end()


class _TupleBatches:
    """A torch collate function that wraps a bare batch in a tuple."""

    def __init__(self, collate):
        self.collate = collate

    def __call__(self, rows):
        batch = without_none(self.collate(rows))
        return batch if isinstance(batch, (tuple, dict)) else (batch,)


def with_tuple_batches(x):
    """A dataset as Keras wants it; the user's own is left as it is.

    Keras takes the rows of a bare batch of a torch DataLoader for its parts
    on JAX, and fails on TensorFlow, as it does on a None in a batch.
    """
    if isinstance(x, keras.utils.PyDataset):
        return Mapped(x, without_none)
    if isinstance(x, types.GeneratorType):
        return (without_none(batch) for batch in x)
    if not (
        type(x).__module__.startswith("torch.utils.data")
        and hasattr(x, "collate_fn")
    ):
        return x
    x = copy.copy(x)
    x.collate_fn = _TupleBatches(x.collate_fn)
    return x


# Weights of examples.


def with_weights(model, x, y, weight):
    """(x, y, sample weight or None) for Keras, the weight not forgotten.

    Args:
        model: the model, which may refuse weights.
        x, y: what `fit` or `evaluate` was given.
        weight: its `sample_weight`, (N,), or None.
    """
    if weight is None:
        return x, y, None
    check_weighs(model)
    if not hasattr(x, "shape"):
        raise ValueError(
            "`sample_weight` goes with arrays x. A dataset yields the weights "
            "itself, as (x, condition, {'weight': (batch,)}), condition None "
            f"where there is none. Received x: {type(x)}."
        )
    shape = tuple(np.shape(weight))
    if shape not in ((x.shape[0],), (x.shape[0], 1)):
        raise ValueError(
            "`sample_weight` must have shape (examples,), one number for each "
            f"of the {x.shape[0]} examples of `x`. Received: {shape}."
        )
    weight = np.asarray(ops.convert_to_numpy(weight), "float32").reshape(-1)
    if not np.all(np.isfinite(weight)) or weight.min() < 0:
        raise ValueError(
            "`sample_weight` must hold finite numbers of 0 or more. Received "
            f"numbers from {weight.min()} to {weight.max()}."
        )
    if y is None:
        return x, {_NO_CONDITION: {_WEIGHT: weight}}, None
    return x, y, weight


def validation_with_weights(model, data):
    """`validation_data` as `with_weights` makes it."""
    if not isinstance(data, (tuple, list)) or len(data) > 3:
        return data
    x, y, weight = (*data, None, None)[:3]
    given = with_weights(model, x, y, weight)
    return given[: 3 if given[2] is not None else 2]


def check_weighs(model):
    """Refuse weights where the loss of an example is not its own alone."""
    for each in model.everything():
        objective = each.objective
        if not objective.weighs:
            raise ValueError(
                f"`sample_weight` does not count with objective "
                f"'{objective.name}' of a {type(each).__name__}, whose loss is "
                "of several examples at once. Draw the examples as often as "
                "they weigh."
            )
    if any(getattr(each, "stable_target", 0) for each in model.everything()):
        raise ValueError(
            "`sample_weight` and `stable_target=True` do not go together: the "
            "targets would be means over examples without their weights. "
            "Leave one of them out."
        )


def split_weight(model, extras):
    """(weights (B,) or None, extras without them).

    A third element that is a tensor is the weights, as Keras has it.
    """
    if extras is None:
        return None, None
    if not isinstance(extras, dict):
        extras = {_WEIGHT: extras}
    if _WEIGHT not in extras:
        return None, extras
    check_weighs(model)
    rest = {name: part for name, part in extras.items() if name != _WEIGHT}
    return extras[_WEIGHT], rest or None


def weighted(terms, weight):
    """Terms (B,) times the weights of their examples; shares as they are."""
    rows, shape = terms["loss"].shape[0], tuple(getattr(weight, "shape", ()))
    if len(shape) == 2 and shape[1] == 1:
        weight, shape = weight[:, 0], shape[:1]
    if len(shape) != 1 or (None not in (rows, *shape) and shape[0] != rows):
        raise ValueError(
            "The weights of a batch must have shape (batch,), one number for "
            f"each of the {rows} examples. Received: {shape}."
        )
    shares = {share_of(name) for name in terms}
    return {
        name: term if name in shares else term * ops.cast(weight, term.dtype)
        for name, term in terms.items()
    }


def check_class_weight(class_weight):
    """Refuse what has no meaning without a target."""
    if class_weight is not None:
        raise ValueError(
            "`class_weight` is for classifiers: y is a condition here, and no "
            "target. Pass `sample_weight=np.array([class_weight[c] for c in "
            f"y])`. Received: {class_weight!r}."
        )


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
