"""Likelihoods along the probability flow."""

from __future__ import annotations

import math
import typing

import numpy as np
from keras import ops
from keras import tree

from keras_flows.networks import labels_of
from keras_flows.networks.labels import check_labels
from keras_flows.ops import eager_float64
from keras_flows.ops import float_dtype
from keras_flows.ops import given
from keras_flows.ops import jvp
from keras_flows.ops import sum_flat
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import SEED
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked
from keras_flows.samplers.adaptive import DormandPrince
from keras_flows.samplers.adaptive import flat
from keras_flows.samplers.adaptive import nearest_to_data
from keras_flows.samplers.base import batch_of
from keras_flows.samplers.loop import Reads

if typing.TYPE_CHECKING:
    from typing import Any

    import keras

    from keras_flows.ops.types import ArrayLike
    from keras_flows.ops.types import Tree
    from keras_flows.samplers.base import Sampler


@checked(
    model=given.MODEL, probes=SIZE, seed=SEED, bits_per_dim=FLAG, use_ema=FLAG
)
def log_likelihood(
    model: keras.Model,
    x: ArrayLike,
    condition: Tree | None = None,
    *,
    trace: str = "hutchinson",
    probes: int = 1,
    seed: int | None = None,
    sampler: str | Sampler | None = "dormand_prince",
    bits_per_dim: bool = False,
    use_ema: bool = True,
) -> Any:
    """log p(x) of data under a model's probability flow.

    The flow carries x to noise y, and with d log p(x_t)/dt = -div v along it

        log p(x) = log N(y) + int_{t_data}^{t_noise} div v(x_t, t) dt,

    N the law that sampling starts from. Solved adaptively from the mean of
    x_t at the time nearest to the data. Sources: arXiv 1806.07366,
    1810.01367, 2011.13456.

    Args:
        model: an `Interface`.
        x: data, (B, ...); dequantised if it was discrete.
        condition: one row per example, or None.
        trace: "exact" for the whole trace of the Jacobian, as many JVPs as x
            has elements, in one batch; "hutchinson" for its unbiased
            estimate from random signs e, the mean of e . (dv/dx) e.
        probes: how many e per example for "hutchinson".
        seed: int or None, of the signs, which stay the same along the flow.
        sampler: "dormand_prince", or a `DormandPrince` with its tolerances.
        bits_per_dim: whether to return -log2 p(x) / elements.
        use_ema: whether to use the first EMA's weights.

    Returns:
        (B,): nats, or bits per element.

    Raises:
        ValueError: if an argument does not fit; the message says how.
    """
    sampler = _solver(sampler)
    given.choice("trace", trace, ("exact", "hutchinson"))
    x = given.plain_array("x", x).astype("float64")
    if x.ndim < 2 or x.size == 0:
        raise ValueError(
            "`x` must hold at least one example, (B, ...). Received shape "
            f"{x.shape}."
        )
    if not {"velocity", "data"} <= model.provides:
        raise ValueError(
            "`model` must predict the velocity of a path from Gaussian noise, "
            f"whose density is known; {type(model).__name__} gives "
            f"{sorted(model.provides)}."
        )
    path, rows, dim = model.interpolant, len(x), x[0].size
    directions = _directions(trace, probes, seed, x.shape)
    # A mean over probes, a sum over axes.
    share = 1.0 / probes if trace == "hutchinson" else 1.0
    field = model.loop.function(
        "divergence",
        lambda: _field(model, model.inference_network(use_ema)),
        Reads(model.sampling_layers(use_ema)),
    )
    inputs = {"directions": ops.convert_to_tensor(directions)}
    labels = labels_of(model.network, model.null_label)
    condition = check_labels(labels, condition)
    if condition is not None:
        inputs["condition"] = tree.map_structure(
            ops.convert_to_tensor, condition
        )

    def derivative(t, y):
        x_t = ops.convert_to_tensor(
            y[: rows * dim].reshape(x.shape), dtype=float_dtype()
        )
        v, divergence = field(x_t, np.asarray(t, float_dtype()), inputs)
        return np.concatenate([flat(v), share * flat(divergence)])

    start, end = nearest_to_data(path), path.t_noise
    with eager_float64() as number:
        alpha, sigma, most = (
            float(number(f, t))
            for f, t in (
                (path.alpha, start), (path.sigma, start), (path.sigma, end),
            )
        )  # fmt: skip
    x = alpha * x + sigma * model.n_mu
    y = sampler.solve(
        derivative, (start, end), np.append(x.ravel(), np.zeros(rows))
    )
    std = most * model.n_sigma
    z = (y[: rows * dim].reshape(rows, dim) - most * model.n_mu) / std
    prior = -0.5 * np.sum(z**2, 1) - dim * (
        math.log(std) + 0.5 * math.log(2.0 * math.pi)
    )
    # p(x) dx = p_t(alpha x) d(alpha x)
    found = prior + y[rows * dim :] + dim * math.log(alpha)
    if bits_per_dim:
        found = -found / (dim * math.log(2.0))
    return ops.convert_to_tensor(found, dtype=float_dtype())


def _solver(sampler):
    from keras_flows.samplers import get

    sampler = get(sampler)
    if sampler.stochastic:
        raise ValueError(
            "`sampler` draws noise: a likelihood is that of the probability "
            "flow, which has none. Take 'dormand_prince'. "
            f"Received: {sampler}."
        )
    if not isinstance(sampler, DormandPrince):
        raise ValueError(
            "`sampler` must be a DormandPrince, which solves the flow and "
            f"its divergence to a tolerance. Received: {sampler}."
        )
    return sampler


def _directions(trace, probes, seed, shape):
    """(count, B, ...): all unit vectors, or random signs."""
    if trace == "exact":
        dim = math.prod(shape[1:])
        basis = np.eye(dim).reshape(dim, 1, *shape[1:])
        directions = np.broadcast_to(basis, (dim, *shape))
    else:
        rng = np.random.Generator(np.random.Philox(seed))
        directions = 2.0 * rng.integers(0, 2, (probes, *shape)) - 1.0
    return directions.astype(float_dtype())


def _field(model, network):
    """(x, t, inputs) -> (velocity, sum of e . (dv/dx) e over directions)."""

    def run(x, t, inputs):
        directions = inputs["directions"]
        count = directions.shape[0]

        def repeated(a):
            return ops.concatenate([a] * count)

        condition = inputs.get("condition")
        if condition is not None:
            condition = tree.map_structure(repeated, condition)
        bound = model.bind(network, condition)
        xs = repeated(x)
        e = ops.reshape(directions, xs.shape)
        v, change = jvp(lambda y: bound.pred(y, batch_of(t, y)), (xs,), (e,))
        products = ops.reshape(sum_flat(e * change), (count, -1))
        return v[: x.shape[0]], ops.sum(products, axis=0)

    return run
