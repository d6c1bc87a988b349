"""EDM: preconditioned denoising on the variance-exploding path."""

from __future__ import annotations

import typing

from keras_flows.interfaces.interface import Interface
from keras_flows.interpolants import VarianceExploding
from keras_flows.interpolants import get as get_interpolant
from keras_flows.ops import register
from keras_flows.parametrization import Karras
from keras_flows.samplers import Heun

if typing.TYPE_CHECKING:
    from typing import Any

    import keras

    from keras_flows.interpolants.base import Interpolant
    from keras_flows.interpolants.time_laws import TimeLaw


@register
class EDMInterface(Interface):
    """x_t = x + t n; D(x_t, t) = c_skip x_t + c_out network(c_in x_t, c_noise).

    L = E (t^2 + sd^2) / (t sd)^2 |D - x|^2 with sd = x_sigma;
    pred = (x_t - D) / t; score = (D - x_t) / t^2 for unit noise.
    Source: arXiv 2206.00364, table 1.

    Args:
        network: see `Interface`.
        train_time_dist_type: default "lognormal", ln t ~ N(t_mu, t_sigma^2).
        t_mu, t_sigma, n_mu, n_sigma, x_sigma: see `Interface`.
        interpolant: a `VarianceExploding`, for other noise levels.
        cond_drop_ratio, ema, max_skipped_steps, seed, name: see `Interface`.
    """

    def __init__(
        self,
        network: keras.Model,
        train_time_dist_type: str | TimeLaw = "lognormal",
        t_mu: float = -1.2,
        t_sigma: float = 1.2,
        n_mu: float = 0.0,
        n_sigma: float = 1.0,
        x_sigma: float = 0.5,
        *,
        t_shift_base: float | None = None,
        interpolant: str | Interpolant | None = None,
        **kwargs: Any,
    ) -> None:
        path = VarianceExploding() if interpolant is None else interpolant
        path = get_interpolant(path)
        if not isinstance(path, VarianceExploding):
            raise ValueError(
                "`interpolant` of EDMInterface must be a VarianceExploding. "
                f"Received: {path}."
            )
        super().__init__(
            network,
            path,
            train_time_dist_type, t_mu, t_sigma, n_mu, n_sigma, x_sigma,
            t_shift_base, **kwargs,
        )  # fmt: skip

    def make_parametrization(self):
        return Karras(self.interpolant, self.x_sigma)

    @property
    def default_num_steps(self):
        return 18

    @property
    def default_sampler(self):
        return Heun()
