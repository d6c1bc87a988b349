"""Stochastic interpolants between two data sets (arXiv 2303.08797)."""

import keras
from keras import ops

from keras_flows.interfaces import checks
from keras_flows.interfaces.interface import Interface
from keras_flows.interpolants import StochasticInterpolant
from keras_flows.ops import check_same_shape
from keras_flows.ops import float_dtype
from keras_flows.ops import register
from keras_flows.training import EMA


def bridge_matching(model, x, condition, training):
    """E |v(x_t) - d/dt(alpha x_1 + sigma x_0)|^2 + E |eta(x_t) - z|^2."""
    x_1, x_0 = x
    z = model.sample_n(ops.shape(x_1))
    t = model.sample_t(ops.shape(x_1)[:1])
    x_t = model.interpolant.bridge(x_1, x_0, z, t)
    error = model.net(
        x_t, t, condition=condition, training=training
    ) - model.target(x_1, x_0, t)
    velocity = model.norm(error)
    if model.noise_network is None:
        return {"loss": velocity, "velocity_loss": velocity}
    eta = model.net(
        x_t,
        t,
        condition=condition,
        network=model.noise_network,
        training=training,
    )
    noise = model.norm(eta - z)
    check_same_shape(velocity=velocity, noise=noise)
    return {
        "loss": velocity + noise,
        "velocity_loss": velocity,
        "noise_loss": noise,
    }


bridge_matching.terms = ("velocity_loss", "noise_loss")
register(bridge_matching)


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
        network,
        noise_network=None,
        *,
        interpolant=None,
        train_time_dist_type="uniform",
        ema=0.9999,
        **kwargs,
    ):
        path = StochasticInterpolant() if interpolant is None else interpolant
        kwargs.setdefault("objective", bridge_matching)
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
            checks.check_network(noise_network, False, "the noise network")
        self.noise_network = noise_network
        self.noise_emas = []
        if noise_network is not None:
            self.noise_emas = [EMA(decay=e.decay, std=e.std) for e in self.emas]
            self._average(self.noise_emas, noise_network, "noise_ema")

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
        x_1, x_0 = x
        checks.check_data(x_1, self.sample_shape, "x_1")
        checks.check_data(x_0, self.sample_shape, "x_0")
        x = tuple(ops.cast(part, float_dtype()) for part in (x_1, x_0))
        if training:
            condition = self.drop_condition(condition)
        return self.objective.fn(
            self, x, condition, training, **self.objective_args
        )

    def pred_and_score(self, x_t, t, *, condition=None, network=None):
        path = self.interpolant
        v = self.net(x_t, t, condition=condition, network=network)
        if self.noise_network is None:
            raise ValueError(
                "There is no score without a latent: gamma='none'. Use an "
                "ODE sampler."
            )
        eta = self.net(
            x_t, t, condition=condition, network=self._noise_net(network)
        )
        return path.drift(v, eta, t), path.score_from_latent(eta, t)

    def pred(self, x_t, t, r=None, *, condition=None, network=None,
             training=False):  # fmt: skip
        """b = v + gamma' eta, the velocity of the probability flow."""
        v = self.net(
            x_t, t, condition=condition, network=network, training=training
        )
        if self.noise_network is None:
            return v
        eta = self.net(
            x_t, t, condition=condition, network=self._noise_net(network)
        )
        return self.interpolant.drift(v, eta, t)

    def _noise_net(self, network):
        """The noise network that belongs to `network`, averaged or not."""
        for ema, noise_ema in zip(self.emas, self.noise_emas, strict=True):
            if network is ema.averaged():
                return noise_ema.averaged()
        return self.noise_network

    def _export_layers(self, use_ema):
        network = self.inference_network(use_ema)
        if self.noise_network is None:
            return [network]
        return [network, self._noise_net(network)]

    def _check_fit(self, x, y):
        if isinstance(x, tuple):
            x, y = x[0], None
        checks.check_host_array(x, self.sample_shape, "x")
        checks.check_host_array(y, self.sample_shape, "x_0")

    def get_config(self):
        noise = self.noise_network
        return {
            **super().get_config(),
            "noise_network": None
            if noise is None
            else keras.saving.serialize_keras_object(noise),
        }
