"""The exact Gaussian oracle: every quantity of a flow in closed form.

For data x ~ N(m, s^2) and noise n ~ N(n_mu, n_sigma^2), independent in every
dimension, x_t = alpha x + sigma n is N(mu, var) with

    mu = alpha m + sigma n_mu,    var = alpha^2 s^2 + sigma^2 n_sigma^2,

posterior means are linear in x_t, and the probability flow carries
(x_t - mu_t) / sqrt(var_t) along unchanged. Nothing here calls the library:
the coefficients are written out again, in NumPy float64. `ExactNetwork` is
the same solution as a Keras network, for the library's own float32 code.
"""

import dataclasses
import math

import keras
import numpy as np
from keras import ops

HALF_PI = 0.5 * math.pi


class Path:
    """alpha, sigma and their derivatives in NumPy; slopes in `keras.ops`.

    `alpha` and `sigma` take the array module, since the network needs them
    too. `slopes(t, r)` are the divided differences (alpha(r) - alpha(t)) /
    (r - t) and that of sigma, in forms that do not cancel at r = t, nor
    divide by zero there, nor in the derivative.
    """


@dataclasses.dataclass(frozen=True)
class Linear(Path):
    """Noise at t = 1: (1 - t, t); noise at t = 0: (t, 1 - t)."""

    noise_at: float

    def alpha(self, t, xp=np):
        return 1.0 - t if self.noise_at == 1 else t

    def sigma(self, t, xp=np):
        return t if self.noise_at == 1 else 1.0 - t

    def alpha_dot(self, t):
        return np.full_like(t, -1.0 if self.noise_at == 1 else 1.0)

    def sigma_dot(self, t):
        return np.full_like(t, 1.0 if self.noise_at == 1 else -1.0)

    def slopes(self, t, r):
        one = ops.ones_like(t)
        return (-one, one) if self.noise_at == 1 else (one, -one)


@dataclasses.dataclass(frozen=True)
class Trigonometric(Path):
    """Noise at t = 1: (cos, sin)(pi t / 2); noise at t = 0: (sin, cos)."""

    noise_at: float

    def alpha(self, t, xp=np):
        turn = xp.cos if self.noise_at == 1 else xp.sin
        return turn(HALF_PI * t)

    def sigma(self, t, xp=np):
        turn = xp.sin if self.noise_at == 1 else xp.cos
        return turn(HALF_PI * t)

    def alpha_dot(self, t):
        if self.noise_at == 1:
            return -HALF_PI * np.sin(HALF_PI * t)
        return HALF_PI * np.cos(HALF_PI * t)

    def sigma_dot(self, t):
        if self.noise_at == 1:
            return HALF_PI * np.cos(HALF_PI * t)
        return -HALF_PI * np.sin(HALF_PI * t)

    def slopes(self, t, r):
        cos, sin = _trig_slopes(HALF_PI, t, r)
        return (cos, sin) if self.noise_at == 1 else (sin, cos)


@dataclasses.dataclass(frozen=True)
class VarianceExploding(Path):
    """(1, t)."""

    def alpha(self, t, xp=np):
        return xp.ones_like(t)

    def sigma(self, t, xp=np):
        return t

    def alpha_dot(self, t):
        return np.zeros_like(t)

    def sigma_dot(self, t):
        return np.ones_like(t)

    def slopes(self, t, r):
        return ops.zeros_like(t), ops.ones_like(t)


