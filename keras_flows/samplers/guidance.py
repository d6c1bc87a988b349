"""What a sampler sees: a model bound to weights, condition and guidance."""

from keras import ops
from keras import tree


class Predictor:
    """A model with its network, condition and guidance filled in.

    Has the methods that samplers use, with the model's meaning. With
    guidance every prediction is
    p(negative) + scale (p(condition) - p(negative)): classifier-free
    guidance (arXiv 2207.12598), a scale of 1 being off; outside `interval`
    the scale is 1 (arXiv 2404.07724). Both predictions come from one call
    on a doubled batch.

    Args:
        model: an `Interface`.
        network: the network to call, by default the model's own.
        condition: tensor or structure, or None.
        negative_condition: what guidance leads away from; None for no
            guidance.
        scale: scalar, number or tensor.
        interval: (low, high), two noise fractions between which guidance
            acts, or None for everywhere.
    """

    def __init__(
        self,
        model,
        network=None,
        condition=None,
        negative_condition=None,
        scale=1.0,
        interval=None,
    ):
        self.model = model
        self.interpolant = model.interpolant
        self.n_mu, self.n_sigma = model.n_mu, model.n_sigma
        self.network = network
        self.condition = condition
        self.negative_condition = negative_condition
        self.scale = scale
        self.interval = interval

    def _guided(self, method, x, *times):
        if self.negative_condition is None:
            return method(
                x, *times, condition=self.condition, network=self.network
            )
        both = method(
            ops.concatenate([x, x]),
            *(ops.concatenate([t, t]) for t in times),
            condition=tree.map_structure(
                lambda c, n: ops.concatenate([c, n]),
                self.condition,
                self.negative_condition,
            ),
            network=self.network,
        )
        return tree.map_structure(lambda p: self._combine(p, times[0]), both)

    def _combine(self, both, t):
        positive, negative = ops.split(both, 2)
        scale = ops.cast(self.scale, both.dtype) * ops.ones_like(t)
        if self.interval is not None:
            low, high = self.interval
            f = self.interpolant.noise_fraction(t)
            inside = ops.logical_and(f >= low, f <= high)
            scale = ops.where(inside, scale, ops.ones_like(scale))
        scale = self.model.bcast_right(scale, positive)
        return negative + scale * (positive - negative)

    def pred(self, x, t):
        """Velocity, (B, ...)."""
        return self._guided(self.model.pred, x, t)

    def jump(self, x, t, r):
        """Flow map X_{t->r}(x), (B, ...)."""
        return self._guided(self.model.jump, x, t, r)

    def denoise(self, x, t):
        """Predicted data, (B, ...)."""
        return self._guided(self.model.denoise, x, t)

    def pred_and_score(self, x, t):
        """(velocity, score), from one network call."""
        return self._guided(self.model.pred_and_score, x, t)
