"""Stochastic interpolants between two data sets (arXiv 2303.08797)."""

from __future__ import annotations

import typing

from keras import ops

from keras_flows.interfaces.interface import Interface
from keras_flows.interpolants import StochasticInterpolant
from keras_flows.networks import contract
from keras_flows.networks import serialize_network
from keras_flows.objectives import BridgeMatching
from keras_flows.ops import float_dtype
from keras_flows.ops import on_state
from keras_flows.ops import register
from keras_flows.training import EMA
from keras_flows.training import data_checks

if typing.TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    import keras

    from keras_flows.interpolants.base import Interpolant
    from keras_flows.interpolants.time_laws import TimeLaw


def _check_same_inputs(network, noise_network):
    """The two are called with one dict."""
    own, others = map(contract.input_names, (network, noise_network))
    if None not in (own, others) and own != others:
        raise ValueError(
            "`noise_network` must take the inputs of `network`, "
            f"{sorted(own)}. Received one of {sorted(others)}."
        )


@register
class StochasticInterpolantInterface(Interface):
    """Maps any data set x_0 to any other x_1 through gamma(t) z.

    Two networks: `network` learns v = E[d/dt(alpha x_1 + sigma x_0) | x_t],
    `noise_network` eta = E[z | x_t]. The probability flow has the velocity
    v + gamma' eta, the score is -eta / gamma; ODE and SDE sampling start
    from x_0, `generate(noise=x_0)`. A batch is (x_1, x_0) or
    (x_1, x_0, condition).

    Args:
        network: see `Interface`.
        noise_network: a network of the same inputs, or None with
            `gamma="none"`, where there is no score.
        interpolant: a `StochasticInterpolant`.
        train_time_dist_type: default "uniform".
        ema, seed, name, ...: see `Interface`. The EMA averages both networks.
    """

    def __init__(
        self,
        network: keras.Model,
        noise_network: keras.Model | None = None,
        *,
        interpolant: str | Interpolant | None = None,
        train_time_dist_type: str | TimeLaw = "uniform",
        ema: float | EMA | Sequence[float | EMA] | None = 0.9999,
        **kwargs: Any,
    ) -> None:
        path = StochasticInterpolant() if interpolant is None else interpolant
        kwargs.setdefault("objective", BridgeMatching())
        super().__init__(network, path, train_time_dist_type, ema=ema, **kwargs)
        if not isinstance(self.interpolant, StochasticInterpolant):
            raise ValueError(
                "`interpolant` must be a StochasticInterpolant. "
                f"Received: {self.interpolant}."
            )
        if (noise_network is None) != (self.interpolant.gamma == "none"):
            raise ValueError(
                "`noise_network` is needed exactly where gamma is not "
                f"'none'. Received noise_network={noise_network} and "
                f"gamma='{self.interpolant.gamma}'."
            )
        if noise_network is not None:
            contract.check_network(noise_network, False, "the noise network")
            _check_same_inputs(network, noise_network)
        self.noise_network = noise_network
        self.noise_emas = []
        if noise_network is not None:
            self.noise_emas = [EMA(decay=e.decay, std=e.std) for e in self.emas]
            self.average(self.noise_emas, noise_network, "noise_ema")

    @property
    def default_num_steps(self):
        return 50

    def unpack(self, data):
        if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
            raise ValueError(
                "A batch must be (x_1, x_0) or (x_1, x_0, condition): the "
                "data, and what it comes from."
            )
        x_1, x_0, condition = (*data, None)[:3]
        return (x_1, x_0), condition, None

    def loss(self, x, condition=None, extras=None, *, training=True):
        """The objective's terms for the pair x = (x_1, x_0), each (B,)."""
        if extras is not None:
            raise ValueError(
                f"A {type(self).__name__} takes batches (x_1, x_0) or (x_1, "
                "x_0, condition): a 'mask', weights or other extras would be "
                f"lost. Received: {extras!r}."
            )
        x_1, x_0 = x
        contract.check_data(x_1, self.data_shape, "x_1")
        contract.check_data(x_0, self.data_shape, "x_0")
        pair = tuple(ops.cast(part, float_dtype()) for part in (x_1, x_0))
        return self.batch_loss(pair, condition, None, training)

    @property
    def provides(self):
        known = {"velocity"}
        if self.interpolant.gamma != "none":
            known.add("score")
        return frozenset(known)

    def start(self, noise, t=None):
        """x_0 itself."""
        return self.interpolant.initial(noise)

    def denoise(self, x_t, t, *, condition=None, network=None):
        """Not defined: x_t has three parts, and two predictions."""
        self.require("data", "denoise")

    def pred_and_score(self, x_t, t, *, condition=None, network=None):
        self.require("score", "score")
        x_t, t, _ = on_state(x_t, t)
        v, eta = self._both(x_t, t, condition, network)
        path = self.interpolant
        return path.drift(v, eta, t), path.score_from_latent(eta, t)

    def pred(self, x_t, t, r=None, *, condition=None, network=None,
             training=False):  # fmt: skip
        """b = v + gamma' eta, the velocity of the probability flow."""
        if r is not None:
            self.require("map", "pred")
        x_t, t, _ = on_state(x_t, t)
        v, eta = self._both(x_t, t, condition, network, training)
        return v if eta is None else self.interpolant.drift(v, eta, t)

    def _both(self, x_t, t, condition, network, training=False):
        """(v, eta), eta None without a latent."""
        given = {"condition": condition, "training": training}
        v = self.net(x_t, t, network=network, **given)
        if self.noise_network is None:
            return v, None
        return v, self.net(x_t, t, network=self._noise_net(network), **given)

    def _noise_net(self, network):
        """The noise network that belongs to `network`, averaged or not."""
        for ema, noise_ema in zip(self.emas, self.noise_emas, strict=True):
            if network is ema.averaged():
                return noise_ema.averaged()
        return self.noise_network

    def networks(self):
        noise = self.noise_network
        return [self.network] if noise is None else [self.network, noise]

    def complete(self, x, condition=None):
        x = x[0] if isinstance(x, (tuple, list)) else x
        super().complete(x, condition)

    def sampling_layers(self, use_ema=True):
        network = self.inference_network(use_ema)
        if self.noise_network is None:
            return [network]
        return [network, self._noise_net(network)]

    def generate(self, num_samples=None, *, noise=None, start=None, **kwargs):
        """Sample from x_0, `noise`; see `Interface.generate`.

        Raises:
            ValueError: also without `noise` or `start`: there is no law to
                draw x_0 from.
        """
        if noise is None and start is None:
            raise ValueError(
                "`noise` is needed: the samples x_0 that the flow starts "
                "from, (B, ...). A stochastic interpolant joins two data sets "
                "and knows no law of either."
            )
        return super().generate(num_samples, noise=noise, start=start, **kwargs)

    def check_fit(self, x, y):
        if isinstance(x, tuple):
            x, y = x[0], None
        data_checks.check_host_array(x, self.data_shape, "x")
        data_checks.check_host_array(y, self.data_shape, "x_0")

    def get_config(self):
        return {
            **super().get_config(),
            "noise_network": serialize_network(self.noise_network),
        }
