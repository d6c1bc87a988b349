"""What every interpolant shares: conversions, the score, noise levels.

With x_t = alpha(t) x + sigma(t) n and v = alpha'(t) x + sigma'(t) n, two
linear equations in (x, n), every prediction follows from every other. With
D = alpha sigma' - alpha' sigma,

    n = (alpha v - alpha' x_t) / D,        x = (sigma' x_t - sigma v) / D.

No direction of time enters (arXiv 2303.08797, 2209.03003).

Times of one path mean nothing on another. What is meant on every path (time
laws, time shift, even grids, ranges) is meant in noise *levels*, between 0
at the end of the path and 1 at pure noise.
"""

import numpy as np
from keras import ops

from keras_flows.ops import Config
from keras_flows.ops import bcast_right


class Interpolant(Config):
    """A path x_t = alpha(t) x + sigma(t) n between noise n and data x.

    alpha is always the DATA coefficient, sigma the NOISE coefficient.

    Attributes:
        t_noise: the time at which x_t is noise; sampling starts there.
        t_data: the time at which x_t is data; sampling ends there.
        t_last: the time nearest to `t_data` at which the coefficients are
            regular: networks are neither trained nor called beyond it.
        gaussian: whether n is Gaussian noise, so that the two coefficients
            say all of the path.
        log_snr_grid: the grid, see `time_grid`, of solvers in
            log(alpha / sigma) that name none: "log_snr" where that has two
            ends. In even levels the last step would be most of it.

    Methods take t of shape (B,) and x, n, v, x_t of shape (B, ...).
    """

    t_noise: float
    t_data: float
    gaussian = True
    log_snr_grid = "uniform"

    @property
    def t_last(self):
        return self.t_data

    def alpha(self, t):
        """Data coefficient, shape of t."""
        raise NotImplementedError

    def sigma(self, t):
        """Noise coefficient, shape of t."""
        raise NotImplementedError

    def alpha_dot(self, t):
        """d alpha / dt, shape of t."""
        raise NotImplementedError

    def sigma_dot(self, t):
        """d sigma / dt, shape of t."""
        raise NotImplementedError

    def time_from_ratio(self, ratio):
        """The time at which sigma / alpha equals `ratio`."""
        raise NotImplementedError

    def _coefficients(self, t, like):
        return tuple(
            bcast_right(c, like)
            for c in (
                self.alpha(t),
                self.sigma(t),
                self.alpha_dot(t),
                self.sigma_dot(t),
            )
        )

    def interpolate(self, x, n, t):
        """x_t = alpha(t) x + sigma(t) n."""
        a, s, _, _ = self._coefficients(t, x)
        return a * x + s * n

    def velocity(self, x, n, t):
        """dx_t/dt = alpha'(t) x + sigma'(t) n."""
        _, _, da, ds = self._coefficients(t, x)
        return da * x + ds * n

    def data_from_velocity(self, x_t, v, t):
        """x = (sigma' x_t - sigma v) / D."""
        a, s, da, ds = self._coefficients(t, x_t)
        return (ds * x_t - s * v) / (a * ds - da * s)

    def noise_from_velocity(self, x_t, v, t):
        """n = (alpha v - alpha' x_t) / D."""
        a, s, da, ds = self._coefficients(t, x_t)
        return (a * v - da * x_t) / (a * ds - da * s)

    def velocity_from_data(self, x_t, x, t):
        """v = (sigma' x_t - D x) / sigma; singular at the data end."""
        a, s, da, ds = self._coefficients(t, x_t)
        return (ds * x_t - (a * ds - da * s) * x) / s

    def velocity_from_noise(self, x_t, n, t):
        """v = (alpha' x_t + D n) / alpha; singular at the noise end."""
        a, s, da, ds = self._coefficients(t, x_t)
        return (da * x_t + (a * ds - da * s) * n) / a

    def score_from_velocity(self, x_t, v, t, n_mu=0.0, n_sigma=1.0):
        """Score of p_t for noise n ~ N(n_mu, n_sigma^2).

        grad log p_t(x_t) = -(n - n_mu) / (sigma n_sigma^2), with n the noise
        that the velocity implies.
        """
        n = self.noise_from_velocity(x_t, v, t)
        s = bcast_right(self.sigma(t), x_t)
        return -(n - n_mu) / (s * n_sigma**2)

    def velocity_from_score(self, x_t, score, t, n_mu=0.0, n_sigma=1.0):
        """The inverse of `score_from_velocity`."""
        s = bcast_right(self.sigma(t), x_t)
        return self.velocity_from_noise(x_t, n_mu - s * n_sigma**2 * score, t)

    # Noise levels. A path whose levels are not affine in t overrides the
    # three methods with an underscore.

    @property
    def _clean(self):
        """The time of level 0."""
        return self.t_last

    def _level(self, t):
        return (t - self._clean) / (self.t_noise - self._clean)

    def _time(self, level):
        return self._clean + level * (self.t_noise - self._clean)

    def _level_dot(self, t):
        one = _module(t).ones_like(t)
        return one / (self.t_noise - self._clean)

    def level(self, t):
        """The noise level of t: 0 where the path ends, 1 at `t_noise`.

        Affine in t, unless the class says otherwise; 0 beyond the end.

        Args:
            t: tensor or NumPy array of any shape, whose dtype is kept.
        """
        t = _between(t, self._clean, self.t_noise)
        level = _between(self._level(t), 0.0, 1.0)
        # Rounding must not move the ends.
        level = _put(level, t == self._clean, 0.0)
        return _put(level, t == self.t_noise, 1.0)

    def time_of_level(self, level):
        """The inverse of `level`; levels are held between 0 and 1."""
        t = self._time(_between(level, 0.0, 1.0))
        t = _between(t, self._clean, self.t_noise)
        t = _put(t, level <= 0.0, self._clean)
        return _put(t, level >= 1.0, self.t_noise)

    def level_dot(self, t):
        """d level / dt, at the nearest time between the ends of `level`."""
        return self._level_dot(_between(t, self._clean, self.t_noise))

    def nearest_step(self, t):
        """t itself; on a path of timesteps the nearest of them."""
        return t

    def within(self, t):
        """t, or the nearest time that is trained: from t_noise to t_last."""
        return _between(t, self.t_last, self.t_noise)

    def shift(self, t, k):
        """Time shift: noise level l -> k l / (1 + (k - 1) l).

        k > 1 spends more of the time near the noise, as high resolution
        needs (arXiv 2403.03206).
        """
        level = self.level(t)
        return self.time_of_level(k * level / (1 + (k - 1) * level))

    def toward_data(self, t, r):
        """True where r is at least as near to the data as t."""
        direction = 1.0 if self.t_data > self.t_noise else -1.0
        return (r - t) * direction >= 0

    def initial(self, noise, t=None):
        """The state at `t_noise`, or the number t: sigma(t) noise."""
        noise = ops.convert_to_tensor(noise)
        t = self.t_noise if t is None else t
        t = ops.full((1,), t, dtype=noise.dtype)
        return bcast_right(self.sigma(t), noise) * noise


def _module(x):
    """NumPy for its arrays and Python's numbers, else `keras.ops`."""
    return np if isinstance(x, (np.ndarray, np.generic, float, int)) else ops


def _put(x, where, number):
    """x with `number` at some places; keeps the dtype."""
    xp = _module(x)
    if xp is ops:
        # As a number it would come by way of float32 on some backends.
        number = ops.convert_to_tensor(number, dtype=x.dtype)
    return xp.where(where, number, x)


def _between(x, a, b):
    """x held between two numbers in either order; keeps the dtype."""
    low, high = sorted((a, b))
    return _put(_put(x, x < low, low), x > high, high)
