"""What a network predicts, and how it is preconditioned.

    F(x_t, t) = c_skip(t) x_t + c_out(t) network(c_in(t) x_t, c_noise(t))

is a velocity, the data, the noise or a mixture of the two; a parametrization
owns the four scales, the target and the weight of the regression, and turns F
into velocity and data (arXiv 2206.00364, table 1; 2202.00512).
"""

import dataclasses

from keras import ops

from keras_flows.interpolants import Interpolant
from keras_flows.interpolants import VarianceExploding
from keras_flows.ops import bcast_right
from keras_flows.ops.scalars import SCALE
from keras_flows.ops.scalars import checked


@dataclasses.dataclass(frozen=True)
class Parametrization:
    """Base class: no preconditioning, weight 1.

    Methods take t of shape (B,) and x, n, x_t, output of shape (B, ...).

    Args:
        path: the `Interpolant` of x_t.

    Attributes:
        predicts: what F is, in a word.
        posterior: whether `data` is the mean E[x | x_t], from which velocity
            and score follow. That of a consistency model is the end of the
            flow, from which they do not.
    """

    path: Interpolant

    predicts = "velocity"
    posterior = True

    def c_in(self, t):
        """Input scale, (B,)."""
        return ops.ones_like(t)

    def c_out(self, t):
        """Output scale, (B,)."""
        return ops.ones_like(t)

    def c_skip(self, t):
        """Scale of the skip connection, (B,)."""
        return ops.zeros_like(t)

    def c_noise(self, t):
        """The time as the network sees it, (B,)."""
        return t

    def target(self, x, n, t):
        """What F regresses, (B, ...)."""
        raise NotImplementedError

    def weight(self, t):
        """Weight of |F - target|^2, (B,)."""
        return ops.ones_like(t)

    def velocity(self, x_t, output, t):
        """dx_t/dt from F."""
        return self.path.velocity_from_data(x_t, self.data(x_t, output, t), t)

    def data(self, x_t, output, t):
        """x from F."""
        raise NotImplementedError

    def coefficients(self, t, like):
        """(alpha(t), sigma(t)), shaped to multiply `like`."""
        return tuple(
            bcast_right(c, like)
            for c in (self.path.alpha(t), self.path.sigma(t))
        )


class Velocity(Parametrization):
    """F = v = dx_t/dt, in the path's own time."""

    def target(self, x, n, t):
        return self.path.velocity(x, n, t)

    def velocity(self, x_t, output, t):
        return output

    def data(self, x_t, output, t):
        return self.path.data_from_velocity(x_t, output, t)


class Data(Parametrization):
    """F = x."""

    predicts = "data"

    def target(self, x, n, t):
        return x

    def data(self, x_t, output, t):
        return output


class Noise(Parametrization):
    """F = n: DDPM's eps (arXiv 2006.11239)."""

    predicts = "noise"

    def target(self, x, n, t):
        return n

    def velocity(self, x_t, output, t):
        return self.path.velocity_from_noise(x_t, output, t)

    def data(self, x_t, output, t):
        alpha, sigma = self.coefficients(t, x_t)
        return (x_t - sigma * output) / alpha


class V(Parametrization):
    """F = alpha n - sigma x, on alpha^2 + sigma^2 = 1 (arXiv 2202.00512)."""

    predicts = "v"

    def target(self, x, n, t):
        alpha, sigma = self.coefficients(t, x)
        return alpha * n - sigma * x

    def velocity(self, x_t, output, t):
        alpha, sigma = self.coefficients(t, x_t)
        return self.path.velocity_from_noise(
            x_t, alpha * output + sigma * x_t, t
        )

    def data(self, x_t, output, t):
        alpha, sigma = self.coefficients(t, x_t)
        return alpha * x_t - sigma * output


@checked(x_sigma=SCALE)
@dataclasses.dataclass(frozen=True)
class Karras(Data):
    """F = x with EDM's scales on `VarianceExploding` (arXiv 2206.00364).

    Args:
        x_sigma: sd, the standard deviation of the data.
    """

    x_sigma: float = 0.5

    def _total(self, t):
        return ops.square(t) + self.x_sigma**2

    def c_in(self, t):
        """1 / sqrt(sd^2 + t^2)."""
        return ops.rsqrt(self._total(t))

    def c_out(self, t):
        """t sd / sqrt(t^2 + sd^2)."""
        return t * self.x_sigma * ops.rsqrt(self._total(t))

    def c_skip(self, t):
        """sd^2 / (t^2 + sd^2)."""
        return self.x_sigma**2 / self._total(t)

    def c_noise(self, t):
        """ln(t) / 4."""
        return 0.25 * ops.log(t)

    def weight(self, t):
        """(t^2 + sd^2) / (t sd)^2 = 1 / c_out^2."""
        return self._total(t) / ops.square(t * self.x_sigma)


@checked(x_sigma=SCALE)
@dataclasses.dataclass(frozen=True)
class Boundary(Data):
    """F = f(x_t, t), where the flow from x_t ends: x_t itself at `t_last`.

    With a = alpha, s = sigma, sd = x_sigma and m = s - a s_last / a_last,
    which is 0 at `t_last`; the published form on `VarianceExploding` (arXiv
    2303.01469).

    Args:
        x_sigma: sd, the standard deviation of the data.
    """

    x_sigma: float = 0.5

    posterior = False

    def _scales(self, t):
        """(alpha, m, 1 / sqrt(alpha^2 sd^2 + sigma^2))."""
        a, s = self.path.alpha(t), self.path.sigma(t)
        last = ops.full_like(t, self.path.t_last)
        m = s - a * self.path.sigma(last) / self.path.alpha(last)
        total = ops.square(a * self.x_sigma) + ops.square(s)
        return a, m, ops.rsqrt(total)

    def c_in(self, t):
        """1 / sqrt(a^2 sd^2 + s^2)."""
        return self._scales(t)[2]

    def c_out(self, t):
        """sd m / sqrt(a^2 sd^2 + s^2)."""
        _, m, c_in = self._scales(t)
        return self.x_sigma * m * c_in

    def c_skip(self, t):
        """a sd^2 / (m^2 + a^2 sd^2)."""
        a, m, _ = self._scales(t)
        square = ops.square(a * self.x_sigma)
        return a * self.x_sigma**2 / (ops.square(m) + square)

    def c_noise(self, t):
        """ln(t) / 4 on `VarianceExploding`, else t."""
        if isinstance(self.path, VarianceExploding):
            return 0.25 * ops.log(t)
        return t


class Trig(Velocity):
    """F = sigma_d network(x_t / sigma_d, t) on `TrigFlow` (arXiv 2410.11081).

    `data` is f = cos(t) x_t - sin(t) F, where the flow from x_t ends.
    """

    posterior = False

    def c_in(self, t):
        """1 / sigma_d."""
        return ops.full_like(t, 1.0 / self.path.sigma_d)

    def c_out(self, t):
        """sigma_d."""
        return ops.full_like(t, self.path.sigma_d)


BY_NAME = {cls.predicts: cls for cls in (Velocity, Data, Noise, V)}
