"""SiT: velocity prediction on a linear path (arXiv 2401.08740)."""

from __future__ import annotations

import typing

from keras_flows.interfaces.interface import Interface
from keras_flows.interpolants import Linear
from keras_flows.ops import register

if typing.TYPE_CHECKING:
    from typing import Any

    import keras

    from keras_flows.interpolants.base import Interpolant
    from keras_flows.interpolants.time_laws import TimeLaw


@register
class SiTInterface(Interface):
    """Flow matching on x_t = (1 - t) x + t n, noise at t = 1.

    L = E |network(x_t, t) - (n - x)|^2; pred = network; the score is
    -(x_t + (1 - t) v) / t for unit noise; x = x_t - t v.

    Args:
        network: see `Interface`.
        train_time_dist_type: default "logitnormal".
        t_mu, t_sigma, n_mu, n_sigma, x_sigma, t_shift_base: see `Interface`.
        interpolant: default `Linear(noise_at=1.0)`; any other is a choice of
            path with the same velocity objective.
        cond_drop_ratio, ema, max_skipped_steps, seed, name: see `Interface`.
    """

    def __init__(
        self,
        network: keras.Model,
        train_time_dist_type: str | TimeLaw = "logitnormal",
        t_mu: float = 0.0,
        t_sigma: float = 1.0,
        n_mu: float = 0.0,
        n_sigma: float = 1.0,
        x_sigma: float = 0.5,
        t_shift_base: float | None = 4096,
        *,
        interpolant: str | Interpolant | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            network,
            Linear(noise_at=1.0) if interpolant is None else interpolant,
            train_time_dist_type, t_mu, t_sigma, n_mu, n_sigma, x_sigma,
            t_shift_base, **kwargs,
        )  # fmt: skip

    @property
    def default_num_steps(self):
        return 50
