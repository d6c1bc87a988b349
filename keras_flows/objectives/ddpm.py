"""Improved DDPM's hybrid loss, which learns the reverse variances too."""

import dataclasses
import math

import numpy as np
from keras import ops

from keras_flows.objectives.base import Objective
from keras_flows.ops import bcast_right
from keras_flows.ops import check_same_shape
from keras_flows.ops import mean_flat
from keras_flows.ops import register
from keras_flows.ops.scalars import NOT_NEGATIVE
from keras_flows.ops.scalars import checked


@register
@checked(vlb_weight=NOT_NEGATIVE)
@dataclasses.dataclass(frozen=True)
class Hybrid(Objective):
    """L_simple + vlb_weight T L_vlb; L_vlb trains the variances alone.

    Source: arXiv 2102.09672; with vlb_weight = 0.001 what DiT is trained by.

    Args:
        vlb_weight: weight of the bound, over T.
    """

    vlb_weight: float = 1e-3

    name = "hybrid"
    terms = ("mse", "vlb")

    def check(self, model):
        if not getattr(model, "learn_sigma", False):
            raise ValueError(
                "`objective` 'hybrid' is that of kf.DiscreteInterface(..., "
                f"learn_sigma=True). Received: {type(model).__name__}."
            )

    def __call__(self, model, batch):
        x, path = batch.x, model.interpolant
        n = model.sample_n(ops.shape(x))
        t = model.draw_t(x)
        x_t = model.sample_x_t(x, n, t)
        output, share = model.net_and_share(
            x_t, t, condition=batch.condition, training=batch.training
        )
        mse = batch.norm(output - model.target(x, n, t))
        weight = model.loss_weight(t)
        x_hat = model.parametrization.data(x_t, output, t)
        x_hat = ops.stop_gradient(x_hat)
        vlb = variational_bound(path, x, x_hat, share, t, batch.mean)
        check_same_shape(mse=mse, weight=weight, vlb=vlb)
        loss = weight * mse + self.vlb_weight * path.num_timesteps * vlb
        return {"loss": loss, "mse": mse, "vlb": vlb}


def variational_bound(path, x, x_hat, share, t, mean=mean_flat):
    """One term of the variational bound, in bits per dimension, (B,).

    KL(q(x_{k-1} | x_k, x) || p(x_{k-1} | x_k)) and, at k = 0, -log p(x | x_0)
    of 8-bit values in [-1, 1]. The means differ by their coefficient of x
    times x - x_hat; p's log variance is `share` of the way from log
    posterior variance (-1) to log beta (1).

    Args:
        path: a `DiscreteVariancePreserving`.
        x, x_hat: data and its prediction, (B, ...).
        share: the network's, shaped like x.
        t: times of whole timesteps, (B,).
        mean: of the elements of each example, (B, ...) to (B,).
    """
    low, high, coefficient = (
        bcast_right(path.at_timestep(table, t), x)
        for table in (
            path.posterior_log_variance,
            np.log(path.betas),
            path.posterior_data_coefficient,
        )
    )
    log_variance = low + 0.5 * (share + 1.0) * (high - low)
    distance = ops.square(coefficient * (x - x_hat))
    difference = low - log_variance
    kl = 0.5 * (
        ops.exp(difference)
        - 1.0
        - difference
        + distance * ops.exp(-log_variance)
    )
    nll = _discretized_nll(x - x_hat, x, ops.exp(-0.5 * log_variance))
    first = bcast_right(path.timestep(t) < 0.5, x)
    return mean(ops.where(first, nll, kl)) / math.log(2.0)


def _discretized_nll(error, x, precision):
    """-log of a normal's mass on one of 255 intervals of [-1, 1]."""

    def normal(z):
        # The approximation of the published losses.
        cubic = z + 0.044715 * z**3
        return 0.5 * (1.0 + ops.tanh(math.sqrt(2.0 / math.pi) * cubic))

    above = normal(precision * (error + 1.0 / 255.0))
    below = normal(precision * (error - 1.0 / 255.0))
    mass = ops.where(x > 0.999, 1.0 - below, above - below)
    mass = ops.where(x < -0.999, above, mass)
    return -ops.log(ops.maximum(mass, 1e-12))
