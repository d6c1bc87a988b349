"""DDPM's discrete chain as an interpolant (arXiv 2006.11239, 2102.09672)."""

import dataclasses
import functools
import math

import numpy as np
from keras import ops

from keras_flows.interpolants.base import Interpolant
from keras_flows.ops import given
from keras_flows.ops import register
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Optional
from keras_flows.ops.scalars import checked


def _betas(schedule, num_timesteps):
    """The noise rates of a named schedule, float64."""
    scale = 1000.0 / num_timesteps
    if schedule == "linear":
        return np.linspace(scale * 1e-4, scale * 0.02, num_timesteps)
    if schedule == "scaled_linear":
        ends = math.sqrt(scale * 0.00085), math.sqrt(scale * 0.012)
        return np.linspace(*ends, num_timesteps) ** 2
    if schedule == "cosine":
        angle = (np.arange(num_timesteps + 1) / num_timesteps + 0.008) / 1.008
        abar = np.cos(0.5 * math.pi * angle) ** 2
        return np.minimum(1.0 - abar[1:] / abar[:-1], 0.999)
    raise ValueError(
        "`schedule` must be 'linear', 'cosine', 'scaled_linear' or a sequence "
        f"of betas. Received: {schedule!r}."
    )


def _without_signal(betas):
    """Betas whose last timestep is noise: sqrt(abar) moved and scaled so that
    the first stays and the last is 0; it is held at 2^-12, or half the one
    before it, so that sigma / alpha is finite.
    """
    root = np.sqrt(np.cumprod(1.0 - betas))
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    root[-1] = min(2.0**-12, 0.5 * root[-2])
    abar = root**2
    return 1.0 - abar / np.append(1.0, abar[:-1])


