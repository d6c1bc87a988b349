"""Distribution matching: a generator whose scores are the teacher's.

mu(x_t, t) is a prediction of the data: `real` by the teacher, `fake` by a
network that follows the generator's own samples. Each function returns the
generator's loss, (B,), at noised samples x_t of its sample x.
"""

from keras import ops

from keras_flows.ops import bcast_right
from keras_flows.ops import mean_flat


def _unit(x, real):
    """1 / mean |x - real|, (B, 1, ...): one scale for all noise levels."""
    size = ops.maximum(mean_flat(ops.abs(x - real)), 1e-5)
    return bcast_right(1.0 / ops.stop_gradient(size), x)


def dmd(x, real, fake):
    """1/2 |x - sg(x - w (fake - real))|^2, w = 1 / mean |x - real|.

    Its gradient by x is w (fake - real) / D, the difference of the scores
    up to a factor. Source: arXiv 2311.18828, 2405.14867.
    """
    gradient = _unit(x, real) * (fake - real)
    error = x - ops.stop_gradient(x - gradient)
    return 0.5 * mean_flat(ops.square(error))


def sid(x, real, fake, alpha=1.0):
    """w mean (real - fake) (real - x - alpha (real - fake)).

    The gradient goes through x_t and both networks. For alpha = 0 the mean
    over the noise is that of |real - fake|^2 when `fake` has converged; alpha
    about 1 takes off what it has not. Source: score identity distillation,
    arXiv 2404.04057.
    """
    difference = real - fake
    terms = difference * (real - x - alpha * difference)
    return mean_flat(_unit(x, real) * terms)


def adversary(fake_logit, real_logit):
    """-log D(real) - log (1 - D(fake)), what the discriminator minimizes."""
    return ops.softplus(fake_logit) + ops.softplus(-real_logit)


def adversarial(fake_logit):
    """-log D(fake), the generator's part (arXiv 2405.14867)."""
    return ops.softplus(-fake_logit)
