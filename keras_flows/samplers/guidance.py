"""What a sampler sees: a model bound to weights, condition and guidance."""

from keras import ops
from keras import tree


class Predictor:
    """A model with its network, condition and guidance filled in.

    Has the methods that samplers use, with the model's meaning. With
    guidance every prediction is negative + scale (positive - negative), a
    scale of 1 being off. The positive is the model's under `condition`; the
    negative is one of

    - the model's own under `negative_condition`, both from one call on a
      doubled batch: classifier-free guidance (arXiv 2207.12598);
    - that of `guide`, a weaker model: autoguidance (arXiv 2406.02507).

    Outside `interval` the scale is 1 (arXiv 2404.07724).

    Args:
        model: an `Interface`.
        network: the network to call, by default the model's own.
        condition: tensor or structure, or None.
        negative_condition: what guidance leads away from; None for no
            guidance.
        scale: scalar, number or tensor.
        interval: (low, high), two noise fractions between which guidance
            acts, or None for everywhere.
        channels: how many of the (last axis's) channels are guided, the
            first ones; None for all.
        guide: a `Predictor` of the weaker model, or None.
    """

    def __init__(
        self,
        model,
        network=None,
        condition=None,
        negative_condition=None,
        scale=1.0,
        interval=None,
        channels=None,
        guide=None,
    ):
        self.model = model
        self.interpolant = model.interpolant
        self.n_mu, self.n_sigma = model.n_mu, model.n_sigma
        self.learn_sigma = getattr(model, "learn_sigma", False)
        self.network = network
        self.condition = condition
        self.negative_condition = negative_condition
        self.scale = scale
        self.interval = interval
        self.channels = channels
        self.guide = guide

    def _call(self, name, x, *times):
        """The model's own prediction, under the condition."""
        return getattr(self.model, name)(
            x, *times, condition=self.condition, network=self.network
        )

    def _pair(self, name, x, *times):
        """(positive, negative), the negative None without guidance."""
        if self.guide is not None:
            negative = getattr(self.guide, name)(x, *times)
            return self._call(name, x, *times), negative
        if self.negative_condition is not None:
            return self._both(name, x, *times)
        return self._call(name, x, *times), None

    def _guided(self, name, x, *times):
        positive, negative = self._pair(name, x, *times)
        if negative is None:
            return positive
        return tree.map_structure(
            lambda p, n: self._combine(p, n, times[0]), positive, negative
        )

    def _both(self, name, x, *times):
        """Positive and negative, from one call on a doubled batch."""
        both = getattr(self.model, name)(
            ops.concatenate([x, x]),
            *(ops.concatenate([t, t]) for t in times),
            condition=tree.map_structure(
                lambda c, n: ops.concatenate([c, n]),
                self.condition,
                self.negative_condition,
            ),
            network=self.network,
        )
        halves = [ops.split(part, 2) for part in tree.flatten(both)]
        return tuple(
            tree.pack_sequence_as(both, [half[i] for half in halves])
            for i in (0, 1)
        )

    def _combine(self, positive, negative, t):
        scale = ops.cast(self.scale, positive.dtype)
        guided = negative + scale * (positive - negative)
        if self.interval is not None:
            low, high = self.interval
            f = self.interpolant.noise_fraction(t)
            inside = ops.logical_and(f >= low, f <= high)
            guided = ops.where(
                self.model.bcast_right(inside, positive), guided, positive
            )
        if self.channels is None:
            return guided
        k = self.channels
        return ops.concatenate([guided[..., :k], positive[..., k:]], axis=-1)

    def pred(self, x, t):
        """Velocity, (B, ...)."""
        return self._guided("pred", x, t)

    def jump(self, x, t, r):
        """Flow map X_{t->r}(x), (B, ...)."""
        return self._guided("jump", x, t, r)

    def denoise(self, x, t):
        """Predicted data, (B, ...)."""
        return self._guided("denoise", x, t)

    def pred_and_score(self, x, t):
        """(velocity, score), from one network call."""
        return self._guided("pred_and_score", x, t)

    def denoise_and_share(self, x, t):
        """(predicted data, share of the variance); the share is not guided.

        So do DiT's published samples: the variance is the positive's.
        """
        if not self.learn_sigma:
            return self.denoise(x, t), None
        positive, negative = self._pair("denoise_and_share", x, t)
        if negative is None:
            return positive
        return self._combine(positive[0], negative[0], t), positive[1]
