"""`fit` under a `Checkpoint`: Keras's own, on data that knows its place."""

import contextlib

import keras

from keras_flows.training.callback_list import CallbackList
from keras_flows.training.resume.checkpoint import Checkpoint
from keras_flows.training.resume.feeds import make_feed


class _Callbacks(CallbackList):
    """Those of one run, which Keras begins and ends twice.

    An epoch that was cut short is gone on with by a `fit` of its own.
    """

    begun = False

    def on_train_begin(self, logs=None):
        if not self.begun:
            self.begun = True
            super().on_train_begin(logs)

    def on_train_end(self, logs=None):
        self.logs = logs

    def finish(self):
        """The run's end, for the callbacks."""
        super().on_train_end(self.logs)


def separate(callbacks):
    """(the `Checkpoint` or None, the others) of a list of callbacks."""
    kept = [c for c in callbacks if isinstance(c, Checkpoint)]
    if len(kept) > 1:
        raise ValueError(
            "`callbacks` must hold one Checkpoint at most. Received: "
            f"{len(kept)}."
        )
    others = [c for c in callbacks if not isinstance(c, Checkpoint)]
    return (kept[0] if kept else None), others


def fit_kept(fit, model, checkpoint, parts, callbacks, options):
    """What `fit` does with a `Checkpoint` among its callbacks.

    Args:
        fit: Keras's.
        model: the `Trainable`.
        checkpoint: the `Checkpoint`.
        parts: [x], [x, y] or [x, y, weights], as Keras's `fit` takes them.
        callbacks: list of the others.
        options: dict of the other arguments of `fit`.

    Returns:
        `keras.callbacks.History` of the whole run.
    """
    options = dict(options)
    epochs = options.pop("epochs", 1)
    verbose = options.pop("verbose", "auto")
    batch_size = options.pop("batch_size", None)
    steps = options.pop("steps_per_epoch", None)
    shuffle = options.pop("shuffle", True)
    share = options.pop("validation_split", 0.0)
    if options.pop("initial_epoch", 0):
        raise ValueError(
            "`initial_epoch` cannot be used with a Checkpoint, which knows "
            "where the run is. Leave it out."
        )
    if share and options.get("validation_data") is None:
        parts, options["validation_data"] = _split(parts, share)
    if batch_size is not None:
        options.setdefault("validation_batch_size", batch_size)
    seed = getattr(model, "seed", None)
    seed = 0 if seed is None else seed
    feed = make_feed(parts, batch_size, shuffle, seed)
    steps = feed.batches if steps is None else steps
    if steps is None:
        raise ValueError(
            "`steps_per_epoch` is needed with a Checkpoint, for data of no "
            "known length."
        )
    model.make_train_function()
    done = checkpoint.start(model, feed, steps, callbacks)
    callbacks = _Callbacks(
        [*callbacks, keras.callbacks.History(), checkpoint],
        add_history=True,
        add_progbar=verbose != 0,
        verbose=verbose,
        epochs=epochs,
        steps=steps,
        model=model,
    )
    epoch, begun = divmod(done, steps)
    if done and (checkpoint.finished or epoch >= epochs):
        why = "was stopped by a callback" if checkpoint.finished else "is done"
        print(
            f"The run in {checkpoint.directory} {why} after {epoch} epochs, "
            "and nothing is trained. Another folder begins another run"
            + (", more `epochs` go on." if epoch >= epochs else ".")
        )
        epochs = epoch

    def run(first, last, count):
        callbacks.set_params({**callbacks.params, "steps": count})
        return fit(
            feed.take(count * (last - first)),
            initial_epoch=first,
            epochs=last,
            steps_per_epoch=count,
            verbose=verbose,
            callbacks=callbacks,
            # The feed has shuffled.
            shuffle=False,
            **options,
        )

    try:
        if begun:
            with _not_final(model.optimizer, epoch + 1 < epochs):
                run(epoch, epoch + 1, steps - begun)
            epoch += 1
        if epoch < epochs and not (begun and model.stop_training):
            run(epoch, epochs, steps)
        if not callbacks.begun:
            callbacks.on_train_begin()
            callbacks.on_train_end()
        callbacks.finish()
    finally:
        checkpoint.close()
    return model.history


def _split(parts, share):
    """(parts, validation data): the last rows, as Keras splits arrays."""
    leaves = keras.tree.flatten(parts)
    if not all(hasattr(leaf, "shape") for leaf in leaves):
        raise ValueError(
            "`validation_split` is for arrays. Pass `validation_data`."
        )
    at = int(len(leaves[0]) * (1.0 - share))
    first = keras.tree.map_structure(lambda leaf: leaf[:at], parts)
    last = keras.tree.map_structure(lambda leaf: leaf[at:], parts)
    return first, tuple(last)


@contextlib.contextmanager
def _not_final(optimizer, more):
    """Within, the end of a `fit` is not the run's where there is more of it.

    An optimizer with `use_ema` puts its averages in the weights' place then.
    """
    if more:
        optimizer.finalize_variable_values = lambda variables: None
    try:
        yield
    finally:
        if more:
            del optimizer.finalize_variable_values
