"""The probability flow solved to a tolerance, and likelihoods along it."""

import dataclasses
import math

import numpy as np
from keras import ops
from keras import tree

from keras_flows.ops import compiled
from keras_flows.ops import eager_float64
from keras_flows.ops import float_dtype
from keras_flows.ops import jvp
from keras_flows.ops import register
from keras_flows.ops import sum_flat
from keras_flows.samplers.base import Sampler
from keras_flows.samplers.base import batch_of
from keras_flows.samplers.ddpm import DDIM
from keras_flows.samplers.guidance import Predictor

# Where a path is regular up to its data end, a velocity made from predicted
# data is not: the solve stops at this noise fraction.
_EDGE = 1e-5


@register
@dataclasses.dataclass(frozen=True)
class DormandPrince(Sampler):
    """dx/dt = v(x, t) by the Dormand-Prince 5(4) pair of SciPy.

    The steps are the controller's; `num_steps` has no effect. One error is
    estimated for the whole batch. The solve ends at `t_last`, or, where that
    is `t_data`, at a noise fraction of 1e-5, and one step of DDIM follows.
    It cannot be exported, since its steps depend on the data.

    Args:
        rtol: relative tolerance; float32 networks leave about 1e-6.
        atol: absolute tolerance.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    order = 5
    adaptive = True

    def __post_init__(self):
        for name in ("rtol", "atol"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"`{name}` must be positive. "
                    f"Received: {getattr(self, name)!r}."
                )

    def advance(self, model, x, t, r, noise, state, left):
        """The velocity at t, or the last step, which is DDIM's."""
        if left:
            return model.pred(x, t), state
        return DDIM().step(model, x, t, r, None, True), state

    def walk(self, advance, interpolant, x, noises, num_steps, progress=None):
        self.times(interpolant, num_steps)
        shape, dtype = x.shape, x.dtype

        def velocity(t, y):
            y = ops.convert_to_tensor(y.reshape(shape), dtype=dtype)
            v, _ = advance(y, t, t, None, (), 1)
            return _flat(v)

        end = nearest_to_data(interpolant)
        y = self.solve(velocity, (interpolant.t_noise, end), _flat(x))
        y = ops.convert_to_tensor(y.reshape(shape), dtype=dtype)
        x, _ = advance(y, end, interpolant.t_data, None, (), 0)
        for _ in range(num_steps if progress is not None else 0):
            progress()
        return x

    def solve(self, velocity, times, y):
        """y at times[1] from y (N,) at times[0], in NumPy float64."""
        try:
            from scipy.integrate import solve_ivp
        except ImportError as error:
            raise ImportError(
                "Adaptive solves and likelihoods need SciPy: pip install scipy."
            ) from error
        found = solve_ivp(
            velocity, times, y, method="RK45", rtol=self.rtol, atol=self.atol
        )
        if not found.success:
            raise RuntimeError(
                f"The adaptive solve stopped at t={found.t[-1]}: "
                f"{found.message} Larger `rtol` and `atol` may do."
            )
        return found.y[:, -1]


def nearest_to_data(path):
    """The last time of a solve whose velocity may be singular at the end."""
    if path.t_last != path.t_data:
        return path.t_last
    return path.time_from_fraction(_EDGE)


def log_likelihood(
    model,
    x,
    condition=None,
    *,
    trace="hutchinson",
    probes=1,
    seed=None,
    sampler="dormand_prince",
    bits_per_dim=False,
    use_ema=True,
):
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
    if trace not in ("exact", "hutchinson"):
        raise ValueError(
            f"`trace` must be 'exact' or 'hutchinson'. Received: {trace!r}."
        )
    if isinstance(probes, bool) or not isinstance(probes, int) or probes < 1:
        raise ValueError(
            f"`probes` must be an int of at least 1. Received: {probes!r}."
        )
    x = np.asarray(ops.convert_to_numpy(x), dtype="float64")
    if x.ndim < 2 or x.size == 0:
        raise ValueError(
            "`x` must hold at least one example, (B, ...). Received shape "
            f"{x.shape}."
        )
    path, rows, dim = model.interpolant, len(x), x[0].size
    directions = _directions(trace, probes, seed, x.shape)
    # A mean over probes, a sum over axes.
    share = 1.0 / probes if trace == "hutchinson" else 1.0
    field = _field(model, model.inference_network(use_ema))
    inputs = {"directions": ops.convert_to_tensor(directions)}
    if condition is not None:
        inputs["condition"] = tree.map_structure(
            ops.convert_to_tensor, condition
        )

    def derivative(t, y):
        x_t = y[: rows * dim].reshape(x.shape).astype(float_dtype())
        v, divergence = field(x_t, np.asarray(t, float_dtype()), inputs)
        return np.concatenate([_flat(v), share * _flat(divergence)])

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
        bound = Predictor(model, network, condition)
        xs = repeated(x)
        e = ops.reshape(directions, xs.shape)
        v, change = jvp(lambda y: bound.pred(y, batch_of(t, y)), (xs,), (e,))
        products = ops.reshape(sum_flat(e * change), (count, -1))
        return v[: x.shape[0]], ops.sum(products, axis=0)

    # Kept beside the compiled steps of `generate`.
    key = ("divergence", id(network))
    if key not in model._steps:
        model._steps[key] = compiled(run, model.variables)
    return model._steps[key]


def _flat(x):
    return np.asarray(ops.convert_to_numpy(x), dtype="float64").ravel()
