"""A model around a model: it holds, and does not inherit."""

from __future__ import annotations

import operator
import typing

from keras_flows.interfaces.arguments import deserialized
from keras_flows.interfaces.generator import Generator
from keras_flows.interfaces.interface import Interface
from keras_flows.networks import contract
from keras_flows.ops import on_jump
from keras_flows.ops import on_state

if typing.TYPE_CHECKING:
    from collections.abc import Sequence


def _of_interface(name, text):
    """A property: the held interface's attribute."""
    return property(operator.attrgetter(f"interface.{name}"), doc=text)


class Holder(Generator):
    """Base class of models around an interface.

    Path, network, averages and counters are the held interface's, and its
    predictions unless a subclass gives others by `bind`. A subclass gives
    `loss` and `get_config`.

    Args:
        interface: the interface to hold.
        terms: names of terms of the loss beside the interface's own.
        inner_terms: whether the interface's terms are among them.
        name: model name.
    """

    def __init__(
        self,
        interface: Interface,
        terms: Sequence[str] = (),
        *,
        inner_terms: bool = True,
        name: str | None = None,
    ) -> None:
        if not isinstance(interface, (Interface, Holder)):
            raise ValueError(
                "`interface` must be an Interface, such as kf.SiTInterface. "
                f"Received: {interface!r}."
            )
        if inner_terms:
            terms = (*terms, *interface.objective.terms)
        super().__init__(terms=terms, name=name)
        self.interface = interface

    def held(self):
        return (self.interface,)

    # The state is the held interface's.

    network = _of_interface("network", "The network that trains.")
    emas = _of_interface("emas", "The averages of the network.")
    skipped_steps = _of_interface(
        "skipped_steps", "Counter of the steps that were skipped."
    )
    skipped_in_a_row = _of_interface(
        "skipped_in_a_row", "Counter of those in a row."
    )
    max_skipped_steps = _of_interface(
        "max_skipped_steps", "How many there may be in a row."
    )

    # What samples.

    objective = _of_interface("objective", "The held interface's objective.")
    interpolant = _of_interface("interpolant", "The path that is sampled on.")
    provides = _of_interface(
        "provides", "What the predictions are, see `samplers.Sampler.needs`."
    )
    takes_r = _of_interface(
        "takes_r", "Whether the network is called with a second time."
    )
    null_label = _of_interface("null_label", "The label that stands for none.")
    n_mu = _of_interface("n_mu", "Mean of the noise.")
    n_sigma = _of_interface("n_sigma", "Standard deviation of the noise.")
    latents_of = _of_interface(
        "latents_of", "The autoencoder of the latents, see `Interface`."
    )
    default_sampler = _of_interface(
        "default_sampler", "The sampler where `generate` is given none."
    )
    default_num_steps = _of_interface(
        "default_num_steps",
        "Number of sampling steps where `generate` is given none.",
    )

    @property
    def learn_sigma(self):
        """Whether a held `DiscreteInterface` predicts variances."""
        return getattr(self.interface, "learn_sigma", False)

    def sampling_times(self, sampler=None, num_steps=None, start=None):
        return self.interface.sampling_times(sampler, num_steps, start)

    def absorb_guidance(self, condition, scale, rows, interval=None):
        return self.interface.absorb_guidance(condition, scale, rows, interval)

    def sampling_layers(self, use_ema=True):
        return self.interface.sampling_layers(use_ema)

    def bind(self, network, condition):
        return self.interface.bind(network, condition)

    def bound(self, condition, network=None):
        """The predictor of a condition, by the trained network."""
        network = self.network if network is None else network
        return self.bind(network, condition)

    # Predictions, for users: what samplers see.

    def pred(self, x_t, t, r=None, *, condition=None, network=None):
        """Velocity dx_t/dt; with `r` the average from t to r, (B, ...)."""
        self.require("velocity" if r is None else "map", "pred")
        predictor = self.bound(condition, network)
        x_t, t, r = on_state(x_t, t, r)
        if r is None:
            return predictor.pred(x_t, t)
        x_r = predictor.jump(x_t, t, r)
        return (x_r - x_t) / self.bcast_right(r - t, x_t)

    def denoise(self, x_t, t, *, condition=None, network=None):
        """Predicted data, (B, ...)."""
        x_t, t, _ = on_state(x_t, t)
        return self.bound(condition, network).denoise(x_t, t)

    def jump(self, x_t, t, r, *, condition=None, network=None):
        """X_{t->r}(x_t), (B, ...)."""
        asked, (x_t, t, r) = r, on_jump(x_t, t, r)
        if "map" not in self.provides:
            self.require_end(asked)
            return self.end(x_t, t, condition=condition, network=network)
        return self.bound(condition, network).jump(x_t, t, r)

    def end(self, x_t, t, *, condition=None, network=None):
        """Where the flow from x_t ends, (B, ...)."""
        self.require("end", "end")
        x_t, t, _ = on_state(x_t, t)
        return self.bound(condition, network).end(x_t, t)

    def pred_and_score(self, x_t, t, *, condition=None, network=None):
        """(velocity, score) from one network call."""
        self.require("score", "score")
        x_t, t, _ = on_state(x_t, t)
        return self.bound(condition, network).pred_and_score(x_t, t)

    # Training.

    def sample_t(self, shape, seed=None):
        """Times from the interface's training law."""
        return self.interface.sample_t(shape, seed)

    def shifted(self, t, x):
        """Times shifted by the size of an example of x."""
        return self.interface.shifted(t, x)

    def sample_n(self, shape):
        """Noise n ~ N(n_mu, n_sigma^2) of the given shape."""
        return self.interface.sample_n(shape)

    def sample_uniform(self, shape):
        """Uniform on [0, 1)."""
        return self.interface.sample_uniform(shape)

    def sample_x_t(self, x, n, t):
        """x_t = alpha(t) x + sigma(t) n, on the path here."""
        return self.interpolant.interpolate(x, n, t)

    def check_batch(self, x, condition, extras):
        """Refuse a batch that does not fit, or would be used in part only."""
        contract.check_data(x, self.data_shape)
        contract.check_condition(condition, self.network, x.shape[0])
        if extras is not None:
            raise ValueError(
                f"A {type(self).__name__} takes batches x or (x, condition); "
                "a third element would be lost. Received: "
                f"{extras!r}."
            )

    def unpack(self, data):
        return self.interface.unpack(data)

    def check_fit(self, x, y):
        self.interface.check_fit(x, y)

    def call(self, x, condition=None, training=False):
        """The loss: a model called on data is its `loss`."""
        return self.loss(x, condition, training=training)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**deserialized(config, custom_objects))
