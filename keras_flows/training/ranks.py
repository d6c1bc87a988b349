"""The processes of `torch.distributed` that train one model.

They must call the same collectives in the same order. One that has no batch
left, or has failed, does not, and the others would wait for it in vain. So
each says where it is before anything else is exchanged, by an all-reduce of
one shape (`_meet`), and all raise where they are not at the same place.
"""

import contextlib
import datetime

import keras
import torch
from torch import distributed
from torch.distributed import tensor

from keras_flows.training.processes import folded
from keras_flows.training.processes import place

# Where a process may be, and how the error says it.
_PLACES = {
    "start": "begin `fit`",
    "loss": "compute a loss",
    "gather": "gather weights",
    "step": "take a step",
    "epoch": "have no batch left in this epoch",
    "checkpoint": "end a step",
    "end": "have ended `fit`",
    "failed": "failed",
}
# How long a process that failed waits until the others have heard.
_PATIENCE = datetime.timedelta(minutes=5)


class ProcessesApart(RuntimeError):
    """Processes that train one model are not at the same place."""


class _State:
    """What a model knows of the other processes."""

    def __init__(self):
        self.synchronized = self.fitting = self.busy = False


def _state(model):
    return model.__dict__.setdefault("_ranks_state", _State())


def several():
    """Whether there is more than one process."""
    return place()[1] > 1


def _meet(where, *values, timeout=None):
    """Say where this process is; returns the sums of all that `values` are.

    Two of them at most.

    Raises:
        ProcessesApart: on every process, where they are not at one place.
    """
    rank, world = place()
    names = list(_PLACES)
    # On the device of the weights, which the collectives are for.
    words = keras.ops.zeros((len(names) + 3,), dtype="float32")
    words[names.index(where)] = 1.0
    if where == "failed":
        words[len(names)] = rank
    for i, value in enumerate(values, start=1):
        words[len(names) + i] = value
    work = distributed.all_reduce(words, async_op=True)
    if timeout is None:
        work.wait()
    else:
        work.wait(timeout)
    *counts, which = (int(n) for n in words[:-2].tolist())
    if counts[names.index(where)] == world:
        return words[-2:]
    failed = counts[names.index("failed")]
    if failed:
        who = f"process {which}" if failed == 1 else f"{failed}"
        raise ProcessesApart(
            f"Training stopped on process {rank} of {world}, since {who} "
            "failed: see its error."
        )
    found = ", ".join(
        f"{count} {_PLACES[name]}"
        for name, count in zip(names, counts, strict=True)
        if count
    )
    raise ProcessesApart(
        f"The {world} processes are not at the same step, of which this is "
        f"process {rank}: {found}. Each must have as many batches in an epoch "
        "as the others, and as many epochs: cut the data to a multiple of "
        "their number, or pass `steps_per_epoch`."
    )


@contextlib.contextmanager
def together(model):
    """A `fit` of all processes: they begin, fail and end as one."""
    state = _state(model)
    state.synchronized, state.fitting, state.busy = False, True, False
    try:
        _meet("start")
        yield
        _meet("end")
    except ProcessesApart:
        raise
    except Exception:
        if not state.busy:
            # Who died cannot hear it.
            with contextlib.suppress(Exception):
                _meet("failed", timeout=_PATIENCE)
        raise
    finally:
        state.fitting = False


@contextlib.contextmanager
def alone(model):
    """Within, an `evaluate` is of this process."""
    state = _state(model)
    before, state.fitting = state.fitting, False
    try:
        yield
    finally:
        state.fitting = before


def check_equal_steps(steps):
    """See `processes.check_equal_steps`."""
    _meet("start")
    (everyones,) = zip(*gathered([steps]), strict=True)
    if len(set(everyones)) > 1:
        raise ValueError(
            "Each process must have as many batches in an epoch as the "
            f"others. Received: {list(everyones)}, by process. Cut the data "
            "to a multiple of their number, or pass `steps_per_epoch`."
        )


def on_any(*flags):
    """See `processes.on_any`."""
    found = _meet("checkpoint", *(float(bool(flag)) for flag in flags))
    return [count > 0 for count in found.tolist()[: len(flags)]]


def gathered(values):
    """See `processes.gathered`."""
    everyones = [None] * place()[1]
    distributed.all_gather_object(everyones, list(values))
    return everyones


