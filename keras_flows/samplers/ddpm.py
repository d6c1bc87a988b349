"""DDPM and DDIM, on any Gaussian interpolant and with any time steps.

With a = alpha(t) / alpha(r), the noise added from r to t has the variance
q = sigma(t)^2 - a^2 sigma(r)^2, and x_r given x_t and x has

    mean      alpha(r) x + (a sigma(r)^2 / sigma(t)) n,
    variance  q sigma(r)^2 / sigma(t)^2,

with n = (x_t - alpha(t) x) / sigma(t). Every smaller variance s^2 with
sqrt(sigma(r)^2 - s^2) as the coefficient of n has the same marginals
(arXiv 2006.11239, 2010.02502).
"""

import dataclasses

from keras import ops

from keras_flows.ops import bcast_right
from keras_flows.ops import given
from keras_flows.ops import register
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import SHARE
from keras_flows.ops.scalars import Optional
from keras_flows.ops.scalars import checked
from keras_flows.samplers.base import Sampler
from keras_flows.samplers.base import on_step


class _Transition:
    """The coefficients from t to r, shaped like x, and what follows."""

    def __init__(self, model, x, t, r):
        path = model.interpolant
        self.n_mu = model.n_mu
        self.alpha_t, self.alpha_r, self.sigma_t, self.sigma_r = (
            bcast_right(c, x)
            for c in (path.alpha(t), path.alpha(r), path.sigma(t),
                      path.sigma(r))
        )  # fmt: skip
        kept = self.alpha_t / self.alpha_r * self.sigma_r
        # The product keeps the digits that the difference of squares loses.
        self.large = (self.sigma_t - kept) * (self.sigma_t + kept)
        self.small = self.large * ops.square(self.sigma_r / self.sigma_t)
        # What is left of sigma(r)^2, without that difference either.
        self.rest = ops.square(kept * self.sigma_r / self.sigma_t)

    def mean(self, x, x_hat, eta):
        """alpha(r) x_hat + sqrt(sigma(r)^2 - eta^2 small) n_hat."""
        n_hat = (x - self.alpha_t * x_hat) / self.sigma_t
        kept = ops.sqrt((1.0 - eta**2) * self.small + self.rest)
        # Noise n ~ N(n_mu, n_sigma^2): its mean is not drawn anew.
        centre = self.alpha_r * x_hat + self.sigma_r * self.n_mu
        return centre + kept * (n_hat - self.n_mu)


@register
@checked(eta=SHARE, shift=POSITIVE, clip=Optional(POSITIVE))
@dataclasses.dataclass(frozen=True)
class DDIM(Sampler):
    """x_r = alpha(r) x_hat + sqrt(sigma(r)^2 - s^2) n_hat + s z.

    s is `eta` times DDPM's (small) standard deviation; eta = 0 solves the
    probability flow, exactly where x_hat and n_hat do not change, and is
    Euler's step on `Linear`. Source: arXiv 2010.02502.

    Args:
        eta: share of DDPM's noise, 0 for none, 1 for DDPM.
        grid: time grid, see `time_grid`.
        shift: time shift of the grid.
        clip: bound of |x_hat|, 1.0 for images in [-1, 1], or None.
    """

    eta: float = 0.0
    grid: object = None
    shift: float = 1.0
    clip: float | None = None
    order = 1
    needs = ("data",)
    calls = "start"

    def __post_init__(self):
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(
                f"`eta` must lie between 0 and 1. Received: {self.eta!r}."
            )

    @property
    def last_differs(self):
        return self.stochastic

    @property
    def stochastic(self):
        return self.eta > 0

    @property
    def reversible(self):
        return self.eta == 0 and self.clip is None

    def step(self, model, x, t, r, noise, last):
        x, t, r, noise = on_step(x, t, r, noise)
        x_hat = clipped(model.denoise(x, t), self.clip)
        transition = _Transition(model, x, t, r)
        mean = transition.mean(x, x_hat, self.eta)
        if last or not self.stochastic:
            return mean
        std = self.eta * ops.sqrt(transition.small)
        return mean + std * model.n_sigma * noise


@register
@checked(shift=POSITIVE, clip=Optional(POSITIVE))
@dataclasses.dataclass(frozen=True)
class DDPM(Sampler):
    """Ancestral sampling: x_r drawn from its posterior given x_t and x_hat.

    On `DiscreteVariancePreserving` the grid is respaced as in Improved DDPM
    (arXiv 2102.09672). The last step returns the mean.

    Args:
        variance: "small" for the posterior's own, "large" for that of x_t
            given x_r, "learned" for the network's choice between the two
            (on a logarithmic scale), None for "learned" where the model
            learns it and "small" elsewhere.
        grid: time grid, see `time_grid`.
        shift: time shift of the grid.
        clip: bound of |x_hat|, 1.0 for images in [-1, 1], or None.
    """

    variance: str | None = None
    grid: object = None
    shift: float = 1.0
    clip: float | None = None
    order = 1
    needs = ("data",)
    calls = "start"
    stochastic = True

    def __post_init__(self):
        given.choice(
            "variance", self.variance, ("small", "large", "learned"), none=True
        )

    def step(self, model, x, t, r, noise, last):
        x, t, r, noise = on_step(x, t, r, noise)
        learned = getattr(model, "learn_sigma", False)
        if self.variance == "learned" and not learned:
            raise ValueError(
                "`variance='learned'` needs a model that learns it, such as "
                "a DiscreteInterface with learn_sigma=True."
            )
        if self.variance in ("small", "large"):
            learned = False
        if learned:
            x_hat, share = model.denoise_and_share(x, t)
        else:
            x_hat, share = model.denoise(x, t), None
        transition = _Transition(model, x, t, r)
        large, small = transition.large, transition.small
        mean = transition.mean(x, clipped(x_hat, self.clip), 1.0)
        if last:
            return mean
        std = ops.sqrt(large if self.variance == "large" else small)
        if learned:
            # The share runs from -1 (small) to 1 (large).
            std = std * ops.power(large / small, 0.25 * (share + 1.0))
        return mean + std * model.n_sigma * noise


def clipped(x_hat, bound):
    """x_hat within [-bound, bound]; as it is where bound is None."""
    return x_hat if bound is None else ops.clip(x_hat, -bound, bound)
