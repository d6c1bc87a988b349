"""`fit` and `evaluate` around Keras's own: checks before, reasons after."""

import contextlib

import keras
import numpy as np

from keras_flows.ops.scalars import COUNT
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Number
from keras_flows.training import batch_checks
from keras_flows.training import batches
from keras_flows.training import compiling
from keras_flows.training import first_batch
from keras_flows.training import processes
from keras_flows.training import resume
from keras_flows.training.callback_list import CallbackList
from keras_flows.training.guard import NonFiniteGuard
from keras_flows.training.map_watch import MapLossWatch
from keras_flows.training.steps import inner_optimizer

# What Keras would fail on later, or take for something else.
_OPTIONS = {
    **dict.fromkeys(
        (
            "epochs", "batch_size", "steps_per_epoch", "validation_steps",
            "validation_batch_size", "steps",
        ),
        SIZE,
    ),
    "initial_epoch": COUNT,
    "validation_split": Number(0, below=1),
    "shuffle": FLAG,
}  # fmt: skip


def fit(model, keras_fit, x, y, callbacks, kwargs):
    """What `Trainable.fit` does.

    Args:
        model: the `Trainable`.
        keras_fit: Keras's method.
        x, y, callbacks, kwargs: as in `fit`.
    """
    with processes.together(model):
        return _fit(model, keras_fit, x, y, callbacks, kwargs)


def _fit(model, keras_fit, x, y, callbacks, kwargs):
    compiling.check_ready(model)
    model.forget_graphs()
    if x is None:
        raise ValueError("`x` is missing: `fit` needs data. Received: None.")
    _check_options(kwargs)
    if "loss" in model.__dict__:
        raise ValueError(
            f"A {type(model).__name__} has its own loss: compile it with "
            "an optimizer only, not with `loss` or `metrics`."
        )
    if getattr(x, "ordered", False):
        # An order to resume in, which Keras would shuffle unseeded.
        kwargs.setdefault("shuffle", False)
    batches.check_class_weight(kwargs.pop("class_weight", None))
    x = first_batch.completed(model, x, y)
    x, y, check = batch_checks.checked_input(model, x, y)
    weight = kwargs.pop("sample_weight", None)
    x, y, weight = batches.with_weights(model, x, y, weight)
    kwargs, others = batch_checks.checked_validation(model, kwargs)
    count = compiling.CountSteps()
    own = [NonFiniteGuard(model.max_skipped_steps), MapLossWatch(), count]
    keep = None
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        if callbacks is None:
            callbacks = []
        elif isinstance(callbacks, keras.callbacks.Callback):
            callbacks = [callbacks]
        elif not isinstance(callbacks, (list, tuple)):
            raise ValueError(
                "`callbacks` must be a list of keras.callbacks.Callback. "
                f"Received: {callbacks!r}."
            )
        keep, callbacks = resume.separate([*own, *callbacks])
    else:
        for callback in own:
            callbacks.append(callback)
    before = int(inner_optimizer(model.optimizer)._iterations.numpy())
    try:
        if keep is not None:
            parts = [part for part in (x, y, weight) if part is not None]
            return resume.fit_kept(
                keras_fit, model, keep, parts, callbacks, kwargs
            )
        if keep is None and not isinstance(
            callbacks, keras.callbacks.CallbackList
        ):
            callbacks = CallbackList(
                callbacks,
                add_history=True,
                add_progbar=kwargs.get("verbose", "auto") != 0,
                verbose=kwargs.get("verbose", "auto"),
                epochs=kwargs.get("epochs", 1),
                steps=None,
                model=model,
            )
            # Keras finds out how many steps there are: `_symbolic_build`.
            model.__dict__["starting_callbacks"] = callbacks
        history = keras_fit(
            x, y, sample_weight=weight, callbacks=callbacks, **kwargs
        )
    except Exception as error:
        if not count.steps and batches.is_empty_data_error(error):
            raise ValueError(batches.EMPTY) from error
        plain = check.plain(others.plain(error))
        if plain is error:
            raise
        raise plain from None
    if not count.steps:
        raise ValueError(batches.EMPTY)
    if int(inner_optimizer(model.optimizer)._iterations.numpy()) == before:
        compiling.warn_of_overflow(model, count.steps)
    return history


def _check_options(options):
    """Numbers and flags of Keras's `fit` and `evaluate`, in place."""
    for name in _OPTIONS.keys() & options.keys():
        if options[name] is not None:
            options[name] = _OPTIONS[name](name, options[name])


def evaluate(model, keras_evaluate, x, y, args, kwargs):
    """What `Trainable.evaluate` does.

    Args:
        model: the `Trainable`.
        keras_evaluate: Keras's method.
        x, y, args, kwargs: as in `evaluate`.
    """
    check = None
    _check_options(kwargs)
    in_fit = kwargs.get("_use_cached_eval_dataset")
    x = first_batch.completed(model, x, y)
    if not in_fit:
        x, y, check = batch_checks.checked_input(model, x, y, training=False)
        weight = kwargs.pop("sample_weight", None)
        x, y, weight = batches.with_weights(model, x, y, weight)
        if weight is not None:
            kwargs["sample_weight"] = weight
    generators = [
        (model.seed_generator.state, model.evaluation_seed)
        for model in model.everything()
        if "seed_generator" in model.__dict__
    ]
    before = [state.numpy() for state, _ in generators]
    for state, seed in generators:
        state.assign(np.array([seed, 0], dtype="uint32"))
    alone = contextlib.nullcontext() if in_fit else processes.alone(model)
    try:
        with alone:
            return keras_evaluate(x, y, *args, **kwargs)
    except Exception as error:
        plain = error if check is None else check.plain(error)
        if plain is error:
            raise
        raise plain from None
    finally:
        # Training is not disturbed.
        for (state, _), value in zip(generators, before, strict=True):
            state.assign(value)
