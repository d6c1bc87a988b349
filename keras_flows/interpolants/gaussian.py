"""The interpolants of the literature, one class each."""

import dataclasses
import math

from keras import ops

from keras_flows.interpolants.base import Interpolant
from keras_flows.ops import given
from keras_flows.ops import register
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import REAL
from keras_flows.ops.scalars import checked

# The exponent of EDM's noise levels.
_RHO = 7.0


class _EitherEnd(Interpolant):
    """An interpolant on [0, 1], in either direction; f is the noise level."""

    def __post_init__(self):
        if self.noise_at not in (0, 1):
            raise ValueError(
                "`noise_at` is the time of pure noise, 0.0 or 1.0. "
                f"Received: {self.noise_at!r}."
            )

    @property
    def t_noise(self):
        return float(self.noise_at)

    @property
    def t_data(self):
        return 1.0 - self.noise_at

    @property
    def _sign(self):
        """df/dt."""
        return 1.0 if self.noise_at else -1.0

    def _fraction(self, t):
        """f(t), and t(f)."""
        return t if self.noise_at else 1.0 - t


@register
@checked(noise_at=REAL)
@dataclasses.dataclass(frozen=True)
class Linear(_EitherEnd):
    """x_t = (1 - f) x + f n, f = t (noise_at=1) or f = 1 - t (noise_at=0).

    `noise_at=1` is the direction of SiT, REPA and MeanFlow, where v = n - x;
    `noise_at=0` that of flow maps and robot policies, where v = x - n.
    Source: arXiv 2209.03003, 2210.02747.

    Args:
        noise_at: 1.0 or 0.0, the time at which x_t is noise.
    """

    noise_at: float = 1.0

    def alpha(self, t):
        return 1.0 - self._fraction(t)

    def sigma(self, t):
        return self._fraction(t)

    def alpha_dot(self, t):
        return -self._sign * ops.ones_like(t)

    def sigma_dot(self, t):
        return self._sign * ops.ones_like(t)

    def time_from_ratio(self, ratio):
        return self._fraction(ratio / (1.0 + ratio))


@register
@checked(noise_at=REAL)
@dataclasses.dataclass(frozen=True)
class Trigonometric(_EitherEnd):
    """x_t = cos(pi f / 2) x + sin(pi f / 2) n; f as in `Linear`.

    Also called GVP, variance preserving for data of unit variance.
    Source: arXiv 2209.15571.

    Args:
        noise_at: 1.0 or 0.0, the time at which x_t is noise.
    """

    noise_at: float = 1.0

    def _angle(self, t):
        return 0.5 * math.pi * self._fraction(t)

    def alpha(self, t):
        return ops.cos(self._angle(t))

    def sigma(self, t):
        return ops.sin(self._angle(t))

    def alpha_dot(self, t):
        return -0.5 * math.pi * self._sign * ops.sin(self._angle(t))

    def sigma_dot(self, t):
        return 0.5 * math.pi * self._sign * ops.cos(self._angle(t))

    def time_from_ratio(self, ratio):
        return self._fraction(2.0 / math.pi * ops.arctan(ratio))