@register
@checked(num_timesteps=Optional(SIZE), zero_terminal_snr=FLAG)
@dataclasses.dataclass(frozen=True)
class DiscreteVariancePreserving(Interpolant):
    """x_t = sqrt(abar_k) x + sqrt(1 - abar_k) n at the timesteps k < T.

    abar_k = prod_{i <= k} (1 - beta_i), and timestep k is the time
    t = (k + 1) / T, so that t = 0 is data and t = 1 noise. Between two
    timesteps log abar is linear: beta is constant there. Sampling starts
    from N(0, 1), as DDPM's prior is, not from sigma(1) n. The noise level is
    t itself, so that i / N is a timestep where N divides T.

    Args:
        schedule: "linear" (arXiv 2006.11239), "cosine" (2102.09672),
            "scaled_linear" (2112.10752), or T betas in (0, 1). The first
            and last scale with 1000 / T.
        num_timesteps: T; by default 1000, or the number of betas.
        zero_terminal_snr: whether the schedule is moved so that nothing of the
            data is left at timestep T - 1 (arXiv 2305.08891); without,
            "scaled_linear" leaves alpha = 0.068 of the mean that sampling from
            N(0, 1) does not start with.
    """

    schedule: str | tuple = "linear"
    num_timesteps: int | None = None
    zero_terminal_snr: bool = False

    t_noise = 1.0
    t_data = 0.0
    _clean = 0.0
    log_snr_grid = "log_snr"

    def __post_init__(self):
        own = not isinstance(self.schedule, str)
        if own:
            betas = given.array("schedule", self.schedule, ndim=1)
            # A tuple can be compared, hashed and saved.
            object.__setattr__(self, "schedule", tuple(betas.tolist()))
        count = len(self.schedule) if own else 1000
        if self.num_timesteps is None:
            object.__setattr__(self, "num_timesteps", count)
        if self.num_timesteps < 2 or (own and self.num_timesteps != count):
            raise ValueError(
                "`num_timesteps` must be at least 2, and the number of betas "
                f"where those are given. Received: {self.num_timesteps!r}"
                + (f" for {count} betas." if own else ".")
            )
        if not np.all((self.betas > 0.0) & (self.betas < 1.0)):
            raise ValueError(
                "The betas of `schedule` must lie between 0 and 1. Received "
                f"values from {self.betas.min():.3g} to "
                f"{self.betas.max():.3g}; take more `num_timesteps` or smaller "
                "betas."
            )

    @property
    def t_last(self):
        return 1.0 / self.num_timesteps

    # DDPM's tables, (T,), float64, by timestep.

    @functools.cached_property
    def betas(self):
        """beta_k."""
        if isinstance(self.schedule, str):
            betas = _betas(self.schedule, self.num_timesteps)
        else:
            betas = np.array(self.schedule)
        return _without_signal(betas) if self.zero_terminal_snr else betas

    @functools.cached_property
    def alphas_cumprod(self):
        """abar_k."""
        return np.cumprod(1.0 - self.betas)

    @functools.cached_property
    def posterior_variance(self):
        """Variance of x_{k-1} given x_k and x; 0 at k = 0."""
        abar = self.alphas_cumprod
        previous = np.append(1.0, abar[:-1])
        return self.betas * (1.0 - previous) / (1.0 - abar)

    @functools.cached_property
    def posterior_log_variance(self):
        """Its logarithm, with the value of k = 1 at k = 0."""
        variance = self.posterior_variance
        return np.log(np.append(variance[1], variance[1:]))

    @functools.cached_property
    def posterior_data_coefficient(self):
        """Coefficient of x in the mean of x_{k-1} given x_k and x."""
        abar = self.alphas_cumprod
        previous = np.append(1.0, abar[:-1])
        return self.betas * np.sqrt(previous) / (1.0 - abar)

    def at_timestep(self, table, t):
        """Values of a table (T,) at the timesteps nearest to t, (B,)."""
        k = ops.cast(ops.round(self.timestep(t)), "int32")
        k = ops.clip(k, 0, self.num_timesteps - 1)
        return ops.take(ops.convert_to_tensor(table, dtype=t.dtype), k, axis=0)

    def timestep(self, t):
        """k = T t - 1 as a float; exactly whole where t is a timestep."""
        k = self.num_timesteps * t - 1.0
        whole = ops.round(k)
        return ops.where(ops.abs(k - whole) < 1e-3, whole, k)

    def timesteps(self, num_steps, shift=1.0):
        """`num_steps` whole timesteps from 0 to T - 1, as evenly as can be.

        Those of guided-diffusion's `space_timesteps`, whose sums are
        followed to the last digit, since some end on a half. One step is
        T - 1. `shift` moves them towards the noise.

        Raises:
            ValueError: if there are fewer timesteps than that.
        """
        last = self.num_timesteps - 1
        stride = last / max(num_steps - 1, 1)
        k = np.cumsum(np.append(0.0, np.full(num_steps - 1, stride)))
        if num_steps == 1:
            k[:] = last
        if shift != 1.0:
            k = shift * k / (1.0 + (shift - 1.0) * k / last)
        k = np.round(k).astype("int64")
        if len(np.unique(k)) < num_steps:
            raise ValueError(
                "`num_steps` must leave a timestep of its own to each step: "
                f"there are {self.num_timesteps} (`num_timesteps`). "
                f"Received: num_steps={num_steps}"
                + (f" with shift={shift}." if shift != 1.0 else ".")
            )
        return k

    def nearest_step(self, t):
        count = self.num_timesteps
        xp = np if isinstance(t, (np.ndarray, float)) else ops
        return xp.round(count * t) / count

    # The interpolant, in continuous time.

    @functools.cached_property
    def _log_alphas(self):
        return 0.5 * np.append(0.0, np.cumsum(np.log1p(-self.betas)))

    def _above(self, t):
        """The index of the interval's end at or after t, and its distance."""
        k = ops.clip(self.timestep(t) + 1.0, 0.0, float(self.num_timesteps))
        above = ops.maximum(ops.ceil(k), 1.0)
        return ops.cast(above, "int32"), above - k

    def _log_alpha(self, t):
        above, distance = self._above(t)
        table = ops.convert_to_tensor(self._log_alphas, dtype=t.dtype)
        low, high = (ops.take(table, i, axis=0) for i in (above - 1, above))
        return distance * low + (1.0 - distance) * high

    def _slope(self, t):
        """d log alpha / dt, at a timestep the one before it."""
        slopes = self.num_timesteps * np.diff(self._log_alphas)
        slopes = ops.convert_to_tensor(slopes, dtype=t.dtype)
        return ops.take(slopes, self._above(t)[0] - 1, axis=0)

    def alpha(self, t):
        return ops.exp(self._log_alpha(t))

    def sigma(self, t):
        return ops.sqrt(-ops.expm1(2.0 * self._log_alpha(t)))

    def alpha_dot(self, t):
        return self.alpha(t) * self._slope(t)

    def sigma_dot(self, t):
        return -ops.square(self.alpha(t)) * self._slope(t) / self.sigma(t)

    def time_from_ratio(self, ratio):
        log_alpha = -0.5 * ops.log1p(ratio**2)
        # Logarithms fall with time; `searchsorted` wants them to rise.
        table = ops.convert_to_tensor(-self._log_alphas, dtype=ratio.dtype)
        above = ops.searchsorted(table, -log_alpha)
        above = ops.clip(above, 1, self.num_timesteps)
        high, low = (ops.take(table, i, axis=0) for i in (above, above - 1))
        share = ops.clip((-log_alpha - low) / (high - low), 0.0, 1.0)
        steps = ops.cast(above - 1, ratio.dtype) + share
        return steps / self.num_timesteps

    def initial(self, noise, t=None):
        """N(0, 1), DDPM's prior."""
        return noise
