"""A trained model carried over to another path."""

import keras
from keras import ops

from keras_flows.interfaces.interface import Interface
from keras_flows.interfaces.wrapper import SamplingWrapper
from keras_flows.interpolants import get as get_interpolant
from keras_flows.ops import bcast_right
from keras_flows.ops import register


@register
class ReparametrizedInterface(SamplingWrapper):
    """The same model on another interpolant, exactly.

    Two paths that mix data and noise in the same ratio sigma / alpha differ
    by a factor: x_t on the new path is c times the wrapped model's x at its
    time of that ratio, c = sqrt((alpha^2 + sigma^2) / (alpha'^2 + sigma'^2)).
    The model's data and noise there give every prediction here
    (arXiv 2206.00364, section 2). So an EDM can teach a student on `TrigFlow`,
    and a flow be sampled on the path that a solver likes.

    Training (`loss`) is the wrapped model's.

    Args:
        interface: the interface to wrap.
        interpolant: the new path, an `Interpolant` or its name.
        name: model name.
    """

    def __init__(self, interface, interpolant, name=None):
        super().__init__(interface, name=name)
        self._path = get_interpolant(interpolant)
        self._init_generation()
        self._track()
        self.built = True

    @property
    def interpolant(self):
        """The new path."""
        return self._path

    def loss(self, x, condition=None, extras=None, *, training=True):
        """The wrapped interface's loss, on its own path."""
        return self.interface.loss(x, condition, extras, training=training)

    def _inner_time(self, t):
        """(the wrapped model's time, its x over ours), each (B,)."""
        alpha, sigma = self._path.alpha(t), self._path.sigma(t)
        # Pure noise has no finite ratio: one that float32 rounds to it.
        ratio = sigma / ops.maximum(alpha, 1e-7 * sigma + 1e-30)
        path = self.interface.interpolant
        low, high = sorted((path.t_noise, path.t_last))
        time = ops.clip(path.time_from_ratio(ratio), low, high)
        own = ops.square(alpha) + ops.square(sigma)
        inner = ops.square(path.alpha(time)) + ops.square(path.sigma(time))
        return time, ops.sqrt(inner / own)

    def net(self, x_t, t, r=None, *, condition=None, network=None,
            training=False):  # fmt: skip
        """As `pred`: the network predicts on the wrapped model's path."""
        return self.pred(
            x_t, t, r, condition=condition, network=network, training=training
        )

    def pred(self, x_t, t, r=None, *, condition=None, network=None,
             training=False):  # fmt: skip
        """Velocity dx_t/dt on the new path; with r the average to r."""
        if r is not None:
            x_r = self.jump(x_t, t, r, condition=condition, network=network)
            return (x_r - x_t) / bcast_right(r - t, x_t)
        time, factor = self._inner_time(t)
        x = bcast_right(factor, x_t) * x_t
        v = self.interface.pred(
            x, time, condition=condition, network=network, training=training
        )
        path = self.interface.interpolant
        return self._path.velocity(
            path.data_from_velocity(x, v, time),
            path.noise_from_velocity(x, v, time),
            t,
        )

    def denoise(self, x_t, t, *, condition=None, network=None):
        """Predicted data E[x | x_t], (B, ...)."""
        time, factor = self._inner_time(t)
        return self.interface.denoise(
            bcast_right(factor, x_t) * x_t,
            time,
            condition=condition,
            network=network,
        )

    def jump(self, x_t, t, r, *, condition=None, network=None):
        """X_{t->r} on the new path, (B, ...)."""
        time, factor = self._inner_time(t)
        end, end_factor = self._inner_time(r)
        x_r = self.interface.jump(
            bcast_right(factor, x_t) * x_t,
            time,
            end,
            condition=condition,
            network=network,
        )
        return x_r / bcast_right(end_factor, x_r)

    @property
    def prediction(self):
        """What `net` returns here: "velocity"."""
        return "velocity"

    # On the path here, not the wrapped model's.
    pred_and_score = Interface.pred_and_score
    score = Interface.score
    sample_x_t = Interface.sample_x_t
    endpoints = Interface.endpoints
    target = Interface.target
    loss_weight = Interface.loss_weight

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            "interface": serialize(self.interface),
            "interpolant": serialize(self._path),
            "name": self.name,
        }