@register
@checked(sigma_min=POSITIVE, sigma_max=POSITIVE)
@dataclasses.dataclass(frozen=True)
class VarianceExploding(Interpolant):
    """x_t = x + t n: time is sigma, t in [sigma_min, sigma_max].

    Noise levels are even in sigma^(1/7), as EDM's grid is:
    sigma(l) = (a + l (b - a))^7 with a, b = sigma_min, sigma_max to the
    power 1/7. Linear in sigma, 98 % of them would have more noise than any
    detail of data of standard deviation 0.5 survives (sigma > 1.6). The
    sampling grid runs from sigma_max to sigma_min and then to 0. Source:
    EDM, arXiv 2206.00364.

    Args:
        sigma_min: smallest sigma at which the network is called.
        sigma_max: sigma at which sampling starts.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self):
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                "`sigma_min` and `sigma_max` must satisfy 0 < sigma_min < "
                f"sigma_max. Received: sigma_min={self.sigma_min}, "
                f"sigma_max={self.sigma_max}."
            )

    @property
    def t_noise(self):
        return self.sigma_max

    @property
    def t_last(self):
        return self.sigma_min

    t_data = 0.0
    log_snr_grid = "log_snr"

    def alpha(self, t):
        return ops.ones_like(t)

    def sigma(self, t):
        return t

    def alpha_dot(self, t):
        return ops.zeros_like(t)

    def sigma_dot(self, t):
        return ops.ones_like(t)

    def time_from_ratio(self, ratio):
        return ratio

    @property
    def _roots(self):
        low = self.sigma_min ** (1.0 / _RHO)
        return low, self.sigma_max ** (1.0 / _RHO) - low

    def _level(self, t):
        low, span = self._roots
        return (t ** (1.0 / _RHO) - low) / span

    def _time(self, level):
        low, span = self._roots
        return (low + level * span) ** _RHO

    def _level_dot(self, t):
        _, span = self._roots
        return t ** (1.0 / _RHO - 1.0) / (_RHO * span)


@register
@checked(beta_min=POSITIVE, beta_max=POSITIVE, s=POSITIVE)
@dataclasses.dataclass(frozen=True)
class VariancePreserving(Interpolant):
    """x_t = sqrt(abar(t)) x + sqrt(1 - abar(t)) n, noise at t = 1.

    `schedule="linear"`: abar = exp(-beta_min t - (beta_max - beta_min) t^2/2)
    (arXiv 2011.13456). `schedule="cosine"`: abar = f(t) / f(0) with
    f(t) = cos^2(pi/2 (t + s) / (1 + s)) (arXiv 2102.09672); it starts at
    t = 0.9946, where the signal is not yet lost in float32. sigma' is
    infinite at t = 0, so networks are called down to `t_last` = 1e-3 only.

    Args:
        schedule: "linear" or "cosine".
        beta_min: noise rate at t = 0 (linear).
        beta_max: noise rate at t = 1 (linear).
        s: offset of the cosine schedule.
    """

    schedule: str = "linear"
    beta_min: float = 0.1
    beta_max: float = 20.0
    s: float = 0.008

    t_data = 0.0
    t_last = 1e-3
    log_snr_grid = "log_snr"

    def __post_init__(self):
        given.choice("schedule", self.schedule, ("linear", "cosine"))
        if self.beta_min > self.beta_max:
            raise ValueError(
                "`beta_min` must not be above `beta_max`. Received: beta_min="
                f"{self.beta_min!r}, beta_max={self.beta_max!r}."
            )

    @property
    def t_noise(self):
        return 1.0 if self.schedule == "linear" else 0.9946

    def _log_alpha(self, t):
        """log alpha and its derivative."""
        if self.schedule == "linear":
            slope = self.beta_max - self.beta_min
            return (
                -0.25 * slope * t**2 - 0.5 * self.beta_min * t,
                -0.5 * slope * t - 0.5 * self.beta_min,
            )
        rate = 0.5 * math.pi / (1 + self.s)
        start = math.log(math.cos(rate * self.s))
        angle = rate * (t + self.s)
        return ops.log(ops.cos(angle)) - start, -rate * ops.tan(angle)

    def alpha(self, t):
        return ops.exp(self._log_alpha(t)[0])

    def sigma(self, t):
        # Both forms keep the digits that 1 - alpha^2 loses near the data.
        if self.schedule == "linear":
            return ops.sqrt(-ops.expm1(2.0 * self._log_alpha(t)[0]))
        rate = 0.5 * math.pi / (1 + self.s)
        product = ops.sin(rate * t) * ops.sin(rate * (t + 2 * self.s))
        return ops.sqrt(product) / math.cos(rate * self.s)

    def alpha_dot(self, t):
        log_alpha, slope = self._log_alpha(t)
        return ops.exp(log_alpha) * slope

    def sigma_dot(self, t):
        log_alpha, slope = self._log_alpha(t)
        return -ops.exp(2.0 * log_alpha) * slope / self.sigma(t)

    def time_from_ratio(self, ratio):
        # alpha^2 = 1 / (1 + ratio^2)
        log_alpha = -0.5 * ops.log1p(ratio**2)
        if self.schedule == "linear":
            slope = self.beta_max - self.beta_min
            root = ops.sqrt(self.beta_min**2 - 4.0 * slope * log_alpha)
            # As (root - beta_min) / slope, also of a slope of 0.
            return -4.0 * log_alpha / (root + self.beta_min)
        rate = 0.5 * math.pi / (1 + self.s)
        start = math.log(math.cos(rate * self.s))
        return ops.arccos(ops.exp(log_alpha + start)) / rate - self.s


@register
@checked(sigma_d=POSITIVE)
@dataclasses.dataclass(frozen=True)
class TrigFlow(Interpolant):
    """x_t = cos(t) x + sigma_d sin(t) n, t in [0, pi/2], noise at pi/2.

    Source: sCM, arXiv 2410.11081, whose z is our sigma_d n.

    Args:
        sigma_d: standard deviation of the data.
    """

    sigma_d: float = 0.5

    t_noise = 0.5 * math.pi
    t_data = 0.0

    def __post_init__(self):
        if self.sigma_d <= 0:
            raise ValueError(
                f"`sigma_d` must be positive. Received: {self.sigma_d}."
            )

    def alpha(self, t):
        return ops.cos(t)

    def sigma(self, t):
        return self.sigma_d * ops.sin(t)

    def alpha_dot(self, t):
        return -ops.sin(t)

    def sigma_dot(self, t):
        return self.sigma_d * ops.cos(t)

    def time_from_ratio(self, ratio):
        return ops.arctan(ratio / self.sigma_d)
