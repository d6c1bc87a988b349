"""Training time laws: how often each noise level is seen.

A law draws noise levels between 0 and 1 (`Interpolant.level`), or ratios
sigma / alpha, and the interpolant turns them into its own times, so that one
law means the same thing on every path. No time is beyond the trained range.
"""

from __future__ import annotations

import dataclasses
import typing

import keras
from keras import ops

from keras_flows.ops import Config
from keras_flows.ops import float_dtype
from keras_flows.ops import given
from keras_flows.ops import register
from keras_flows.ops import resolve
from keras_flows.ops.scalars import LOCATION
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import SCALE
from keras_flows.ops.scalars import SHARE
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from typing import Any


class TimeLaw(Config):
    """Draws times t of a given shape on an interpolant; a law has `draw`."""

    def __call__(self, interpolant, shape, seed=None):
        """Times of shape `shape` between `t_noise` and `t_last`, float32.

        Args:
            interpolant: the `Interpolant` whose times are drawn.
            shape: tuple, usually (B,).
            seed: int or `keras.random.SeedGenerator`.
        """
        shape, seed = given.shape("shape", shape), given.seed("seed", seed)
        return interpolant.within(self.draw(interpolant, shape, seed))

    def draw(self, interpolant, shape, seed):
        """The times, which `__call__` then holds within the trained range."""
        raise NotImplementedError


@register
@checked(low=SHARE, high=SHARE)
@dataclasses.dataclass(frozen=True)
class Uniform(TimeLaw):
    """Noise level uniform on [low, high]."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self):
        if self.low >= self.high:
            raise ValueError(
                "`low` must be below `high`. Received: low="
                f"{self.low!r}, high={self.high!r}."
            )

    def draw(self, interpolant, shape, seed):
        level = keras.random.uniform(
            shape, self.low, self.high, dtype=float_dtype(), seed=seed
        )
        return interpolant.time_of_level(level)


@register
@checked(mu=LOCATION, sigma=SCALE)
@dataclasses.dataclass(frozen=True)
class LogitNormal(TimeLaw):
    """Noise level sigmoid(mu + sigma N(0, 1)); arXiv 2403.03206."""

    mu: float = 0.0
    sigma: float = 1.0

    def draw(self, interpolant, shape, seed):
        z = keras.random.normal(shape, dtype=float_dtype(), seed=seed)
        level = ops.sigmoid(self.mu + self.sigma * z)
        return interpolant.time_of_level(level)


@register
@checked(mu=LOCATION, sigma=SCALE)
@dataclasses.dataclass(frozen=True)
class LogNormal(TimeLaw):
    """Noise-to-data ratio sigma/alpha = exp(mu + sigma N(0, 1)).

    On VarianceExploding that is sigma itself (EDM's law), on TrigFlow
    sCM's ln(sigma_d tan t) ~ N(mu, sigma^2), and on `Linear` the same as
    `LogitNormal`.
    """

    mu: float = 0.0
    sigma: float = 1.0

    def draw(self, interpolant, shape, seed):
        z = keras.random.normal(shape, dtype=float_dtype(), seed=seed)
        return interpolant.time_from_ratio(ops.exp(self.mu + self.sigma * z))


@register
@checked(a=POSITIVE, b=POSITIVE)
@dataclasses.dataclass(frozen=True)
class Beta(TimeLaw):
    """Noise level ~ Beta(a, b)."""

    a: float = 1.5
    b: float = 1.0

    def __post_init__(self):
        if self.a <= 0 or self.b <= 0:
            raise ValueError(
                "`a` and `b` of the beta law must be positive. "
                f"Received: a={self.a}, b={self.b}."
            )

    def draw(self, interpolant, shape, seed):
        level = keras.random.beta(
            shape, self.a, self.b, dtype=float_dtype(), seed=seed
        )
        return interpolant.time_of_level(level)


@checked(mu=LOCATION, sigma=SCALE)
def get_time_law(
    identifier: Any,
    mu: float = 0.0,
    sigma: float = 1.0,
    argument: str = "train_time_dist_type",
) -> Any:
    """A law from "uniform", "lognormal", "logitnormal", "beta" or a TimeLaw.

    Args:
        identifier: name or instance.
        mu: location of the log-normal and logit-normal laws.
        sigma: scale of the log-normal and logit-normal laws.
        argument: the name of the user's argument, for the error message.

    Raises:
        ValueError: if the name is unknown; the message lists the known ones.
    """
    known = {
        "uniform": Uniform,
        "lognormal": lambda: LogNormal(mu, sigma),
        "logitnormal": lambda: LogitNormal(mu, sigma),
        "beta": Beta,
    }
    return resolve(identifier, known, argument, TimeLaw)