@dataclasses.dataclass(frozen=True)
class VPLinear(Path):
    """alpha = exp(-b0 t / 2 - (b1 - b0) t^2 / 4), sigma^2 = 1 - alpha^2."""

    b0: float = 0.1
    b1: float = 20.0

    def _log(self, t):
        return -0.5 * self.b0 * t - 0.25 * (self.b1 - self.b0) * t**2

    def alpha(self, t, xp=np):
        return xp.exp(self._log(t))

    def sigma(self, t, xp=np):
        return xp.sqrt(-xp.expm1(2.0 * self._log(t)))

    def alpha_dot(self, t):
        return -0.5 * (self.b0 + (self.b1 - self.b0) * t) * self.alpha(t)

    def sigma_dot(self, t):
        return -self.alpha(t) * self.alpha_dot(t) / self.sigma(t)

    def slopes(self, t, r):
        of_log = -0.5 * self.b0 - 0.25 * (self.b1 - self.b0) * (r + t)
        growth = _expm1_over(of_log * (r - t))
        slope = self.alpha(t, ops) * growth * of_log
        return slope, _vp_sigma_slope(self, slope, t, r)


@dataclasses.dataclass(frozen=True)
class VPCosine(Path):
    """alpha = cos(w (t + o)) / cos(w o), w = pi / 2 / (1 + o)."""

    offset: float = 0.008

    @property
    def _rate(self):
        return HALF_PI / (1.0 + self.offset)

    @property
    def _start(self):
        return math.cos(self._rate * self.offset)

    def alpha(self, t, xp=np):
        return xp.cos(self._rate * (t + self.offset)) / self._start

    def sigma(self, t, xp=np):
        # cos^2 a - cos^2 b = sin(b - a) sin(b + a) does not cancel.
        product = xp.sin(self._rate * t) * xp.sin(
            self._rate * (t + 2.0 * self.offset)
        )
        return xp.sqrt(product) / self._start

    def alpha_dot(self, t):
        angle = self._rate * (t + self.offset)
        return -self._rate * np.sin(angle) / self._start

    def sigma_dot(self, t):
        return -self.alpha(t) * self.alpha_dot(t) / self.sigma(t)

    def slopes(self, t, r):
        cos, _ = _trig_slopes(self._rate, t + self.offset, r + self.offset)
        slope = cos / self._start
        return slope, _vp_sigma_slope(self, slope, t, r)


@dataclasses.dataclass(frozen=True)
class TrigFlow(Path):
    """(cos t, sigma_d sin t)."""

    sigma_d: float = 0.5

    def alpha(self, t, xp=np):
        return xp.cos(t)

    def sigma(self, t, xp=np):
        return self.sigma_d * xp.sin(t)

    def alpha_dot(self, t):
        return -np.sin(t)

    def sigma_dot(self, t):
        return self.sigma_d * np.cos(t)

    def slopes(self, t, r):
        cos, sin = _trig_slopes(1.0, t, r)
        return cos, self.sigma_d * sin


# Case name: (class and arguments in kf.interpolants, the path here, times
# between which the tests move, noise first). The times keep away from ends
# where a conversion divides by alpha or sigma.
CASES = {
    "linear, noise at 0": ("Linear", {"noise_at": 0.0}, Linear(0), 0.1, 0.9),
    "linear, noise at 1": ("Linear", {"noise_at": 1.0}, Linear(1), 0.9, 0.1),
    "trigonometric, noise at 0": (
        "Trigonometric", {"noise_at": 0.0}, Trigonometric(0), 0.1, 0.9,
    ),
    "trigonometric, noise at 1": (
        "Trigonometric", {"noise_at": 1.0}, Trigonometric(1), 0.9, 0.1,
    ),
    "variance exploding": (
        "VarianceExploding", {}, VarianceExploding(), 20.0, 0.1,
    ),
    "variance preserving, linear": (
        "VariancePreserving", {"schedule": "linear"}, VPLinear(), 0.9, 0.1,
    ),
    "variance preserving, cosine": (
        "VariancePreserving", {"schedule": "cosine"}, VPCosine(), 0.9, 0.1,
    ),
    "trigflow": ("TrigFlow", {"sigma_d": 0.7}, TrigFlow(0.7), 1.4, 0.15),
}  # fmt: skip


def _series_or_exact(z, series, exact):
    """`series(z)` for |z| < 1/2, else `exact(z)`, differentiable at 0.

    The branch that is not taken must not see z = 0 either: its NaN would
    reach the gradient through `where`.
    """
    small = ops.abs(z) < 0.5
    safe = ops.where(small, ops.ones_like(z), z)
    return ops.where(small, series(z), exact(safe))