def _state_of_run(model):
    """What must be equal on all: all variables but the metrics' sums."""
    own = {id(v) for v in model.metrics_variables}
    found = [*model.variables]
    if model.optimizer is not None:
        found += model.optimizer.variables
    return [v for v in {id(v): v for v in found}.values() if id(v) not in own]


def synchronize(model):
    """Rank 0's values on every rank, and a seed of its own for each.

    Of weights, averages, optimizer and counters; the seed of a generator, of
    the model's noise or a layer's dropout, is folded with the rank, and
    PyTorch's own generator is seeded by a number of rank 0's. Once at
    the first step of a `fit`, or of a model that is trained by
    `train_on_batch`.

    Raises:
        ValueError: on every process, if their models are not of one shape.
    """
    state = _state(model)
    if state.synchronized or not several():
        return
    _meet("start")
    rank, _ = place()
    variables = _state_of_run(model)
    kinds = [(tuple(v.shape), v.dtype) for v in variables]
    everyones = gathered(kinds)
    for other, found in enumerate(everyones):
        if found != everyones[0]:
            raise ValueError(
                f"Process {other} trains another model than process 0: "
                f"{_difference(found, everyones[0])}. Build and compile the "
                "same one in each."
            )
    with torch.no_grad():
        for variable in variables:
            if isinstance(variable.value, tensor.DTensor):
                # Split: each process has a part of one value.
                continue
            value = variable.value.detach().contiguous()
            distributed.broadcast(value, 0)
            variable.assign(value)
            if variable.name == "seed_generator_state":
                seed, count = value.tolist()
                variable.assign([folded(seed, rank), count])
    # PyTorch's own generator, of unseeded dropout and layers of `torch.nn`.
    base = keras.ops.convert_to_tensor(torch.randint(2**31 - 1, ()))
    distributed.broadcast(base, 0)
    if rank:
        torch.manual_seed(folded(int(base), rank))
    state.synchronized = True


def _difference(found, expected):
    if len(found) != len(expected):
        return f"{len(found)} variables, where {len(expected)} are"
    return next(
        f"a variable of {list(a[0])} {a[1]}, where {list(b[0])} {b[1]} is"
        for a, b in zip(found, expected, strict=True)
        if a != b
    )


def mean_loss(model, loss):
    """The loss's mean over processes, at the end of a backward pass."""
    loss = loss.detach().clone()
    if not several():
        return loss
    total, _ = _meet("step", loss.to(torch.float32))
    # From here on others wait in collectives of their own.
    _state(model).busy = True
    return (total / place()[1]).to(loss.dtype)


def summed(tensor):
    """The sum of a tensor over processes, without gradient."""
    _meet("loss")
    total = tensor.detach().clone()
    distributed.all_reduce(total)
    return total


def before_gathering(model):
    """Weights that are split are gathered, by all or by none."""
    _meet("gather")
    _state(model).busy = True


def average(tensors):
    """All-reduce in place to the means; a no-op for one process.

    `DistributedDataParallel` cannot wrap a JVP: it skips the
    synchronisation, and says nothing.
    """
    if not several():
        return
    waiting = [distributed.all_reduce(t, async_op=True) for t in tensors]
    for work, mean in zip(waiting, tensors, strict=True):
        work.wait()
        mean.div_(place()[1])


def average_changes(variables, before):
    """Let statistics that a forward pass moved move by the mean change."""
    if not (variables and several()):
        return
    changes = [v.value - old for v, old in zip(variables, before, strict=True)]
    average(changes)
    for variable, old, change in zip(variables, before, changes, strict=True):
        variable.assign(old + change)


def end_step(model):
    """Nothing is exchanged until the next meeting."""
    _state(model).busy = False


def merged(model, logs):
    """The logs of an epoch of `fit`, from the sums of all processes.

    Outside of `fit` they are those of this process alone, which may be the
    only one that evaluates.
    """
    if not (several() and _state(model).fitting):
        return logs
    _meet("epoch")
    mapping = []
    for variable in model.metrics_variables:
        value = variable.value.detach().clone()
        distributed.all_reduce(value)
        mapping.append((variable, value))
    with keras.StatelessScope(state_mapping=mapping):
        found = {m.name: m.result() for m in model.metrics}
    return {name: found.get(name, value) for name, value in logs.items()}
