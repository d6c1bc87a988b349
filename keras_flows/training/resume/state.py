"""All that a run is, beside its data: variables, callbacks, history."""

import keras
import numpy as np

from keras_flows.training.resume.processes import put
from keras_flows.training.resume.processes import whole

# What Keras's callbacks know of the epochs before, by the class's name. Those
# of others may have `get_state()`, of JSON values, and `set_state(state)`.
_KNOWN = {
    "EarlyStopping": (
        "wait", "best", "best_epoch", "best_weights", "stopped_epoch",
    ),
    "ReduceLROnPlateau": ("wait", "best", "cooldown_counter"),
    "ModelCheckpoint": (
        "best", "epochs_since_last_save", "_batches_seen_since_last_saving",
        "_last_batch_seen",
    ),
}  # fmt: skip


def variables(model):
    """Everything that a step changes: weights, averages, seeds, optimizer,
    counters and metrics."""
    found = [*model.variables, *model.metrics_variables]
    if model.optimizer is not None:
        found += model.optimizer.variables
    return list({id(v): v for v in found}.values())


def arrays_of(model):
    """({key: array}, names): the values, and what each is."""
    values, names = {}, []
    for i, variable in enumerate(variables(model)):
        value = whole(variable.value)
        values[f"v{i}"] = value
        names.append([variable.path, list(value.shape), value.dtype.name])
    return values, names


def check_names(model, names, where):
    """Refuse values that are another model's.

    Raises:
        ValueError: naming the first variable that differs.
    """
    own = [
        [v.path, list(v.shape), keras.backend.standardize_dtype(v.dtype)]
        for v in variables(model)
    ]
    # Layers are numbered by how many a process has made.
    for (path, *kind), (saved, *saved_kind) in zip(own, names, strict=False):
        if kind != saved_kind:
            raise ValueError(
                f"{where} was written by another model or optimizer: "
                f"'{saved}' was {saved_kind[0]} {saved_kind[1]}, where this "
                f"one has '{path}' {kind[0]} {kind[1]}. Build and compile the "
                "model as it was, or name another folder."
            )
    if len(own) != len(names):
        raise ValueError(
            f"{where} was written by another model or optimizer: it holds "
            f"{len(names)} variables, this one has {len(own)}. Build and "
            "compile the model as it was, or name another folder."
        )


def assign(targets, values):
    """Set variables from {"v0": ...}, in the order of `variables`."""
    for i, variable in targets:
        put(variable, values[f"v{i}"])


def state_of(callback):
    """(JSON values, {name: list of arrays}) of a callback, or None."""
    if hasattr(callback, "get_state"):
        return callback.get_state(), {}
    plain, arrays = {}, {}
    for kind in type(callback).__mro__:
        for name in _KNOWN.get(kind.__name__, ()):
            value = getattr(callback, name, None)
            if isinstance(value, list):
                arrays[name] = [np.asarray(part) for part in value]
            else:
                plain[name] = None if value is None else float(value)
    return plain, arrays


def set_state(callback, plain, arrays):
    """Undo `state_of`."""
    if hasattr(callback, "set_state"):
        callback.set_state(plain)
        return
    for name, value in plain.items():
        whole = name != "best" and value is not None
        setattr(callback, name, int(value) if whole else value)
    for name, parts in arrays.items():
        setattr(callback, name, parts)
