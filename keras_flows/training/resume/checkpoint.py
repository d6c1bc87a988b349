"""The callback that keeps a run, and lets `fit` go on with it."""

from __future__ import annotations

import concurrent.futures
import pathlib
import signal
import threading
import time
import typing
import warnings

import keras

from keras_flows.ops import given
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Optional
from keras_flows.ops.scalars import checked
from keras_flows.training.processes import on_any
from keras_flows.training.processes import place
from keras_flows.training.resume import files
from keras_flows.training.resume import processes
from keras_flows.training.resume import state as states

if typing.TYPE_CHECKING:
    from typing import Any

    from keras_flows.ops.types import PathLike


class Checkpoint(keras.callbacks.Callback):
    """Keeps all that a run is, so that a killed one goes on as if it had not.

    ```python
    keep = kf.callbacks.Checkpoint("runs/one", every_steps=1000)
    model.fit(x, epochs=100, callbacks=[keep])  # and again, after a kill
    ```

    Where the folder holds a checkpoint, `fit` goes on from it: same weights,
    averages, optimizer, seeds, logs and order of the data, bit for bit, as the
    run that was never interrupted. What is kept: every variable (dropout's
    seeds and the metrics of the epoch among them), the position in the data,
    the history, and what EarlyStopping, ReduceLROnPlateau and ModelCheckpoint
    know of the epochs before; of another callback what its `get_state()`
    returns, JSON values that `set_state(state)` takes.

    Data must be able to go back: arrays, a PyDataset (batch i follows from i),
    a tf.data.Dataset that TensorFlow can save, grain, a torch DataLoader. An
    epoch must have a known length, or `steps_per_epoch`.

    A checkpoint is written beside, in a thread, and renamed when whole, with
    the SHA-256 of each file; a damaged one is passed over with a warning. Where
    the disk is full or the folder gone, training goes on with a warning, and
    what was written before stays. SIGTERM saves and ends the process with 143.
    A run that is complete trains no more: raise `epochs` to go on.

    Of several processes (torch.distributed, hosts of JAX) each keeps its own,
    in a folder in the folder: its place in the data is its own. Where a run
    goes on with another number of them, on a disk that all see, the first
    one's checkpoint is read, and the epoch that it was in begins anew.

    Args:
        directory: folder of this run alone.
        every_steps: training steps between two checkpoints, or None.
        every_minutes: minutes between them, or None; one is written at the
            end of `fit` in any case.
        keep: how many to keep, the newest.
        best: name in the epoch's logs, such as "val_loss", of which the epoch
            with the lowest value (the highest, with a leading "-") is kept
            too; see `load_checkpoint`.

    Raises:
        ValueError: if the folder holds checkpoints of another model, of other
            data, or none that is whole.
    """

    @checked(
        directory=given.path_of,
        every_steps=Optional(SIZE),
        every_minutes=Optional(POSITIVE),
        keep=SIZE,
        best=given.of(given.text, none=True),
    )
    def __init__(
        self,
        directory: PathLike,
        *,
        every_steps: int | None = None,
        every_minutes: float | None = None,
        keep: int = 3,
        best: Any = None,
    ) -> None:
        super().__init__()
        self.directory = directory
        self.every_steps, self.every_minutes = every_steps, every_minutes
        self.keep, self.best = keep, best
        self._writing = None

    # What `fit` calls, beside the hooks of a callback.

    def start(self, model, feed, steps_per_epoch, others):
        """Read the newest checkpoint; `others` are the run's callbacks.

        Returns:
            Number of steps that the run has done.
        """
        self._feed, self._steps, self._others = feed, steps_per_epoch, others
        self._writer = concurrent.futures.ThreadPoolExecutor(1)
        self._restored, self._finished = None, False
        self.best_seen = None
        self.folder = processes.folder_of(self.directory)
        path, meta = processes.newest(self.directory)
        # In the data, and what was trained elsewhere beyond that.
        self.position = self.before = 0
        if path is not None:
            self._restore(model, path, meta)
        self._saved_at = self.position
        self._saved_time = time.monotonic()
        self._due = False
        return self.position

    def _restore(self, model, path, meta):
        _, count = place()
        written = meta.get("processes", count)
        position = meta.get("position", meta["step"])
        if written == count and meta["steps_per_epoch"] != self._steps:
            raise ValueError(
                f"An epoch of the run in {self.directory} has "
                f"{meta['steps_per_epoch']} steps, and {self._steps} here: "
                "pass the same data, `batch_size` and `steps_per_epoch`."
            )
        states.check_names(model, meta["variables"], str(path))
        values = files.read(path, meta)
        # Before the model changes: other data are refused here.
        if written == count:
            self._feed.restore(meta["data"], path)
        else:
            # Each process has another share of the data.
            epoch, begun = divmod(position, meta["steps_per_epoch"])
            position = epoch * self._steps
            self._feed.begin_at(position)
            warnings.warn(
                f"The run in {self.directory} was of {written} processes and "
                f"goes on in {count}, from step {meta['step']}"
                + (f": epoch {epoch + 1} begins anew." if begun else "."),
                stacklevel=2,
            )
        states.assign(enumerate(states.variables(model)), values)
        self.position, self.before = position, meta["step"] - position
        self.best_seen = meta["best"]
        self._finished = meta["stopped"]
        self._restored = meta, values

    @property
    def finished(self):
        """Whether a callback ended the run that was read."""
        return self._finished

    @property
    def step(self):
        """Number of training steps that the run has done."""
        return self.before + self.position

    # The hooks. `fit` puts this callback after all others.

    def on_train_begin(self, logs=None):
        self._term = None
        if threading.current_thread() is threading.main_thread():
            self._old = signal.signal(signal.SIGTERM, self._on_term)
        if self._restored is None:
            return
        meta, values = self._restored
        history = self.model.history
        history.history = {k: list(v) for k, v in meta["history"].items()}
        history.epoch = list(meta["epochs"])
        for name, callback in self._named():
            if name in meta["callbacks"]:
                plain, arrays = meta["callbacks"][name]
                arrays = {
                    key: [values[f"c.{name}.{key}.{i}"] for i in range(count)]
                    for key, count in arrays.items()
                }
                states.set_state(callback, plain, arrays)

    def _named(self):
        """(name, callback), the same names in the next process."""
        seen = {}
        for callback in self._others:
            kind = type(callback).__name__
            seen[kind] = seen.get(kind, 0) + 1
            yield f"{kind} {seen[kind]}", callback

    def on_epoch_begin(self, epoch, logs=None):
        self._base = self.position
        self._epoch_end = (self.position // self._steps + 1) * self._steps
        if self._restored is not None and self.position % self._steps:
            # Keras has reset the metrics of the epoch that goes on.
            metrics = {id(v) for v in self.model.metrics_variables}
            values = self._restored[1]
            states.assign(
                (
                    (i, v)
                    for i, v in enumerate(states.variables(self.model))
                    if id(v) in metrics
                ),
                values,
            )
        self._restored = None

    def on_train_batch_end(self, batch, logs=None):
        # Keras counts a call of several steps in full, also the last one.
        end = self._epoch_end - self._base
        self.position = self._base + min(batch + 1, end)
        self._feed.trained(self.position)
        if self.every_steps is not None:
            steps = self.position - self._saved_at
            self._due = self._due or steps >= self.every_steps
        if self.every_minutes is not None:
            seconds = time.monotonic() - self._saved_time
            self._due = self._due or seconds >= 60 * self.every_minutes
        if self._writing is not None and self._writing.done():
            self._collect()
        self._agree()
        last = self.position % self._steps == 0
        # The end of an epoch waits for its logs and callbacks.
        if (self._due or self._term) and not last:
            self._save()
            self._end_if_told()

    def _agree(self):
        """All processes save, and end, after the same step."""
        self._due, told = on_any(self._due, self._term)
        if told and not self._term:
            self._term = signal.SIGTERM

    def on_epoch_end(self, epoch, logs=None):
        self._agree()
        better = self._is_better(logs or {})
        if self._due or self._term or better:
            self._save(better)
            self._end_if_told()

    def _is_better(self, logs):
        if self.best is None:
            return False
        name, sign = self.best.removeprefix("-"), 1
        if name != self.best:
            sign = -1
        if name not in logs:
            warnings.warn(
                f"`best` '{name}' of the Checkpoint is not in the logs: "
                f"{sorted(logs)}. No epoch is kept as the best.",
                stacklevel=2,
            )
            return False
        value = sign * float(logs[name])
        seen = self.best_seen and self.best_seen["value"]
        if value != value or (seen is not None and value >= seen):
            return False
        self.best_seen = {"value": value, "step": self.step}
        return True

    def on_train_end(self, logs=None):
        self._feed.close()
        stopped = self.model.stop_training and not self._finished
        if self.position > self._saved_at or stopped:
            self._save()
        self.close()

    def close(self):
        """Wait for the thread that writes, and give SIGTERM back."""
        self._collect()
        self._writer.shutdown()
        if getattr(self, "_old", None) is not None:
            signal.signal(signal.SIGTERM, self._old)
            self._old = None

    def _on_term(self, number, frame):
        self._term = number

    def _end_if_told(self):
        if self._term:
            self.close()
            print(
                f"SIGTERM: step {self.step} is kept in {self.directory}; "
                "start again to go on.",
                flush=True,
            )
            raise SystemExit(128 + self._term)

    def _save(self, better=False):
        """Copy everything to the host, and let the thread write it."""
        model = self.model
        # JAX keeps the weights in the training loop's state until asked.
        if hasattr(model, "jax_state_sync"):
            model.jax_state_sync()
        values, names = states.arrays_of(model)
        callbacks = {}
        for name, callback in self._named():
            plain, arrays = states.state_of(callback)
            for key, parts in arrays.items():
                for i, part in enumerate(parts):
                    values[f"c.{name}.{key}.{i}"] = part
            if plain or arrays:
                counts = {key: len(parts) for key, parts in arrays.items()}
                callbacks[name] = plain, counts
        data, others = self._feed.snapshot()
        history = self.model.history
        meta = {
            "processes": place()[1],
            "position": self.position,
            "steps_per_epoch": self._steps,
            "stopped": bool(model.stop_training),
            "variables": names,
            "callbacks": callbacks,
            "history": {
                key: [float(v) for v in values]
                for key, values in history.history.items()
            },
            "epochs": list(history.epoch),
            "best": self.best_seen,
            "data": data,
        }
        self._due = False
        self._saved_at, self._saved_time = self.position, time.monotonic()
        self._collect()
        self._writing = self._writer.submit(
            self._write, self.step, values, meta, others
        )

    def _collect(self):
        """Wait for the thread, and say what went wrong."""
        if self._writing is not None:
            fault, self._writing = self._writing.result(), None
            if fault is not None:
                warnings.warn(fault, stacklevel=2)

    def _write(self, step, values, meta, others):
        try:
            files.write(self.folder, step, values, meta, others)
            kept = []
            if meta["best"] is not None:
                kept.append(files.name_of(meta["best"]["step"]))
            files.tidy(self.folder, self.keep, kept)
        except OSError as error:
            whole = [path.name for path in files.saved(self.folder)]
            last = whole[0] if whole else "none"
            return (
                f"Step {step} was not kept in {self.folder}: {error}. "
                f"Training goes on; the last checkpoint is {last}."
            )
        return None


def load_checkpoint(
    model: keras.Model, directory: PathLike, which: str = "newest"
) -> Any:
    """Give a model the values of a run's checkpoint.

    Args:
        model: built and compiled as in the run.
        directory: of the `Checkpoint`.
        which: "newest", "best", or a number of steps.

    Returns:
        Number of steps that were trained.

    Raises:
        ValueError: if there is none, or it is damaged or another model's.
    """
    directory = pathlib.Path(directory)
    path, meta = processes.newest_of_any(directory)
    if path is None:
        raise ValueError(f"`directory` {directory} holds no checkpoint.")
    if which == "best":
        if meta["best"] is None:
            raise ValueError(
                f"The run in {directory} kept no best epoch: pass `best` to "
                "its Checkpoint."
            )
        which = meta["best"]["step"]
    if which != "newest":
        path = processes.named(directory, which)
        try:
            meta = files.check(path)
        except ValueError as error:
            kept = ", ".join(p.name for p in files.saved(path.parent))
            raise ValueError(
                f"`which` {which!r} cannot be loaded: {error}. There are "
                f"{kept}."
            ) from error
    if model.optimizer is not None and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    states.check_names(model, meta["variables"], str(path))
    values = files.read(path, meta)
    states.assign(enumerate(states.variables(model)), values)
    return meta["step"]
