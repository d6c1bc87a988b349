"""Batches of a random-access source, for `fit` on every backend.

Batch i is a function of (source, seed, i) alone, so a run resumes exactly from
one number, the batches it has trained on, however many threads read ahead.

It is a `PyDataset` and not a grain pipeline, which would have no length inside
`fit` (a wasted step an epoch on TensorFlow), no position there to save, JAX
imported on every backend, and takes milliseconds to shuffle an index of a
small set. A grain pipeline may still be a source: it has `len` and `[i]`.
"""

from __future__ import annotations

import functools
import typing

import keras
import numpy as np

from keras_flows.ops import given
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import Integer
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from keras_flows.ops.types import ArrayLike


class Batches(keras.utils.PyDataset):
    """Batches of what `transform` makes of a source's records.

    Without `repeat` an epoch is one pass in an order of its own, and
    `fit(batches, epochs=...)` knows its length. With it batches go on without
    end and across epochs, each image once in an epoch: `fit(batches,
    steps_per_epoch=...)`.

    Args:
        source: object with `len` and `[i]`; see `datasets.sources`.
        batch_size: rows of a batch.
        transform: function of (record, `numpy.random.Generator`) to a tuple
            of arrays, the same shapes for every record. One with a method
            `batch` takes a list of (record, function to its generator) and
            gives the batch, faster than row by row.
        shuffle: whether each epoch has another order. Without it, and without
            `repeat`, every epoch gives the same batches, transformed by the
            same random numbers: what validation needs.
        repeat: whether the batches never end.
        drop_remainder: whether an epoch without `repeat` leaves out its last
            rows that fill no batch. Another order leaves out others.
        seed: int, of order and transforms.
        shard: (index, count): this process reads every count-th record of
            each epoch.
        start: number of batches to begin after; see `restore`.
        workers: threads that read ahead. Decoding, resizing and reading
            release Python's lock.
    """

    @checked(
        transform=given.function,
        shuffle=FLAG,
        repeat=FLAG,
        drop_remainder=FLAG,
        batch_size=Integer(1, 2**32 - 1),
        seed=Integer(0, 2**32 - 1),
        start=Integer(0, 2**32 - 1),
        workers=Integer(1, 2**32 - 1),
    )
    def __init__(
        self,
        source: Any,
        batch_size: int,
        transform: Callable[..., Any],
        *,
        shuffle: bool = True,
        repeat: bool = False,
        drop_remainder: bool = True,
        seed: int | None = 0,
        shard: tuple[int, int] = (0, 1),
        start: int = 0,
        workers: int = 1,
    ) -> None:
        super().__init__(workers=workers)
        index, count = shard if np.shape(shard) == (2,) else (0, 0)
        whole = type(index) is type(count) is int
        if not whole or not 0 <= index < count:
            raise ValueError(
                "`shard` must be (index, count) with index below count. "
                f"Received: {shard!r}."
            )
        check_source(source)
        self.records = len(source) // count
        if self.records < (batch_size if drop_remainder or repeat else 1):
            raise ValueError(
                f"`batch_size` {batch_size} is more than the {self.records} "
                f"records of {getattr(source, 'name', source)!r} (of one "
                "shard). Take a smaller one."
            )
        self.source = source
        self.batch_size = batch_size
        self.shuffle, self.repeat = shuffle, repeat
        self.drop_remainder = drop_remainder
        self.seed, self.shard, self.start = seed, tuple(shard), start
        self.transform = transform
        self._open = False
        # Two epochs at a time: threads read ahead into the next one.
        self._order = functools.lru_cache(2)(self._permutation)
        self._check_start()

    def _check_start(self):
        if not self.repeat and self.start % self.num_batches:
            raise ValueError(
                f"`start` must be whole epochs of {self.num_batches} batches "
                f"without `repeat`. Received: {self.start}. Save at the end "
                "of an epoch, or pass repeat=True."
            )

    # `fit` keeps Keras from shuffling the batches by a seed of its own.
    ordered = True

    def _permutation(self, epoch):
        key = [self.seed, 0]
        stream = np.random.Philox(key=key, counter=[0, 0, epoch, 0])
        return np.random.Generator(stream).permutation(len(self.source))

    def _example(self, number):
        """(record, function to its generator) of the `number`-th in a shard."""
        epoch, row = divmod(number, self.records)
        index, count = self.shard
        row = row * count + index
        if self.shuffle:
            record = int(self._order(epoch)[row])
        else:
            record = row
        # One key for the orders and one for the examples.
        return self.source[record], lambda: np.random.Generator(
            np.random.Philox(key=[self.seed, 1], counter=[0, row, epoch, 0])
        )

    @property
    def classes(self) -> Any:
        """The source's classes: names, their number, or None."""
        return self.source.classes

    @property
    def num_batches(self) -> int | None:
        if self.repeat:
            return None
        last = 0 if self.drop_remainder else self.batch_size - 1
        return (self.records + last) // self.batch_size

    def __getitem__(self, index):
        batch = self.start + index
        if self.repeat:
            first = batch * self.batch_size
            stop = first + self.batch_size
        else:
            epoch, batch = divmod(batch, self.num_batches)
            first = epoch * self.records + batch * self.batch_size
            stop = min(first + self.batch_size, (epoch + 1) * self.records)
        examples = [self._example(i) for i in range(first, stop)]
        # Not what a subclass has inherited beside a `__call__` of its own.
        if "batch" in vars(type(self.transform)):
            return self.transform.batch(examples)
        rows = [self.transform(record, rng()) for record, rng in examples]
        return tuple(stack(column) for column in zip(*rows, strict=True))

    def on_epoch_begin(self) -> None:
        self._open = True

    def on_epoch_end(self) -> None:
        # Keras also ends an epoch that has not begun, before the first.
        if self._open and self.shuffle and not self.repeat:
            self.start += self.num_batches
        self._open = False

    def state(self, num_batches: int = 0) -> Any:
        """Where a run stands after `num_batches` batches, as JSON values.

        With `repeat` count the batches since `start` (the steps trained);
        without it `fit` moves `start` on after each epoch by itself.
        """
        return {
            "position": self.start + num_batches,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "records": len(self.source),
            "shuffle": self.shuffle,
            "repeat": self.repeat,
            "drop_remainder": self.drop_remainder,
            "shard": list(self.shard),
        }

    def restore(self, state: ArrayLike) -> None:
        """Go on where `state` was taken: the next batch is the same.

        Raises:
            ValueError: if the batches are cut in another way than then.
        """
        if not isinstance(state, dict):
            raise ValueError(
                "`state` must be what `state()` gave, a dict. Received: "
                f"{type(state).__name__}."
            )
        own = self.state()
        differ = sorted(
            key
            for key in own
            if key != "position" and own[key] != state.get(key)
        )
        if differ:
            raise ValueError(
                "`state` belongs to other batches: "
                + ", ".join(
                    f"{key} was {state.get(key)!r} and is {own[key]!r}"
                    for key in differ
                )
                + ". Build the dataset as it was then."
            )
        self.start = state["position"]
        self._check_start()


def check_source(source):
    """Refuse what gives no records by their numbers."""
    records = hasattr(source, "__len__") and hasattr(source, "__getitem__")
    if not records or isinstance(source, (str, bytes, dict, type)):
        raise ValueError(
            "`source` must have `len` and `[i]`, as those of "
            f"`datasets.sources` do. Received: {type(source).__name__}."
        )


def stack(column):
    """A batch of rows, or of dicts of them, which must have one shape."""
    if isinstance(column[0], dict):
        return {key: stack([row[key] for row in column]) for key in column[0]}
    shapes = sorted({np.shape(value) for value in column})
    if len(shapes) > 1:
        raise ValueError(
            f"The images of a batch have different shapes: {shapes}. Pass "
            "`image_size` to crop and resize them, and rgb=True for grey "
            "images among colour ones."
        )
    return np.stack(column)
