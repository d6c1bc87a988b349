"""`compile` and what `fit` asks of it: said in one sentence, on any backend."""

import warnings

import keras

from keras_flows.training import processes
from keras_flows.training.callback_list import last_batch
from keras_flows.training.steps import scales_loss

_NO_JIT = (
    "`jit_compile=True` is not for PyTorch: torch.compile cannot trace the "
    "train step, which calls backward and looks at the loss."
)


def check_jit(jit_compile):
    """Refuse a compilation that the train step does not survive."""
    if jit_compile not in (True, False, "auto"):
        raise ValueError(
            "`jit_compile` must be True, False or 'auto'. Received: "
            f"{jit_compile!r}."
        )
    if jit_compile is True and keras.backend.backend() == "torch":
        raise ValueError(f"{_NO_JIT} Leave it at 'auto'.")


def loaded_config(config):
    """The config of `compile` in a file, as this backend can take it."""
    if config.get("jit_compile") is True and (
        keras.backend.backend() == "torch"
    ):
        warnings.warn(
            f"{_NO_JIT} The file asks for it, and it is left out.",
            stacklevel=3,
        )
        return {**config, "jit_compile": "auto"}
    return config


def check_ready(model):
    """Refuse to train what is not compiled, or is not as it was then."""
    if not getattr(model, "optimizer", None):
        raise ValueError(
            f"'{model.name}' is not compiled: call compile(optimizer) first, "
            "such as model.compile(keras.optimizers.Adam(1e-3))."
        )
    variables = model.trainable_variables
    if not variables and model.network.weights:
        raise ValueError(
            f"Every weight of '{model.name}' is frozen, so that there is "
            "nothing to train: set network.trainable = True and compile again."
        )
    optimizer = model.optimizer
    if not optimizer.built:
        return
    now = {id(v): v for v in variables}
    then = {id(v): v for v in optimizer._trainable_variables}
    changed = [
        f"'{v.path}' was {'un' if key in now else ''}frozen"
        for key, v in (now | then).items()
        if (key in now) != (key in then)
    ]
    if changed:
        raise ValueError(
            "What is trainable changed after the optimizer was built: "
            f"{changed[0]}"
            + (f", and {len(changed) - 1} others" if changed[1:] else "")
            + ". Compile again, with a new optimizer, for the change to count."
        )


class CountSteps(keras.callbacks.Callback):
    """Counts the batches of a `fit`, of which all processes have as many."""

    def __init__(self):
        super().__init__()
        self.steps = 0

    def on_train_begin(self, logs=None):
        processes.check_equal_steps((self.params or {}).get("steps"))

    def on_epoch_begin(self, epoch, logs=None):
        self._before = self.steps

    def on_train_batch_end(self, batch, logs=None):
        self.steps = self._before + last_batch(batch, self) + 1


def warn_of_overflow(model, steps):
    """Tell of a `fit` in which the loss scaler skipped every step."""
    if scales_loss(model.optimizer):
        scale = float(keras.ops.convert_to_numpy(model.optimizer.dynamic_scale))
        warnings.warn(
            f"No weight changed in {steps} steps: the gradients overflowed "
            f"under the scale of the loss, which has fallen to {scale:g} and "
            "falls on. Train for more steps, pass a smaller `initial_scale` "
            "to the LossScaleOptimizer, or train in bfloat16.",
            stacklevel=3,
        )
