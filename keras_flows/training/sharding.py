"""Layouts of `keras.distribution`, and what they cover."""

from __future__ import annotations

import contextlib
import math
import re
import typing

import keras

from keras_flows.ops.scalars import COUNT
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def _need_jax():
    if keras.backend.backend() != "jax":
        raise ValueError(
            "`keras.distribution` works on the JAX backend; it runs as "
            f"{keras.backend.backend()!r}. Set KERAS_BACKEND=jax, or use "
            "torch.distributed or tf.distribute, which the train step "
            "knows of."
        )


class FullySharded(keras.distribution.ModelParallel):
    """Data parallelism with every variable split over all devices (ZeRO-3).

    Each variable is split along its largest axis that the number of devices
    divides; optimizer slots and averages, of the same shapes, alike.
    Variables without such an axis, or smaller than `min_size`, are copied to
    all. Set before the model is built:
    `keras.distribution.set_distribution(FullySharded())`. JAX only.

    Args:
        devices: list of devices, by default all.
        min_size: number of elements below which a variable is copied.
    """

    @checked(min_size=COUNT)
    def __init__(
        self, devices: Sequence[Any] | None = None, min_size: int = 1024
    ) -> None:
        _need_jax()
        devices = devices or keras.distribution.list_devices()
        mesh = keras.distribution.DeviceMesh(
            (len(devices),), ["batch"], devices
        )
        super().__init__(
            layout_map=keras.distribution.LayoutMap(mesh),
            batch_dim_name="batch",
        )
        self.min_size = min_size

    def get_variable_layout(self, variable):
        """The layout of a variable, by its shape."""
        if getattr(variable, "_layout", None) is not None:
            return variable._layout
        spec = [None] * len(variable.shape)
        count = math.prod(self.device_mesh.shape)
        axes = [i for i, n in enumerate(variable.shape) if n % count == 0]
        if axes and math.prod(variable.shape) >= self.min_size:
            spec[max(axes, key=lambda i: variable.shape[i])] = "batch"
        return keras.distribution.TensorLayout(spec, self.device_mesh)


def _torch_only(name):
    if keras.backend.backend() != "torch":
        raise ValueError(
            f"`{name}` splits a model over processes of PyTorch; Keras runs "
            f"as {keras.backend.backend()!r}. On JAX set the distribution "
            "`kf.training.FullySharded()` before the model is built."
        )


@checked(averages_in_loss=FLAG)
def fully_shard(model: keras.Model, averages_in_loss: bool = False) -> None:
    """Split weights, optimizer and averages over the processes of PyTorch.

    By `torch.distributed.fsdp.fully_shard`, after `init_process_group` and
    `compile`, in every process; then train as ever. Weights are gathered for
    each step, of any objective, and the gradients scattered after it. Sample,
    evaluate, save and export `with kf.training.whole(model):`.

    Args:
        model: a built and compiled model of this library, on one device.
        averages_in_loss: whether the loss reads an average, as that of
            consistency models does, which is then gathered for it.

    Raises:
        ValueError: without `torch.distributed`; if the model is not built or
            compiled, or split already; if its optimizer needs whole weights.
    """
    _torch_only("fully_shard")
    from keras_flows.training import fsdp

    fsdp.fully_shard(model, averages_in_loss)


@contextlib.contextmanager
def whole(model: keras.Model) -> Any:
    """Within, a model that was split has all weights on every process.

    To sample, evaluate, save or export it; on every process, and to read.
    Without effect on a model that was not split.
    """
    if keras.backend.backend() != "torch":
        yield
        return
    from keras_flows.training import fsdp

    with fsdp.whole(model):
        yield


def check_layout_map(layout_map, variables):
    """Every rule of a `LayoutMap` must match a variable.

    Raises:
        ValueError: naming the rules that match nothing: the variables that
            they were meant for would silently be copied to every device.
    """
    paths = [v.path for v in variables]
    idle = [
        rule
        for rule in layout_map
        if not any(re.search(rule, path) for path in paths)
    ]
    if idle:
        raise ValueError(
            f"`layout_map` has rules that match no variable: {idle}. The "
            f"variables are, for example: {paths[:8]}."
        )


def coverage(variables: Any) -> Any:
    """What of each variable lies on one device.

    Args:
        variables: `keras.Variable`s on the JAX backend.

    Returns:
        (text table, share of all bytes that one device holds).
    """
    _need_jax()
    rows, total, held = {}, 0, 0
    for v in variables:
        value = v.value
        size, local = (
            math.prod(shape) * value.dtype.itemsize
            for shape in (v.shape, value.sharding.shard_shape(value.shape))
        )
        total, held = total + size, held + local
        spec = getattr(value.sharding, "spec", ())
        kind = (tuple(v.shape), str(tuple(spec)))
        count, bytes_of = rows.get(kind, (0, 0))
        rows[kind] = (count + 1, bytes_of + local)
    lines = [
        f"{'shape':<22} {'layout':<22} {'variables':>9} {'MiB/device':>11}"
    ]
    for (shape, spec), (count, size) in sorted(
        rows.items(), key=lambda row: -row[1][1]
    ):
        lines.append(
            f"{str(shape):<22} {spec:<22} {count:>9} {size / 2**20:>11.3f}"
        )
    share = held / max(total, 1)
    lines.append(
        f"{held / 2**20:.3f} of {total / 2**20:.3f} MiB on a device: "
        f"{share:.1%}"
    )
    return "\n".join(lines), share