def _sin_over(z):
    """sin(z) / z."""

    def series(z):
        q = z * z
        return 1 - q / 6 * (1 - q / 20 * (1 - q / 42 * (1 - q / 72)))

    return _series_or_exact(z, series, lambda z: ops.sin(z) / z)


def _expm1_over(z):
    """(exp(z) - 1) / z."""

    def series(z):
        total = ops.ones_like(z)
        for k in range(9, 1, -1):
            total = 1.0 + z / k * total
        return total

    return _series_or_exact(z, series, lambda z: ops.expm1(z) / z)


def _trig_slopes(rate, t, r):
    """Divided differences of cos(rate t) and sin(rate t)."""
    middle = 0.5 * rate * (r + t)
    chord = rate * _sin_over(0.5 * rate * (r - t))
    return -ops.sin(middle) * chord, ops.cos(middle) * chord


def _vp_sigma_slope(path, alpha_slope, t, r):
    """From sigma^2 = 1 - alpha^2."""
    return (
        -alpha_slope
        * (path.alpha(r, ops) + path.alpha(t, ops))
        / (path.sigma(r, ops) + path.sigma(t, ops))
    )


def _column(t):
    """Times (B,) or () against states (B, dim)."""
    return np.asarray(t, dtype="float64")[..., None]


@dataclasses.dataclass(frozen=True)
class Oracle:
    """Closed forms on `path`, in NumPy float64: x (B, dim), t and r (B,).

    Args:
        path: a `Path`.
        m, s: mean and standard deviation of the data, one per dimension.
        n_mu, n_sigma: mean and standard deviation of the noise.
    """

    path: Path
    m: tuple = (0.4, -0.7)
    s: tuple = (0.5, 0.8)
    n_mu: float = 0.0
    n_sigma: float = 1.0

    @property
    def dim(self):
        return len(self.m)

    def sample_data(self, rng, rows):
        z = rng.standard_normal((rows, self.dim))
        return (np.array(self.m) + np.array(self.s) * z).astype("float32")

    def sample(self, rng, t):
        """Float32 draws of x_t at the times t, (B, dim)."""
        z = rng.standard_normal((len(t), self.dim))
        return (self.mean(t) + np.sqrt(self.var(t)) * z).astype("float32")

    def mean(self, t):
        t = _column(t)
        return self.path.alpha(t) * np.array(self.m) + (
            self.path.sigma(t) * self.n_mu
        )

    def var(self, t):
        t = _column(t)
        return (self.path.alpha(t) * np.array(self.s)) ** 2 + (
            self.path.sigma(t) * self.n_sigma
        ) ** 2

    def data(self, x, t):
        """E[x | x_t]: prior mean plus covariance / variance."""
        gain = self.path.alpha(_column(t)) * np.array(self.s) ** 2
        return np.array(self.m) + gain / self.var(t) * (x - self.mean(t))

    def noise(self, x, t):
        """E[n | x_t]."""
        gain = self.path.sigma(_column(t)) * self.n_sigma**2
        return self.n_mu + gain / self.var(t) * (x - self.mean(t))

    def velocity(self, x, t):
        """E[dx_t/dt | x_t]."""
        column = _column(t)
        return self.path.alpha_dot(column) * self.data(x, t) + (
            self.path.sigma_dot(column) * self.noise(x, t)
        )

    def score(self, x, t):
        """Gradient of log N(x; mu, var)."""
        return -(x - self.mean(t)) / self.var(t)

    def jump(self, x, t, r):
        """The flow map X_{t->r}(x)."""
        return self.mean(r) + np.sqrt(self.var(r) / self.var(t)) * (
            x - self.mean(t)
        )

    def average_velocity(self, x, t, r):
        """(X_{t->r}(x) - x) / (r - t), the velocity where r = t."""
        t, r = (np.broadcast_to(v, x.shape[:1]) for v in (t, r))
        same = t == r
        gap = np.where(same, 1.0, np.asarray(r, "float64") - t)[:, None]
        slope = (self.jump(x, t, r) - x) / gap
        return np.where(same[:, None], self.velocity(x, t), slope)


