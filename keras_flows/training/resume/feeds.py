"""The feeds of what `fit` takes: arrays and data sets with an index."""

import collections
import concurrent.futures
import math

import keras
import numpy as np

from keras_flows.training.batches import Mapped
from keras_flows.training.resume import iterated
from keras_flows.training.resume.feed import Feed
from keras_flows.training.resume.feed import as_tuple
from keras_flows.training.resume.feed import on_host


def make_feed(parts, batch_size, shuffle, seed):
    """The feed of what `fit` was given.

    Args:
        parts: [x], [x, y] or [x, y, weights], as in `fit`.
        batch_size, shuffle: as in `fit`.
        seed: int, of the order of arrays and of a PyDataset's batches.

    Raises:
        ValueError: if the data has no position to go back to.
    """
    x = parts[0]
    if isinstance(x, keras.utils.PyDataset):
        return Sequence(x, shuffle and not getattr(x, "ordered", False), seed)
    module = type(x).__module__
    if module.startswith("tensorflow.python.data"):
        endless = int(x.cardinality()) == -1
        return (iterated.EndlessTfData if endless else iterated.TfData)(x)
    if module.startswith("torch.utils.data") and hasattr(x, "collate_fn"):
        return iterated.Loader(x)
    if module.startswith("grain"):
        if hasattr(x, "__getitem__") and hasattr(x, "__len__"):
            return Sequence(x, False, seed)
        return iterated.Grain(x)
    if hasattr(x, "shape") or isinstance(x, (list, tuple, dict)):
        rows = 32 if batch_size is None else batch_size
        return Rows(parts, rows, shuffle, seed)
    raise ValueError(
        "`x` must be able to go back to where a run was interrupted, under a "
        "`Checkpoint`: arrays, a PyDataset, a tf.data.Dataset, a grain "
        f"dataset or a torch DataLoader. Received: {type(x).__name__}, which "
        "is read once. Write it as a keras.utils.PyDataset whose batch i "
        "follows from i."
    )


def order(count, seed, number):
    """The permutation of range(count) in the `number`-th pass."""
    stream = np.random.Philox(key=[seed, 2], counter=[0, 0, number, 0])
    return np.random.Generator(stream).permutation(count)


class Rows(Feed):
    """Arrays, in an order of its own for each pass."""

    def __init__(self, parts, batch_size, shuffle, seed):
        super().__init__()
        parts = tuple(
            np.asarray(part) if isinstance(part, list) else part
            for part in parts
        )
        self.parts = keras.tree.map_structure(on_host, parts)
        leaves = keras.tree.flatten(self.parts)
        self.rows = len(leaves[0])
        if any(len(leaf) != self.rows for leaf in leaves):
            raise ValueError(
                "`x`, `y` and the weights must have as many rows. Received: "
                f"{[len(leaf) for leaf in leaves]}."
            )
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.batches = math.ceil(self.rows / batch_size)
        self.facts = {
            "kind": "arrays", "rows": self.rows, "batch_size": batch_size,
            "shuffle": bool(shuffle), "seed": seed,
        }  # fmt: skip
        self._order = (None, None)

    def take(self, count):
        for position in range(self.position, self.position + count):
            yield self.batch(position)

    def batch(self, position):
        """The batch that comes after `position` others."""
        number, index = divmod(position, self.batches)
        rows = slice(index * self.batch_size, (index + 1) * self.batch_size)
        if self.shuffle:
            if self._order[0] != number:
                self._order = number, order(self.rows, self.seed, number)
            rows = self._order[1][rows]
        return keras.tree.map_structure(lambda part: part[rows], self.parts)


class Sequence(Feed):
    """A `keras.utils.PyDataset`, or a grain dataset of batches with an index.

    A PyDataset's `on_epoch_begin` and `on_epoch_end` are called once for each
    pass; where a run goes on they are called for the passes that it has done.
    """

    def __init__(self, dataset, shuffle, seed):
        super().__init__()
        self.dataset, self.shuffle, self.seed = dataset, shuffle, seed
        self.workers = 1
        if isinstance(dataset, keras.utils.PyDataset):
            self.batches = dataset.num_batches
            self.workers = max(1, dataset.workers)
        else:
            self.batches = len(dataset)
        self.shuffle = bool(shuffle) and self.batches is not None
        users = dataset
        while isinstance(users, Mapped):
            users = users.dataset
        self.facts = {
            "kind": type(users).__name__, "batches": self.batches,
            "shuffle": self.shuffle, "seed": seed if self.shuffle else None,
        }  # fmt: skip
        if hasattr(users, "state"):
            own = {k: v for k, v in users.state().items() if k != "position"}
            self.facts["dataset"] = own
        self._begun = 0

    def take(self, count):
        # Pass by pass: what is read ahead never crosses a dataset's hooks.
        position, last = self.position, self.position + count
        while position < last:
            stop = last
            if self.batches is not None:
                number = position // self.batches
                self._begin(number)
                stop = min(last, (number + 1) * self.batches)
            yield from self._read(range(position, stop))
            position = stop

    def _read(self, positions):
        if self.workers == 1:
            for position in positions:
                yield as_tuple(self.batch(position))
            return
        # Threads read ahead, and the order stays.
        pool = concurrent.futures.ThreadPoolExecutor(self.workers)
        ahead = collections.deque()
        try:
            for position in positions:
                ahead.append(pool.submit(self.batch, position))
                if len(ahead) > 2 * self.workers:
                    yield as_tuple(ahead.popleft().result())
            while ahead:
                yield as_tuple(ahead.popleft().result())
        finally:
            pool.shutdown(cancel_futures=True)

    def batch(self, position):
        """The batch that comes after `position` others."""
        if self.batches is None:
            return self.dataset[position]
        number, index = divmod(position, self.batches)
        if self.shuffle:
            index = int(order(self.batches, self.seed, number)[index])
        return self.dataset[index]

    def _begin(self, number):
        """Call the dataset's hooks up to the start of a pass."""
        if not isinstance(self.dataset, keras.utils.PyDataset):
            return
        while self._begun <= number:
            if self._begun:
                self.dataset.on_epoch_end()
            self.dataset.on_epoch_begin()
            self._begun += 1

    def close(self):
        if self._begun and self.position == self._begun * self.batches:
            self.dataset.on_epoch_end()
