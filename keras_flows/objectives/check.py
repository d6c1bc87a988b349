"""`check_jvp`: is a network safe under an objective's derivatives?"""

from __future__ import annotations

import typing

import keras
import numpy as np
from keras import ops

from keras_flows.networks import contract
from keras_flows.ops import bcast_right
from keras_flows.ops import compiled
from keras_flows.ops import exact_products
from keras_flows.ops import float_dtype
from keras_flows.ops import given
from keras_flows.ops import jvp
from keras_flows.ops import value_and_gradients
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from typing import Any

# Not one a user draws data from: noise equal to the data has no velocity.
_SEED = 250518825


def _step():
    # Small beside 1 / 100, for features of time up to 100 radians.
    return 1e-4 if keras.config.floatx() == "float64" else 2e-3


def _central(fun, primals, tangents):
    """Fourth-order central difference of fun along the tangents."""
    h = _step()

    def at(k):
        return fun(
            *(p + k * h * v for p, v in zip(primals, tangents, strict=True))
        )

    return (8.0 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12.0 * h)


def _relative(a, b):
    a = np.concatenate([np.ravel(ops.convert_to_numpy(x)) for x in a])
    b = np.concatenate([np.ravel(ops.convert_to_numpy(x)) for x in b])
    scale = max(np.linalg.norm(a), np.linalg.norm(b), 1e-12)
    return float(np.linalg.norm(a - b) / scale)


@exact_products()
def _compare(fun, primals, tangents, variables):
    """Relative errors of the JVP and of the gradient through it."""

    def both(*primals):
        return (
            jvp(fun, primals, tangents)[1],
            _central(fun, primals, tangents),
        )

    if keras.backend.backend() == "jax":
        # One compilation, where op by op there would be hundreds.
        both = compiled(both, variables)
    exact, differences = both(*primals)
    errors = {"jvp": _relative([exact], [differences])}
    if variables:
        _, exact = value_and_gradients(
            lambda: ops.sum(ops.square(jvp(fun, primals, tangents)[1])),
            variables,
        )
        _, differences = value_and_gradients(
            lambda: ops.sum(ops.square(_central(fun, primals, tangents))),
            variables,
        )
        errors["gradient"] = _relative(exact, differences)
    return errors


def _leaves(network):
    """The layers of a network that hold no layers, in order."""
    return [
        layer
        for layer in network._flatten_layers(include_self=False)
        if not list(layer._flatten_layers(include_self=False))
        and not isinstance(layer, keras.layers.InputLayer)
    ]


def _faults(network, tolerance):
    """{layer name: errors} of the layers that fail on their own."""
    rng = np.random.default_rng(_SEED)
    faults = {}
    for layer in _leaves(network):
        try:
            spec = layer.input
        except (AttributeError, ValueError):
            continue
        if not hasattr(spec, "shape") or "float" not in str(spec.dtype):
            continue
        shape = [2 if d is None else d for d in spec.shape]
        x, v = (
            ops.convert_to_tensor(rng.standard_normal(shape), dtype=spec.dtype)
            for _ in range(2)
        )
        weigh = ops.convert_to_tensor(
            rng.standard_normal([2, *layer.output.shape[1:]]), dtype=spec.dtype
        )
        # Scaling the input by a variable lets the gradient through the JVP
        # be tested on layers without weights, too.
        scale = keras.Variable(np.ones(shape[-1]), dtype=spec.dtype)
        try:
            errors = _compare(
                lambda x, layer=layer, weigh=weigh, scale=scale: (
                    weigh * layer(x * scale)
                ),
                (x,),
                (v,),
                [scale, *layer.trainable_variables],
            )
        except (NotImplementedError, RuntimeError) as error:
            faults[layer.name] = f"{type(layer).__name__}: {error}"
            continue
        if max(errors.values()) > tolerance:
            faults[layer.name] = f"{type(layer).__name__}: {errors}"
    return faults


@checked(model=given.MODEL, tolerance=POSITIVE)
def check_jvp(
    model: keras.Model, batch: Any, tolerance: float = 0.02
) -> dict[str, float]:
    """Hold an interface's JVP, and the gradient through it, to differences.

    Takes the derivative of u(x_t, t, r) along (v, 1, 0) by JVP and by
    central differences, and the gradient of its square by the trainable
    weights through both. MeanFlow needs the first; LSD, ESD, LMD and EMD
    need the second. Keras's layers pass, and PyTorch's: `kf.ops.jvp` has
    formulas for the kernels that are known to be wrong. This is for the rest:
    custom gradients, operations of your own, stopped gradients.

    Args:
        model: an `Interface`.
        batch: x or (x, condition), a few rows.
        tolerance: largest relative error; differences in float32 have about
            0.001 themselves, also on accelerators, which are kept from
            rounding products here.

    Returns:
        {"jvp": relative error, "gradient": relative error}.

    Raises:
        ValueError: if an error is above the tolerance or a layer has no
            forward derivative; the message names the layers at fault. Or if
            layers compute in half precision, which differences drown in:
            check the same network in float32.
    """
    x, condition, _ = model.unpack(batch)
    given.rows("batch", x)
    contract.check_data(x, model.data_shape)
    model.complete(x, condition)
    x = ops.convert_to_tensor(x, dtype=float_dtype())
    rng = np.random.default_rng(_SEED)
    n = ops.convert_to_tensor(rng.standard_normal(x.shape), dtype=x.dtype)
    path = model.interpolant
    # Away from the ends, where the differences would leave the time range.
    level = rng.uniform(0.3, 0.8, x.shape[0])
    t, r = (
        ops.convert_to_tensor(path.time_of_level(share * level), dtype=x.dtype)
        for share in (1.0, 0.4)
    )
    x_t, v = path.interpolate(x, n, t), path.velocity(x, n, t)
    layers = _leaves(model.network)
    half = [v.name for v in layers if "16" in str(v.compute_dtype)]
    if half:
        raise ValueError(
            "`check_jvp` compares with differences, which half precision "
            f"drowns: layers {half} compute in it. Build the network with "
            "dtype='float32' for the check; the derivatives are the same."
        )
    try:
        errors = _compare(
            lambda x_t, t: model.net(x_t, t, r, condition=condition),
            (x_t, t),
            (v, bcast_right(ops.ones_like(t), t)),
            model.network.trainable_variables,
        )
    except (NotImplementedError, RuntimeError) as error:
        raise ValueError(
            f"The network has no forward derivative: {error}. Layers at "
            f"fault: {_faults(model.network, tolerance) or 'not found'}. Use "
            "`derivative='finite_difference'`."
        ) from error
    if max(errors.values()) > tolerance:
        raise ValueError(
            f"The network's derivatives are wrong: relative errors {errors}, "
            f"above {tolerance}. Layers at fault: "
            f"{_faults(model.network, tolerance) or 'not found'}. "
            "Replace them or use `derivative='finite_difference'`."
        )
    return errors
