"""Weights, optimizer and averages split over the processes of PyTorch.

Around `torch.distributed.fsdp.fully_shard`, whose hooks sit on modules as
PyTorch calls them. Keras calls layers by a method of its own, and a JVP cannot
pass through those hooks. So one module holds all parameters that train, and
its call is the whole loss: they are gathered before it, whatever it takes
derivatives of, and gradients are scattered after the backward pass. Between
steps each process holds its share of weights, slots and averages only.
"""

import contextlib

import torch
from torch import distributed
from torch.distributed import fsdp
from torch.distributed import tensor as dtensor


class _Shards(torch.nn.Module):
    """The parameters that train, and what is computed of them.

    `fully_shard` exchanges a module's parameters for their shards and back;
    `follow` lets the variables have what the module has.
    """

    def __init__(self, variables):
        super().__init__()
        self.trained = tuple(variables)
        for i, variable in enumerate(self.trained):
            self.register_parameter(f"p{i}", variable.value)

    def follow(self):
        for i, variable in enumerate(self.trained):
            variable._value = self._parameters[f"p{i}"]

    def forward(self, run, *args):
        self.follow()
        return run(*args)


def shards_of(model):
    """The `_Shards` of a model that was split, or None."""
    return model.__dict__.get("_fsdp_shards")


def fully_shard(model):
    """Split a model's weights, optimizer and averages over all processes.

    After `compile` and `torch.distributed.init_process_group`, in every
    process; then train as ever. To sample, evaluate, save or export, enter
    `whole(model)` on every process.

    Args:
        model: a built and compiled `Trainable`, on one device.

    Raises:
        ValueError: without `torch.distributed`, or if the model is not
            compiled, is split already or its optimizer needs whole weights.
    """
    _check(model)
    from keras_flows.training import ranks

    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    model.start_averages()
    ranks.synchronize(model)
    old = {}
    trained = model.trainable_variables
    for variable in trained:
        old[id(variable.value)] = variable
    shards = _Shards(trained)
    with torch.no_grad():
        fsdp.fully_shard(shards, reshard_after_forward=False)
    shards.follow()
    mesh = shards.trained[0].value.device_mesh
    split = [*trained]
    shapes = {tuple(v.shape) for v in trained}
    for variable in [*averages_of(model), *model.optimizer.variables]:
        if variable.shape and tuple(variable.shape) in shapes:
            old[id(variable.value)] = variable
            variable._value = _parameter(variable.value, mesh)
            split.append(variable)
    # Layers hold the same parameters, in their order.
    for module in model.modules():
        for name, value in module._parameters.items():
            if id(value) in old:
                module._parameters[name] = old[id(value)].value
    shards.split = tuple(split)
    model.__dict__["_fsdp_shards"] = shards


def _parameter(value, mesh):
    shard = dtensor.distribute_tensor(value.detach(), mesh, [dtensor.Shard(0)])
    return torch.nn.Parameter(shard, requires_grad=False)


def scattered(value, like):
    """A whole value, the first process's, split as another is."""
    return dtensor.distribute_tensor(
        torch.as_tensor(value, dtype=like.dtype, device=like.device),
        like.device_mesh,
        like.placements,
    )


def as_tensor(value):
    """A tensor that may be spread over processes, whole."""
    if isinstance(value, dtensor.DTensor):
        return value.full_tensor()
    return value


def averages_of(model):
    """The variables of all averages."""
    return [
        variable
        for part in model.everything()
        for ema, _ in part.averages.pairs
        for variable in ema.averages
    ]


def _check(model):
    if not (distributed.is_available() and distributed.is_initialized()):
        raise ValueError(
            "`fully_shard` splits a model over the processes of "
            "torch.distributed: call init_process_group first."
        )
    if not getattr(model, "optimizer", None):
        raise ValueError(
            f"`model` '{model.name}' is not compiled: call compile(optimizer) "
            "first, whose slots are split as well."
        )
    if shards_of(model) is not None:
        raise ValueError(f"`model` '{model.name}' is split already.")


@contextlib.contextmanager
def whole(model):
    """Within, every process has all weights and averages, to read.

    Args:
        model: a `Trainable`, split or not.
    """
    shards = shards_of(model)
    if shards is None:
        yield
        return
    before = [(v, v._value) for v in shards.split]
    for variable, value in before:
        variable._value = torch.nn.Parameter(
            value.full_tensor(), requires_grad=False
        )
    try:
        yield
    finally:
        for variable, value in before:
            variable._value = value
