"""The data of the matrix, its paths and their closed forms, in NumPy."""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np
import oracle
from keras import ops

import keras_flows as kf

# Of the data under label 0, and under the null label, 1.
MEAN, STD, NULL_MEAN = (0.3, -0.2), (0.5, 0.4), (0.1, 0.1)
NULL_LABEL = 1
# What a bridge comes from.
START_MEAN, START_STD = (-0.5, 0.4), (0.8, 1.2)


def guided_mean(scale):
    """Guidance of scale w is the flow to data of the mean m0 + w (m - m0)."""
    mean, null = np.array(MEAN), np.array(NULL_MEAN)
    return null + scale * (mean - null)


@dataclasses.dataclass(frozen=True)
class Chain(oracle.Path):
    """DDPM's chain: log alpha linear between the timesteps (k + 1) / T."""

    schedule: str = "linear"
    count: int = 1000

    @functools.cached_property
    def _logs(self):
        if self.schedule == "linear":
            betas = np.linspace(1e-4, 0.02, self.count)
        else:
            angle = (np.arange(self.count + 1) / self.count + 0.008) / 1.008
            abar = np.cos(0.5 * math.pi * angle) ** 2
            betas = np.minimum(1.0 - abar[1:] / abar[:-1], 0.999)
        return 0.5 * np.append(0.0, np.cumsum(np.log1p(-betas)))

    def _interval(self, t, xp):
        """(index of the interval's start, share of it, the table)."""
        k = self.count * t
        start = xp.clip(xp.ceil(k - 1e-3) - 1.0, 0.0, self.count - 1.0)
        table = self._logs
        if xp is ops:
            table = ops.convert_to_tensor(table, dtype="float32")
        index = start.astype(int) if xp is np else ops.cast(start, "int32")
        return index, k - start, table

    def _log(self, t, xp):
        index, share, table = self._interval(t, xp)
        low, high = xp.take(table, index), xp.take(table, index + 1)
        return (1.0 - share) * low + share * high

    def alpha(self, t, xp=np):
        return xp.exp(self._log(t, xp))

    def sigma(self, t, xp=np):
        return xp.sqrt(-xp.expm1(2.0 * self._log(t, xp)))

    def _rates(self, t, xp):
        index, _, table = self._interval(t, xp)
        rate = xp.take(table, index + 1) - xp.take(table, index)
        alpha, sigma = self.alpha(t, xp), self.sigma(t, xp)
        alpha_dot = self.count * rate * alpha
        return alpha_dot, -alpha * alpha_dot / sigma

    def alpha_dot(self, t):
        return self._rates(t, np)[0]

    def sigma_dot(self, t):
        return self._rates(t, np)[1]

    def slopes(self, t, r):
        """At r = t only."""
        return self._rates(t, ops)


@dataclasses.dataclass(frozen=True)
class OnPath:
    """A path of the library beside its closed form.

    Args:
        make: returns the library's interpolant.
        path: the `oracle.Path`.
        t_noise, t_last, t_data: where sampling starts, the time next to the
            data at which networks are trained, and the data end.
        chain: number of timesteps, where only those are trained.
    """

    make: Callable
    path: oracle.Path
    t_noise: float
    t_last: float
    t_data: float
    chain: int | None = None

    def levels(self, count):
        """The times of the levels 1, (count - 1) / count, ... 0."""
        level = np.linspace(1.0, 0.0, count + 1)
        if isinstance(self.path, oracle.VarianceExploding):
            low, high = self.t_last ** (1 / 7), self.t_noise ** (1 / 7)
            return (low + level * (high - low)) ** 7
        return self.t_last + level * (self.t_noise - self.t_last)

    @property
    def end_ratio(self):
        """sigma / alpha at `t_last`: what every model leaves of the noise."""
        t = np.asarray(self.t_last, "float64")
        return float(self.path.sigma(t) / self.path.alpha(t))


def _interpolant(name, **arguments):
    return lambda: getattr(kf.interpolants, name)(**arguments)


PATHS = {
    "linear1": OnPath(
        _interpolant("Linear", noise_at=1.0), oracle.Linear(1), 1, 0, 0
    ),
    "linear0": OnPath(
        _interpolant("Linear", noise_at=0.0), oracle.Linear(0), 0, 1, 1
    ),
    "trig1": OnPath(
        _interpolant("Trigonometric", noise_at=1.0),
        oracle.Trigonometric(1), 1, 0, 0,
    ),
    "trig0": OnPath(
        _interpolant("Trigonometric", noise_at=0.0),
        oracle.Trigonometric(0), 0, 1, 1,
    ),
    "vp": OnPath(
        _interpolant("VariancePreserving", schedule="linear"),
        oracle.VPLinear(), 1, 1e-3, 0,
    ),
    "vp_cosine": OnPath(
        _interpolant("VariancePreserving", schedule="cosine"),
        oracle.VPCosine(), 0.9946, 1e-3, 0,
    ),
    "ve": OnPath(
        _interpolant("VarianceExploding"),
        oracle.VarianceExploding(), 80, 0.002, 0,
    ),
    "trigflow": OnPath(
        _interpolant("TrigFlow", sigma_d=0.5),
        oracle.TrigFlow(0.5), 0.5 * math.pi, 0, 0,
    ),
    "chain": OnPath(
        _interpolant("DiscreteVariancePreserving"),
        Chain(), 1, 1e-3, 0, chain=1000,
    ),
    "chain_cosine": OnPath(
        _interpolant("DiscreteVariancePreserving", schedule="cosine"),
        Chain("cosine"), 1, 1e-3, 0, chain=1000,
    ),
}  # fmt: skip


def closed(path, mean=MEAN, noise=(0.0, 1.0)):
    """The `oracle.Oracle` of the data on a path."""
    return oracle.Oracle(PATHS[path].path, tuple(mean), STD, *noise)


def even_noise(rows, seed=0):
    """(rows, 2) of mean exactly 0 and deviation exactly 1: normal quantiles.

    A deterministic sampler is affine in it, so that there is no sampling
    error in the moments of what it makes.
    """
    from statistics import NormalDist

    z = np.array([NormalDist().inv_cdf((i + 0.5) / rows) for i in range(rows)])
    z = (z - z.mean()) / z.std()
    other = np.random.default_rng(seed).permutation(z)
    return np.stack([z, other], axis=1).astype("float32")
