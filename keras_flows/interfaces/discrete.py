"""DDPM: diffusion in discrete time (arXiv 2006.11239, 2102.09672)."""

from __future__ import annotations

import typing

import keras
from keras import ops

from keras_flows.interfaces.arguments import checked_arguments
from keras_flows.interfaces.arguments import with_arguments
from keras_flows.interfaces.interface import Interface
from keras_flows.interpolants import DiscreteVariancePreserving
from keras_flows.objectives import Hybrid
from keras_flows.ops import float_dtype
from keras_flows.ops import given
from keras_flows.ops import on_state
from keras_flows.ops import register
from keras_flows.parametrization import Data
from keras_flows.parametrization import Noise
from keras_flows.parametrization import V
from keras_flows.samplers import DDPM

if typing.TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

# Arguments of `Interface` that DDPM settles.
_SETTLED = (
    "interpolant", "train_time_dist_type", "t_mu", "t_sigma", "n_mu",
    "n_sigma", "x_sigma", "t_shift_base", "objective",
)  # fmt: skip


PREDICTIONS = {"eps": Noise, "x0": Data, "v": V}


@register
class DiscreteInterface(Interface):
    """DDPM on T timesteps, with DDPM and DDIM sampling.

    x_t = sqrt(abar_k) x + sqrt(1 - abar_k) n with k uniform on 0 ... T - 1;
    L = E weight |network(x_t, k) - target|^2. The target is n ("eps"), x
    ("x0") or sqrt(abar) n - sqrt(1 - abar) x ("v", arXiv 2202.00512).
    Elsewhere in the library timestep k is the time (k + 1) / T, and `pred`
    is dx_t/dt in that time.

    The network sees `time_scale` k, by default the timestep itself, from 0
    to T - 1, as the published weights of ADM and DiT expect it. Networks
    made for times in [0, 1], such as `MLP`, want time_scale = 1 / T.

    Args:
        network: see `Interface`; with `learn_sigma` its output has twice the
            channels of x.
        schedule: "linear", "cosine", "scaled_linear" or the betas; see
            `DiscreteVariancePreserving`.
        num_timesteps: T, by default 1000 or the number of betas.
        prediction: "eps", "x0" or "v".
        zero_terminal_snr: see `DiscreteVariancePreserving`; not for "eps".
        learn_sigma: whether the second half of the channels chooses the
            variances, from the posterior's (-1) to beta (1), trained by the
            variational bound (arXiv 2102.09672), as DiT is.
        weighting: "simple" for 1 or "min_snr" (arXiv 2303.09556), which is
            min(SNR, gamma) in the loss of x, gamma being `min_snr_gamma`.
        min_snr_gamma: see `weighting`.
        vlb_weight: weight of the bound, over T.
        time_scale: what the timestep is multiplied by for the network.
        norm, cond_drop_ratio, null_label, ema, max_skipped_steps, seed, name:
            see `Interface`.
    """

    @checked_arguments
    def __init__(
        self,
        network: keras.Model,
        schedule: str | Sequence[float] = "linear",
        num_timesteps: int | None = None,
        prediction: str = "eps",
        *,
        zero_terminal_snr: bool = False,
        learn_sigma: bool = False,
        weighting: str = "simple",
        min_snr_gamma: float = 5.0,
        vlb_weight: float = 1e-3,
        time_scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        given.choice("prediction", prediction, PREDICTIONS)
        if zero_terminal_snr and prediction == "eps":
            raise ValueError(
                "`zero_terminal_snr=True` needs `prediction='v'` or 'x0': at "
                "the last timestep x_t is the noise, and predicting it says "
                "nothing of the data. Received: prediction='eps'."
            )
        given.choice("weighting", weighting, ("simple", "min_snr"))
        # Before the base's constructor, which asks for the parametrization.
        self.prediction, self.learn_sigma = prediction, learn_sigma
        super().__init__(
            network,
            DiscreteVariancePreserving(
                schedule, num_timesteps, zero_terminal_snr
            ),
            t_shift_base=None,
            objective=Hybrid(vlb_weight) if learn_sigma else "flow",
            **kwargs,
        )
        self.weighting = weighting
        self.min_snr_gamma = min_snr_gamma
        self.vlb_weight = vlb_weight
        self.time_scale = time_scale

    def make_parametrization(self):
        return PREDICTIONS[self.prediction](self.interpolant)

    @property
    def output_parts(self):
        """2 with `learn_sigma`: the prediction, and the variances' share."""
        return 2 if self.learn_sigma else 1

    def c_noise(self, t):
        """`time_scale` times the timestep."""
        return self.time_scale * self.interpolant.timestep(t)

    def scale_output(self, x_t, t, output):
        return ops.cast(output, float_dtype())

    def net(self, x_t, t, r=None, *, condition=None, network=None,
            training=False):  # fmt: skip
        """The prediction alone, without a learned share of the variance."""
        return self.net_and_share(
            x_t, t, condition=condition, network=network, training=training
        )[0]

    def net_and_share(self, x_t, t, *, condition=None, network=None,
                      training=False):  # fmt: skip
        """(prediction, share of the variance or None), each (B, ...)."""
        output = super().net(
            x_t, t, condition=condition, network=network, training=training
        )
        if not self.learn_sigma:
            return output, None
        return tuple(ops.split(output, 2, axis=-1))

    def denoise_and_share(self, x_t, t, *, condition=None, network=None):
        """(predicted data, share of the variance), from one network call."""
        x_t, t, _ = on_state(x_t, t)
        output, share = self.net_and_share(
            x_t, t, condition=condition, network=network
        )
        return self.parametrization.data(x_t, output, t), share

    def loss_weight(self, t):
        """1, or min(SNR, gamma) over the SNR weight of the target."""
        if self.weighting == "simple":
            return ops.ones_like(t)
        path = self.interpolant
        snr = ops.square(path.alpha(t) / path.sigma(t))
        # |error of x|^2 is |error of the target|^2 / own.
        own = {"eps": snr, "x0": ops.ones_like(snr), "v": snr + 1.0}
        return ops.minimum(snr, self.min_snr_gamma) / own[self.prediction]

    def sample_t(self, shape, seed=None):
        """Times of uniform timesteps."""
        count = self.interpolant.num_timesteps
        if seed is None:
            uniform = self.sample_uniform(shape)
        else:
            uniform = keras.random.uniform(
                shape, dtype=float_dtype(), seed=seed
            )
        k = ops.floor(uniform * count)
        return (ops.minimum(k, count - 1.0) + 1.0) / count

    @property
    def default_num_steps(self):
        return min(250, self.interpolant.num_timesteps)

    @property
    def default_sampler(self):
        return DDPM()

    def get_config(self):
        config = super().get_config()
        for settled in _SETTLED:
            config.pop(settled)
        config |= self.interpolant.get_config()
        if not isinstance(config["schedule"], str):
            config["schedule"] = list(config["schedule"])
        return with_arguments(config, self, DiscreteInterface)
