"""Bridge matching: stochastic interpolants between two data sets."""

import dataclasses

from keras import ops

from keras_flows.objectives.base import Objective
from keras_flows.ops import check_same_shape
from keras_flows.ops import register


@register
@dataclasses.dataclass(frozen=True)
class BridgeMatching(Objective):
    """E |v(x_t) - d/dt(alpha x_1 + sigma x_0)|^2 + E |eta(x_t) - z|^2.

    Source: arXiv 2303.08797. A batch's x is the pair (x_1, x_0).
    """

    name = "bridge_matching"
    terms = ("velocity_loss", "noise_loss")

    gaussian = False
    weighs = False

    def check(self, model):
        if model.interpolant.gaussian:
            raise ValueError(
                "`objective` 'bridge_matching' is that of "
                "kf.StochasticInterpolantInterface. Received: "
                f"{type(model).__name__}."
            )

    def __call__(self, model, batch):
        x_1, x_0 = batch.x
        inputs = {"condition": batch.condition, "training": batch.training}
        z = model.sample_n(ops.shape(x_1))
        t = model.sample_t(ops.shape(x_1)[:1])
        x_t = model.interpolant.bridge(x_1, x_0, z, t)
        output = model.net(x_t, t, **inputs)
        velocity = batch.norm(output - model.target(x_1, x_0, t))
        if model.noise_network is None:
            return {"loss": velocity, "velocity_loss": velocity}
        eta = model.net(x_t, t, network=model.noise_network, **inputs)
        noise = batch.norm(eta - z)
        check_same_shape(velocity=velocity, noise=noise)
        return {
            "loss": velocity + noise,
            "velocity_loss": velocity,
            "noise_loss": noise,
        }
