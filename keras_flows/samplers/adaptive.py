"""The probability flow solved to a tolerance."""

import dataclasses

import numpy as np
from keras import ops

from keras_flows.ops import bcast_right
from keras_flows.ops import register
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import checked
from keras_flows.samplers.base import Sampler
from keras_flows.samplers.base import on_step
from keras_flows.samplers.ddpm import DDIM

# Where a path is regular up to its data end, a velocity made from predicted
# data is not: the solve stops at this level of noise.
_EDGE = 1e-5


@register
@checked(rtol=POSITIVE, atol=POSITIVE)
@dataclasses.dataclass(frozen=True)
class DormandPrince(Sampler):
    """dx/dt = v(x, t) by the Dormand-Prince 5(4) pair of SciPy.

    The steps are the controller's; `num_steps` has no effect. One error is
    estimated for the whole batch, so that a sample depends, within the
    tolerance, on those that are sampled with it. The solve ends at `t_last`,
    or, where that is `t_data`, at a level of 1e-5, and a step of DDIM follows.
    It cannot be exported, since its steps depend on the data.

    Args:
        rtol: relative tolerance; float32 networks leave about 1e-6.
        atol: absolute tolerance.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    order = 5
    adaptive = True
    reversible = True

    def __post_init__(self):
        for name in ("rtol", "atol"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"`{name}` must be positive. "
                    f"Received: {getattr(self, name)!r}."
                )

    def advance(self, model, x, t, r, noise, state, left):
        """The velocity at t, or the last step.

        That is DDIM's where the model predicts the data, else Euler's.
        """
        x, t, r, noise = on_step(x, t, r, noise)
        if left:
            return model.pred(x, t), state
        if "data" in model.provides:
            return DDIM().step(model, x, t, r, None, True), state
        return x + bcast_right(r - t, x) * model.pred(x, t), state

    def solve_path(self, move, path, x, start, inverse=False):
        """x at `t_data` from x at the time `start`.

        Args:
            move: function (x, t, r, left) to what `advance` gives of it.
            path: the `Interpolant`.
            x: (B, ...).
            start: a number.
            inverse: whether to go to `t_noise` instead.
        """
        shape, dtype = x.shape, x.dtype

        def tensor(y):
            return ops.convert_to_tensor(y.reshape(shape), dtype=dtype)

        def velocity(t, y):
            return flat(move(tensor(y), t, t, 1))

        end = path.t_noise if inverse else nearest_to_data(path)
        y = self.solve(velocity, (start, end), flat(x))
        return tensor(y) if inverse else move(tensor(y), end, path.t_data, 0)

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
    return float(path.time_of_level(_EDGE))


def flat(x):
    """A tensor's elements as float64 NumPy numbers, (N,)."""
    return np.asarray(ops.convert_to_numpy(x), dtype="float64").ravel()
