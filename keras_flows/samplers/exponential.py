"""What solvers in lambda = log(alpha / sigma) share.

Along the flow, or its SDE with noise tau (arXiv 2309.05019), and with
h = lambda(r) - lambda(t), k = 1 + tau^2 and standard normal z,

    x_r = (sigma(r) / sigma(t)) e^(-tau^2 h) x_t
          + alpha(r) k int_0^h e^(-k (h - u)) x_hat(lambda(t) + u) du
          + sigma(r) sqrt(1 - e^(-2 tau^2 h)) z

is exact, whatever the path. Solvers put a polynomial in u through known
predictions x_hat in the place of x_hat; tau = 0 is the probability flow.

At the ends lambda may be infinite. Of first order only e^-h is needed, which
is 0 there, exactly: the step to t_data gives x_hat, and a step from pure
noise keeps no more of x than it should. Elsewhere lambda is that of an alpha
and a sigma of at least 1e-6, as in diffusers' flow-matching schedulers.
"""

from keras import ops

from keras_flows.ops import bcast_right
from keras_flows.ops import eager_float64

_LEAST = 1e-6
# An alpha below which x_t counts as pure noise.
NO_SIGNAL = 1e-3


def log_snr(path, t):
    """lambda(t) = log(alpha / sigma), finite at both ends; shape of t."""
    alpha, sigma = (
        ops.log(at_least(c, _LEAST)) for c in (path.alpha(t), path.sigma(t))
    )
    return alpha - sigma


def at_least(x, bound):
    """max(x, bound); `ops.maximum` with a number makes float32 of float64."""
    return ops.where(x > bound, x, bound)


def starts_without_signal(path):
    """Whether x_t is pure noise at `t_noise`, so that lambda is -infinity."""
    with eager_float64() as number:
        return float(number(path.alpha, path.t_noise)) < NO_SIGNAL


class Span:
    """The exact solution from t to r, up to the integral.

    Args:
        model: a `Predictor` (or an interface).
        t, r: times, (B,).
        tau: strength of the noise, a number or (B,).
    """

    def __init__(self, model, t, r, tau=0.0):
        path = model.interpolant
        self.path, self.t, self.tau = path, t, tau
        self.n_mu, self.n_sigma = model.n_mu, model.n_sigma
        self.alpha, self.sigma = path.alpha(r), path.sigma(r)
        self.sigma_t = path.sigma(t)
        self.h = log_snr(path, r) - log_snr(path, t)
        self.k = 1.0 + tau**2
        # e^-h. Rounding leaves some paths an alpha(t_noise) below 0.
        self.kept = at_least(
            path.alpha(t) * self.sigma / (self.sigma_t * self.alpha), 0.0
        )

    def node(self, t):
        """Where the time t lies on the span, from 0 to h; (B,)."""
        return log_snr(self.path, t) - log_snr(self.path, self.t)

    def moments(self, count):
        """k int_0^h e^(-k (h - u)) u^j du for j < count, each (B,)."""
        found = [1.0 - self.kept**self.k]
        for j in range(1, count):
            found.append(self.h**j - j / self.k * found[-1])
        return found

    def end(self, x, integral, noise=None):
        """x_r from x_t and the integral of x_hat, both (B, ...)."""
        share = self.tau**2
        # Noise n ~ N(n_mu, n_sigma^2): its mean is not drawn anew.
        x = x - bcast_right(self.sigma_t * self.n_mu, x)
        scale = self.sigma / self.sigma_t * self.kept**share
        mean = bcast_right(scale, x) * x + bcast_right(self.alpha, x) * integral
        mean = mean + bcast_right(self.sigma * self.n_mu, x)
        if noise is None:
            return mean
        std = self.sigma * ops.sqrt(1.0 - self.kept ** (2.0 * share))
        return mean + bcast_right(self.n_sigma * std, x) * noise


def integral(values, nodes, moments):
    """The polynomial through (nodes, values), u^j replaced by moments[j].

    In Newton's form, whose differences keep their digits.

    Args:
        values: tensors (B, ...).
        nodes: as many tensors (B,), no two the same.
        moments: as many tensors (B,).
    """
    total, basis, table = 0.0, [1.0], list(values)
    for j, node in enumerate(nodes):
        weight = sum(c * m for c, m in zip(basis, moments, strict=False))
        total = total + bcast_right(weight, values[0]) * table[0]
        # basis times (u - node), coefficients of rising powers.
        basis = [a - node * b for a, b in zip(
            [0.0, *basis], [*basis, 0.0], strict=True
        )]  # fmt: skip
        table = [
            (after - before)
            / bcast_right(nodes[i + j + 1] - nodes[i], values[0])
            for i, (before, after) in enumerate(
                zip(table[:-1], table[1:], strict=True)
            )
        ]
    return total


def check_order(argument, value, highest):
    """Refuse an order that is not one of 1 ... highest."""
    if isinstance(value, bool) or value not in range(1, highest + 1):
        raise ValueError(
            f"`{argument}` must be one of {list(range(1, highest + 1))}. "
            f"Received: {value!r}."
        )


def check_tau(value):
    if not value >= 0:
        raise ValueError(f"`tau` must not be negative. Received: {value!r}.")
