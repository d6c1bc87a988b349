"""Stochastic interpolants between two arbitrary data sets."""

import dataclasses
import math

from keras import ops

from keras_flows.interpolants.base import Interpolant
from keras_flows.ops import bcast_right
from keras_flows.ops import given
from keras_flows.ops import register
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import Number
from keras_flows.ops.scalars import checked


@register
@checked(scale=POSITIVE, eps=Number(above=0, below=0.5))
@dataclasses.dataclass(frozen=True)
class StochasticInterpolant(Interpolant):
    """x_t = alpha(t) x_0 + beta(t) x_1 + gamma(t) z, z ~ N(0, I).

    Joins any x_0 (t = 0) to any x_1 (t = 1); see arXiv 2303.08797. Here
    x_0 plays the part of noise and x_1 that of data, so in this library's
    names `sigma` is the coefficient of x_0, `alpha` that of x_1. Since
    E[gamma'^2] diverges at the ends, dx_t/dt is not regressed; learn
    v = E[d/dt (alpha x_1 + sigma x_0) | x_t] and eta = E[z | x_t], then
    b = v + gamma' eta is the drift and score = -eta / gamma.

    Args:
        base: "linear" or "trigonometric", the coefficients of the two ends.
        gamma: "brownian" for scale sqrt(t (1 - t)), "sine" for
            scale sin^2(pi t), "constant" for scale (arXiv 2302.00482), or
            "none". With "constant" x_t at either end is that data set with
            noise of this scale, so let it be small.
        scale: factor of gamma.
        eps: the ends are approached to `eps`, where gamma' is finite.
    """

    base: str = "linear"
    gamma: str = "brownian"
    scale: float = 1.0
    eps: float = 1e-3

    gaussian = False

    def __post_init__(self):
        given.choice("base", self.base, ("linear", "trigonometric"))
        given.choice(
            "gamma", self.gamma, ("brownian", "sine", "constant", "none")
        )

    @property
    def t_noise(self):
        return self.eps

    @property
    def t_data(self):
        return 1.0 - self.eps

    def alpha(self, t):
        return t if self.base == "linear" else ops.sin(0.5 * math.pi * t)

    def sigma(self, t):
        return 1.0 - t if self.base == "linear" else ops.cos(0.5 * math.pi * t)

    def alpha_dot(self, t):
        if self.base == "linear":
            return ops.ones_like(t)
        return 0.5 * math.pi * ops.cos(0.5 * math.pi * t)

    def sigma_dot(self, t):
        if self.base == "linear":
            return -ops.ones_like(t)
        return -0.5 * math.pi * ops.sin(0.5 * math.pi * t)

    def latent(self, t):
        """gamma(t), the coefficient of z."""
        if self.gamma == "none":
            return ops.zeros_like(t)
        if self.gamma == "sine":
            return self.scale * ops.sin(math.pi * t) ** 2
        if self.gamma == "constant":
            return self.scale * ops.ones_like(t)
        return self.scale * ops.sqrt(t * (1.0 - t))

    def latent_dot(self, t):
        """gamma'(t)."""
        if self.gamma in ("none", "constant"):
            return ops.zeros_like(t)
        if self.gamma == "sine":
            return self.scale * math.pi * ops.sin(2.0 * math.pi * t)
        return self.scale * (0.5 - t) / ops.sqrt(t * (1.0 - t))

    def bridge(self, x_1, x_0, z, t):
        """x_t = alpha x_1 + sigma x_0 + gamma z."""
        latent = bcast_right(self.latent(t), z)
        return self.interpolate(x_1, x_0, t) + latent * z

    def drift(self, v, eta, t):
        """b = v + gamma' eta, the velocity of the probability flow."""
        return v + bcast_right(self.latent_dot(t), eta) * eta

    def score_from_latent(self, eta, t):
        """grad log p_t = -eta / gamma."""
        return -eta / bcast_right(self.latent(t), eta)

    def initial(self, noise, t=None):
        return noise
