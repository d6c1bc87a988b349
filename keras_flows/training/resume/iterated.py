"""The feeds of what is read by an iterator with a state of its own."""

import base64
import collections
import pathlib
import shutil
import tempfile
import threading

import keras
import numpy as np

from keras_flows.training.resume.feed import Feed
from keras_flows.training.resume.feed import as_tuple
from keras_flows.training.resume.feed import on_host

_AHEAD = "ahead.npz"


class Iterated(Feed):
    """Batches of an iterator, which may be ahead of the training.

    Those that were read and not yet trained on are kept, and saved. A subclass
    gives `open()`, an endless iterator of batches, and its state.
    """

    def __init__(self):
        super().__init__()
        self.iterator = None
        self.ahead = collections.deque()
        # TensorFlow reads in a thread of its own.
        self.lock = threading.Lock()

    def open(self):
        """An iterator that begins anew where the data ends."""
        raise NotImplementedError

    def take(self, count):
        # What the last reader read and its steps did not reach.
        for batch in list(self.ahead)[:count]:
            yield batch
            count -= 1
        for _ in range(count):
            with self.lock:
                if self.iterator is None:
                    self.iterator = self.open()
                batch = next(self.iterator)
                batch = as_tuple(keras.tree.map_structure(on_host, batch))
                self.ahead.append(batch)
            yield batch

    def trained(self, position):
        with self.lock:
            for _ in range(position - self.position):
                self.ahead.popleft()
            self.position = position

    def where(self):
        """(JSON values, functions) of the iterator, as in `snapshot`."""
        raise NotImplementedError

    def snapshot(self):
        with self.lock:
            state, _ = super().snapshot()
            own, writers = self.where()
            leaves = []
            state["ahead"] = [_described(batch, leaves) for batch in self.ahead]

        def write(folder):
            np.savez(folder / _AHEAD, *leaves)

        return {**state, **own}, [write, *writers]

    def restore(self, state, folder):
        super().restore(state, folder)
        with np.load(pathlib.Path(folder) / _AHEAD) as content:
            leaves = [content[f"arr_{i}"] for i in range(len(content.files))]
        leaves = iter(leaves)
        self.ahead.extend(_built(batch, leaves) for batch in state["ahead"])


def _described(batch, leaves):
    """JSON values of a structure whose arrays go to `leaves`, in order."""
    if isinstance(batch, dict):
        return {key: _described(batch[key], leaves) for key in batch}
    if isinstance(batch, (tuple, list)):
        return [_described(part, leaves) for part in batch]
    if batch is None:
        return None
    leaves.append(batch)
    return "array"


def _built(description, leaves):
    if isinstance(description, dict):
        return {key: _built(part, leaves) for key, part in description.items()}
    if isinstance(description, list):
        return tuple(_built(part, leaves) for part in description)
    return None if description is None else next(leaves)


class Passes(Iterated):
    """What is read pass by pass, a pass again up to where it was."""

    def __init__(self):
        super().__init__()
        # The pass, and batches read of it.
        self.number = self.index = 0

    def begin(self):
        """An iterator of the pass `self.number`."""
        raise NotImplementedError

    def open(self):
        while True:
            seen, self.index = self.index, 0
            for batch in self.begin():
                self.index += 1
                if self.index > seen:
                    yield batch
            self.number, self.index = self.number + 1, 0

    def begin_at(self, position):
        super().begin_at(position)
        if self.batches is not None:
            self.number, self.index = divmod(position, self.batches)

    def where(self):
        return {"pass": self.number, "index": self.index}, []

    def restore(self, state, folder):
        super().restore(state, folder)
        self.number, self.index = state["pass"], state["index"]


class TfData(Passes):
    """A `tf.data.Dataset` with an end.

    Each iterator draws an order of its own, as it is made; those of passes
    that are done are made and left. TensorFlow can save an iterator, but where
    the input of a shuffle's buffer has ended it goes on in another order.
    """

    def __init__(self, dataset):
        super().__init__()
        count = int(dataset.cardinality())
        self.dataset, self.made = dataset, 0
        self.batches = count if count >= 0 else None
        self.facts = {
            "kind": "tf.data", "batches": self.batches,
            "elements": repr(dataset.element_spec),
        }  # fmt: skip

    def begin(self):
        while self.made < self.number:
            iter(self.dataset)
            self.made += 1
        self.made += 1
        return iter(self.dataset)


