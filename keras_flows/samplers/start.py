"""Where sampling starts, other than at noise: a state, or the data."""

import dataclasses

import numpy as np
from keras import ops

from keras_flows.interpolants import DiscreteVariancePreserving
from keras_flows.networks import contract
from keras_flows.ops import eager_float64
from keras_flows.ops import float_dtype
from keras_flows.samplers.adaptive import nearest_to_data

# A level below which there is no way left to go.
_LEAST = 1e-3


def checked_start(model, start, noise):
    """(x, t) of `generate(start=...)`, or (None, None).

    Args:
        model: see `make_request`.
        start: None, or x (B, ...) and a time t of the path, one number.
        noise: what was given beside it.

    Raises:
        ValueError: if it is no state of the path; the message says why.
    """
    if start is None:
        return None, None
    if not isinstance(start, (tuple, list)) or len(start) != 2:
        raise ValueError(
            "`start` must be (x, t), a state (B, ...) and its time. "
            f"Received: {type(start).__name__}."
        )
    if noise is not None:
        raise ValueError(
            "`start` takes the place of `noise`: pass one of them."
        )
    x, t = start
    contract.check_data(x, model.data_shape, "start")
    path = model.interpolant
    try:
        times = np.unique(np.asarray(ops.convert_to_numpy(t), "float64"))
    except (TypeError, ValueError):
        times = np.empty(0)
    if times.size != 1 or not np.isfinite(times[0]):
        raise ValueError(
            "The time of `start` must be one number, the same for all "
            f"examples. Received: {t!r}."
        )
    t = float(times[0])
    inside = path.toward_data(path.t_noise, t) and path.level(t) > _LEAST
    if not inside and not np.isclose(t, path.t_noise, rtol=1e-6):
        raise ValueError(
            f"The time of `start` must lie on the path, from {path.t_noise} "
            f"(noise) to before {path.t_last} (data). Received: {t}."
        )
    if isinstance(path, DiscreteVariancePreserving):
        step = round(t * path.num_timesteps)
        if abs(t * path.num_timesteps - step) > 1e-3:
            raise ValueError(
                "The time of `start` must be a timestep, k / "
                f"{path.num_timesteps}. Received: {t}."
            )
        t = step / path.num_timesteps
    return ops.convert_to_tensor(x, dtype=float_dtype()), t


def inverse(request, model):
    """The request that walks a request's times from its `noise`, as data.

    It starts where networks are called last, from the mean of x_t there.

    Args:
        request: a `Request` whose `noise` is data.
        model: see `make_request`.

    Raises:
        ValueError: if the sampler only leads to the data.
    """
    sampler, path = request.sampler, model.interpolant
    if not sampler.reversible:
        raise ValueError(
            "`sampler` of `encode` must be reversible: 'heun', 'euler', "
            f"'ddim' or 'dormand_prince'. Received: {sampler}."
        )
    times = request.times
    if not path.gaussian:
        return _walked(request, times[::-1], request.noise)
    near = nearest_to_data(path)
    kept = times[path.toward_data(times, near) & (times != near)]
    if not len(kept) or (path.t_last != path.t_data and request.num_steps < 2):
        raise ValueError(
            "`num_steps` of `encode` must be at least 2. "
            f"Received: {request.num_steps}."
        )
    with eager_float64() as number:
        alpha, sigma = (
            float(number(f, near)) for f in (path.alpha, path.sigma)
        )
    x = alpha * ops.convert_to_tensor(request.noise, dtype=float_dtype())
    return _walked(request, np.append(kept, near)[::-1], x + sigma * model.n_mu)


def _walked(request, times, state):
    return dataclasses.replace(
        request, times=times, state=state, noise=None, inverse=True
    )