class ExactNetwork(keras.Model):
    """The oracle as a network of {"x", "t", "r"}, with one weight.

    The weight `delta`, initially 0, adds delta (x + 1) to the output; the
    constant is there for objectives that call the network at x = 0.

    Args:
        oracle: an `Oracle`.
        predict: "velocity" for the average velocity u(x, t, r), "data" for
            E[x | x_t], "edm" for the network F whose preconditioned output
            is E[x | x_t].
        x_sigma: the interface's, for "edm".
        delta: initial value of the weight.
        rows: None for one weight, or the batch size for a weight per row:
            then one backward pass gives the gradient of every row, where
            the rows of a batch are not split.
    """

    # `input_names` tells the library which keys a subclassed network takes.
    input_names = ("x", "t", "r")

    def __init__(self, oracle, predict="velocity", x_sigma=0.5, delta=0.0,
                 rows=None):  # fmt: skip
        super().__init__(autocast=False)
        self.oracle = oracle
        self.predicts = predict
        self.x_sigma = x_sigma
        self.delta = self.add_weight(
            shape=() if rows is None else (rows, 1),
            initializer=keras.initializers.Constant(delta),
            dtype="float32",
            name="delta",
        )
        self.built = True

    def call(self, inputs, training=False):
        x, t, r = (inputs[key] for key in ("x", "t", "r"))
        delta = ops.convert_to_tensor(self.delta)
        if len(delta.shape):
            # A row keeps its delta where an objective calls with the batch
            # twice over.
            if x.shape[0] > delta.shape[0]:
                delta = ops.concatenate([delta, delta])
            delta = delta[: x.shape[0]]
        perturbation = delta * (x + 1.0)
        t, r = ops.expand_dims(t, -1), ops.expand_dims(r, -1)
        predict = getattr(self, f"_{self.predicts}")
        return predict(x, t, r) + perturbation

    def _moments(self, t):
        """alpha, sigma, mean and variance at t."""
        o = self.oracle
        a, s = o.path.alpha(t, ops), o.path.sigma(t, ops)
        m, std = self._constants()
        var = ops.square(a * std) + ops.square(s * o.n_sigma)
        return a, s, a * m + s * o.n_mu, var

    def _constants(self):
        return (
            ops.convert_to_tensor(np.array(v, dtype="float32"))
            for v in (self.oracle.m, self.oracle.s)
        )

    def _velocity(self, x, t, r):
        o = self.oracle
        m, std = self._constants()
        a_t, s_t, mean, var_t = self._moments(t)
        a_r, s_r, _, var_r = self._moments(r)
        a_slope, s_slope = o.path.slopes(t, r)
        mean_slope = a_slope * m + s_slope * o.n_mu
        var_slope = (a_r + a_t) * a_slope * ops.square(std) + (
            s_r + s_t
        ) * s_slope * o.n_sigma**2
        # sqrt(var_r / var_t) - 1, over r - t, without the difference.
        root_t, root_r = ops.sqrt(var_t), ops.sqrt(var_r)
        stretch = var_slope / ((root_r + root_t) * root_t)
        return mean_slope + stretch * (x - mean)

    def _data(self, x, t, r):
        m, std = self._constants()
        a, _, mean, var = self._moments(t)
        return m + a * ops.square(std) / var * (x - mean)

    def _edm(self, x, t, r):
        # The network sees x / sqrt(t^2 + sd^2) and ln(t) / 4.
        t = ops.exp(4.0 * t)
        total = ops.square(t) + self.x_sigma**2
        x_t = x * ops.sqrt(total)
        kept = self.x_sigma**2 / total * x_t
        return (
            (self._data(x_t, t, r) - kept)
            * ops.sqrt(total)
            / (t * self.x_sigma)
        )
