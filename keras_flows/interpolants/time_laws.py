"""Training time laws: how often each noise level is seen.

A law draws noise levels, and the interpolant turns them into its own times,
so one law means the same thing in either direction of time.
"""

import dataclasses

import keras
from keras import ops

from keras_flows.ops import Config
from keras_flows.ops import float_dtype
from keras_flows.ops import register
from keras_flows.ops import resolve


class TimeLaw(Config):
    """Draws times t of a given shape on an interpolant."""

    def __call__(self, interpolant, shape, seed=None):
        """Times of shape `shape`, float32.

        Args:
            interpolant: the `Interpolant` whose times are drawn.
            shape: tuple, usually (B,).
            seed: int or `keras.random.SeedGenerator`.
        """
        raise NotImplementedError


@register
@dataclasses.dataclass(frozen=True)
class Uniform(TimeLaw):
    """Noise fraction uniform on [low, high]."""

    low: float = 0.0
    high: float = 1.0

    def __call__(self, interpolant, shape, seed=None):
        f = keras.random.uniform(
            shape, self.low, self.high, dtype=float_dtype(), seed=seed
        )
        return interpolant.time_from_fraction(f)


@register
@dataclasses.dataclass(frozen=True)
class LogitNormal(TimeLaw):
    """Noise fraction sigmoid(mu + sigma N(0, 1)); arXiv 2403.03206."""

    mu: float = 0.0
    sigma: float = 1.0

    def __call__(self, interpolant, shape, seed=None):
        z = keras.random.normal(shape, dtype=float_dtype(), seed=seed)
        f = ops.sigmoid(self.mu + self.sigma * z)
        return interpolant.time_from_fraction(f)


@register
@dataclasses.dataclass(frozen=True)
class LogNormal(TimeLaw):
    """Noise-to-data ratio sigma/alpha = exp(mu + sigma N(0, 1)).

    On VarianceExploding that is the noise level itself (EDM's law), on
    TrigFlow sCM's ln(sigma_d tan t) ~ N(mu, sigma^2), and on `Linear` the
    same as `LogitNormal`.
    """

    mu: float = 0.0
    sigma: float = 1.0

    def __call__(self, interpolant, shape, seed=None):
        z = keras.random.normal(shape, dtype=float_dtype(), seed=seed)
        return interpolant.time_from_ratio(ops.exp(self.mu + self.sigma * z))


@register
@dataclasses.dataclass(frozen=True)
class Beta(TimeLaw):
    """Noise fraction ~ Beta(a, b)."""

    a: float = 1.5
    b: float = 1.0

    def __post_init__(self):
        if self.a <= 0 or self.b <= 0:
            raise ValueError(
                "`a` and `b` of the beta law must be positive. "
                f"Received: a={self.a}, b={self.b}."
            )

    def __call__(self, interpolant, shape, seed=None):
        f = keras.random.beta(
            shape, self.a, self.b, dtype=float_dtype(), seed=seed
        )
        return interpolant.time_from_fraction(f)


def get_time_law(identifier, mu=0.0, sigma=1.0):
    """A law from "uniform", "lognormal", "logitnormal", "beta" or a TimeLaw.

    Args:
        identifier: name or instance.
        mu: location of the log-normal and logit-normal laws.
        sigma: scale of the log-normal and logit-normal laws.

    Raises:
        ValueError: if the name is unknown; the message lists the known ones.
    """
    known = {
        "uniform": Uniform,
        "lognormal": lambda: LogNormal(mu, sigma),
        "logitnormal": lambda: LogitNormal(mu, sigma),
        "beta": Beta,
    }
    return resolve(identifier, known, "train_time_dist_type", TimeLaw)
