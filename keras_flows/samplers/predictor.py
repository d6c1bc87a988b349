"""What a sampler sees: a model with network and condition filled in."""

from keras import ops
from keras import tree


class Bound:
    """A model with its network and condition filled in.

    Has the methods that samplers use, with the model's meaning, all of x
    (B, ...) and times (B,).

    Args:
        model: an `Interface`.
        network: the network to call, by default the model's own.
        condition: tensor or structure, or None.
    """

    def __init__(self, model, network=None, condition=None):
        self.model = model
        self.interpolant = model.interpolant
        self.n_mu, self.n_sigma = model.n_mu, model.n_sigma
        self.provides = model.provides
        self.learn_sigma = getattr(model, "learn_sigma", False)
        self.network = network
        self.condition = condition

    def joins(self, other):
        """Whether one call on a doubled batch serves both predictors."""
        return (
            type(other) is Bound
            and self.model is other.model
            and self.network is other.network
        )

    def joined(self, other):
        """The predictor of that doubled batch, own rows first."""
        condition = tree.map_structure(
            lambda c, n: ops.concatenate([c, n]),
            self.condition,
            other.condition,
        )
        return Bound(self.model, self.network, condition)

    def pred(self, x, t):
        """Velocity, (B, ...)."""
        return self.model.pred(
            x, t, condition=self.condition, network=self.network
        )

    def jump(self, x, t, r):
        """Flow map X_{t->r}(x), (B, ...)."""
        return self.model.jump(
            x, t, r, condition=self.condition, network=self.network
        )

    def end(self, x, t):
        """Where the flow from x ends, (B, ...)."""
        return self.model.end(
            x, t, condition=self.condition, network=self.network
        )

    def denoise(self, x, t):
        """Predicted data, (B, ...)."""
        return self.model.denoise(
            x, t, condition=self.condition, network=self.network
        )

    def pred_and_score(self, x, t):
        """(velocity, score), from one network call."""
        return self.model.pred_and_score(
            x, t, condition=self.condition, network=self.network
        )

    def denoise_and_share(self, x, t):
        """(predicted data, share of the variance or None)."""
        if not self.learn_sigma:
            return self.denoise(x, t), None
        return self.model.denoise_and_share(
            x, t, condition=self.condition, network=self.network
        )


class EndOfFlow:
    """A predictor whose data is where the flow ends, and nothing else.

    Args:
        inner: a predictor whose `denoise` is that end, such as a distilled
            generator.
    """

    provides = frozenset({"end"})
    learn_sigma = False

    def __init__(self, inner):
        self.inner = inner
        self.interpolant = inner.interpolant
        self.n_mu, self.n_sigma = inner.n_mu, inner.n_sigma

    def joins(self, other):
        """See `Bound.joins`."""
        return type(other) is EndOfFlow and self.inner.joins(other.inner)

    def joined(self, other):
        """See `Bound.joined`."""
        return EndOfFlow(self.inner.joined(other.inner))

    def end(self, x, t):
        """Where the flow from x ends, (B, ...)."""
        return self.inner.denoise(x, t)
