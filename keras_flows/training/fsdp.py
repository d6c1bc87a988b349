"""Weights, optimizer and averages split over the processes of PyTorch.

Around `torch.distributed.fsdp.fully_shard`, whose hooks sit on modules as
PyTorch calls them. Keras calls layers by a method of its own, and a JVP cannot
pass through those hooks. So one module holds all parameters that train, and
its call is the whole loss: they are gathered before it, whatever it takes
derivatives of, and gradients are scattered after the backward pass. Between
steps each process holds its share of weights, slots and averages only.
"""

import contextlib
import functools

import keras
import torch
from torch import distributed
from torch.distributed import fsdp
from torch.distributed import tensor as dtensor

from keras_flows.training import ranks

# Their steps go element by element, or by sums that PyTorch forms itself.
_ELEMENTWISE = (
    keras.optimizers.Adadelta,
    keras.optimizers.Adagrad,
    keras.optimizers.Adam,
    keras.optimizers.Adamax,
    keras.optimizers.Lion,
    keras.optimizers.Nadam,
    keras.optimizers.RMSprop,
    keras.optimizers.SGD,
)


class _Shards(torch.nn.Module):
    """The parameters that train, and what is computed of them.

    `fully_shard` exchanges a module's parameters for their shards and back;
    `follow` lets the variables have what the module has.
    """

    def __init__(self, variables):
        super().__init__()
        self.trained = self.split = tuple(variables)
        # Averages, where the loss reads them.
        self.read = ()
        for i, variable in enumerate(self.trained):
            self.register_parameter(f"p{i}", variable.value)

    def follow(self):
        for i, variable in enumerate(self.trained):
            variable._value = self._parameters[f"p{i}"]

    def forward(self, run, *args):
        self.follow()
        with _gathered(self.read):
            return run(*args)


def shards_of(model):
    """The `_Shards` of a model that was split, or None."""
    return model.__dict__.get("_fsdp_shards")


def compute_of(model):
    """Function of a batch to (mean loss, {term: mean}): `compute`."""
    compute = functools.partial(model.compute, training=True)
    shards = shards_of(model)
    if shards is None:
        return compute

    def gathered(data):
        ranks.before_gathering(model)
        try:
            return shards(compute, data)
        except BaseException:
            # No backward pass will scatter them.
            shards.reshard()
            shards.follow()
            raise

    return gathered


def fully_shard(model, averages_in_loss=False):
    """See `kf.training.fully_shard`."""
    _check(model)
    model.start_averages()
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    ranks.synchronize(model)
    trained = model.trainable_variables
    averages, networks = _averages_of(model)
    old = {id(v.value): v for v in trained}
    shards = _Shards(trained)
    fsdp.fully_shard(shards, reshard_after_forward=False)
    shards.follow()
    mesh = shards.trained[0].value.device_mesh
    shapes = {tuple(v.shape) for v in trained}
    slots = [
        v
        for v in model.optimizer.variables
        if v.shape and tuple(v.shape) in shapes
    ]
    for variable in (*averages, *slots):
        old[id(variable.value)] = variable
        shard = dtensor.distribute_tensor(
            variable.value.detach(), mesh, [dtensor.Shard(0)]
        )
        variable._value = torch.nn.Parameter(shard, requires_grad=False)
    shards.split = (*trained, *averages)
    if averages_in_loss:
        shards.read = tuple(averages)
    # Layers hold the whole parameters, too.
    for network in (model, *networks):
        for layer in network._flatten_layers():
            for key, value in list(layer.torch_params.items()):
                if id(value) in old:
                    layer.torch_params[key] = old[id(value)].value
    model.__dict__["_fsdp_shards"] = shards


def _averages_of(model):
    """(averages of what trains, the networks that have them)."""
    trained = {id(v) for v in model.trainable_variables}
    found, networks = [], []
    for part in model.everything():
        for ema, network in part.averages.pairs:
            networks.append(ema.averaged())
            pairs = zip(ema.averages, network.variables, strict=True)
            found += [average for average, v in pairs if id(v) in trained]
    return found, networks


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
    waiting = [n.name for n in model.networks() if not n.built]
    if waiting:
        raise ValueError(
            f"`model` '{model.name}' has networks that are not built: "
            f"{waiting}. Call them on a batch, or generate(noise=...), first."
        )
    first = model.optimizer
    inner = getattr(first, "inner_optimizer", first)
    for optimizer in (inner, getattr(first, "second", inner)):
        if (
            not isinstance(optimizer, _ELEMENTWISE)
            or isinstance(first, keras.optimizers.LossScaleOptimizer)
            or optimizer.use_ema
        ):
            raise ValueError(
                "`fully_shard` takes optimizers whose step goes element by "
                "element: Adam, AdamW, SGD, Lion and the like, without "
                "`use_ema` and without LossScaleOptimizer (train in bfloat16 "
                f"or float32). Received: {type(first).__name__}"
                f"({type(optimizer).__name__}, use_ema={optimizer.use_ema})."
            )


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


@contextlib.contextmanager
def whole(model):
    """See `kf.training.whole`."""
    shards = shards_of(model)
    if shards is None:
        yield
        return
    ranks.before_gathering(model)
    with _gathered(shards.split):
        ranks.end_step(model)
        yield


@contextlib.contextmanager
def _gathered(variables):
    before = [(v, v._value) for v in variables]
    try:
        for variable, value in before:
            # What is whole already stays.
            if isinstance(value, dtensor.DTensor):
                variable._value = torch.nn.Parameter(
                    value.full_tensor(), requires_grad=False
                )
        yield
    finally:
        for variable, value in before:
            variable._value = value