class EndlessTfData(Iterated):
    """A `tf.data.Dataset` without an end, whose iterator TensorFlow saves."""

    def __init__(self, dataset):
        super().__init__()
        import tensorflow as tf

        self.tf, self.dataset = tf, dataset
        self.facts = {
            "kind": "endless tf.data", "elements": repr(dataset.element_spec)
        }  # fmt: skip

    def open(self):
        return iter(self.dataset)

    def where(self):
        if self.iterator is None:
            self.iterator = self.open()
        # Now, and not when the files are written: the iterator moves on.
        kept = tempfile.TemporaryDirectory(prefix="keras-flows-")
        checkpoint = self.tf.train.Checkpoint(iterator=self.iterator)
        checkpoint.write(f"{kept.name}/tf_data")

        def write(folder):
            shutil.copytree(kept.name, folder, dirs_exist_ok=True)
            kept.cleanup()

        return {}, [write]

    def restore(self, state, folder):
        super().restore(state, folder)
        self.iterator = self.open()
        self.tf.train.Checkpoint(iterator=self.iterator).read(
            str(pathlib.Path(folder) / "tf_data")
        ).assert_consumed()


class Grain(Iterated):
    """A grain `DataLoader` or `IterDataset`."""

    def __init__(self, dataset):
        super().__init__()
        self.dataset = dataset
        self.source = None
        self.facts = {"kind": f"grain {type(dataset).__name__}"}

    def open(self):
        while True:
            if self.source is None:
                self.source = iter(self.dataset)
            yield from self.source
            self.source = None

    def where(self):
        state = None if self.source is None else self.source.get_state()
        if isinstance(state, bytes):
            state = {"base64": base64.b64encode(state).decode()}
        return {"iterator": state}, []

    def restore(self, state, folder):
        super().restore(state, folder)
        own = state["iterator"]
        if own is None:
            return
        if set(own) == {"base64"}:
            own = base64.b64decode(own["base64"])
        self.source = iter(self.dataset)
        self.source.set_state(own)


class Loader(Passes):
    """A torch `DataLoader`: the pass is read again up to where it was.

    Its order follows from PyTorch's generators at the start of a pass, which
    are saved; what it read before is read once more and left out. It has
    generators of its own here, PyTorch's as they were when it began: what
    else draws from those does not change its order.
    """

    def __init__(self, loader):
        super().__init__()
        self.loader = loader
        self.batches = len(loader) if hasattr(loader, "__len__") else None
        self.facts = {"kind": "DataLoader", "batches": self.batches}
        # States: now, at the start of the pass, and where a run goes on.
        self.now = self.begun = self.start = None

    def _generators(self):
        import torch

        own = self.loader.generator
        return [torch.default_generator] + ([] if own is None else [own])

    def _apart(self, function, *args):
        """function(*args), drawing from the loader's own generators."""
        generators = self._generators()
        outside = [g.get_state() for g in generators]
        for generator, state in zip(generators, self.now, strict=True):
            generator.set_state(state)
        try:
            return function(*args)
        finally:
            self.now = [g.get_state() for g in generators]
            for generator, state in zip(generators, outside, strict=True):
                generator.set_state(state)

    def begin(self):
        if self.now is None:
            self.now = [g.get_state() for g in self._generators()]
        if self.start is not None:
            self.now, self.start = self.start, None
        self.begun = self.now
        source = self._apart(iter, self.loader)
        while (batch := self._apart(next, source, None)) is not None:
            yield batch

    def where(self):
        state, _ = super().where()
        states = self.begun and [s.numpy().tolist() for s in self.begun]
        return {**state, "generators": states}, []

    def restore(self, state, folder):
        super().restore(state, folder)
        import torch

        if state["generators"] is not None:
            self.start = [
                torch.tensor(values, dtype=torch.uint8)
                for values in state["generators"]
            ]
