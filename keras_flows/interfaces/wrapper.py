"""An interface around another one, which does all but what is overridden."""

import functools

import keras

from keras_flows.interfaces.generation import Generation
from keras_flows.interfaces.interface import Interface


class InterfaceWrapper(Interface):
    """Base class of interfaces that add something to another interface.

    Predictions, times, noise, averages and samples are the wrapped
    interface's; a subclass gives `loss` and `get_config`.

    Args:
        interface: the interface to wrap.
        name: model name.
    """

    def __init__(self, interface, name=None):
        keras.Model.__init__(self, name=name)
        self.autocast = False
        self.__dict__.pop("loss", None)
        if not isinstance(interface, Interface):
            raise ValueError(
                "`interface` must be an Interface, such as kf.SiTInterface. "
                f"Received: {interface!r}."
            )
        self.interface = interface

    def _track(self, terms=()):
        """Means in the logs: the loss, `terms` and the inner ones."""
        self._trackers = {
            name: keras.metrics.Mean(name=name)
            for name in (
                "loss",
                *terms,
                *self.interface.objective.terms,
                "gradient_norm",
            )
        }

    @property
    def learn_sigma(self):
        """Whether a wrapped `DiscreteInterface` predicts variances."""
        return getattr(self.interface, "learn_sigma", False)

    def denoise_and_share(self, x_t, t, *, condition=None, network=None):
        """As `DiscreteInterface.denoise_and_share`."""
        return self.interface.denoise_and_share(
            x_t, t, condition=condition, network=network
        )


def _inner(name):
    """A method of the wrapped interface."""

    @functools.wraps(getattr(Interface, name))
    def method(self, *args, **kwargs):
        return getattr(self.interface, name)(*args, **kwargs)

    return method


def _inner_attribute(name):
    """An attribute of the wrapped interface."""
    return property(lambda self: getattr(self.interface, name))


for _name in (
    "c_in", "c_out", "c_skip", "c_noise", "net", "raw", "pred", "denoise",
    "jump", "pred_and_score", "score", "target", "loss_weight", "sample_t",
    "sample_n", "sample_uniform", "sample_x_t", "endpoints", "draw_t",
    "drop_condition",
    "norm", "generate", "export", "predictor", "start", "inference_network",
    "after_update",
):  # fmt: skip
    setattr(InterfaceWrapper, _name, _inner(_name))

for _name in (
    "network", "interpolant", "time_law", "objective", "objective_args",
    "null_label", "sample_shape", "n_mu", "n_sigma", "x_sigma", "prediction",
    "default_sampler", "default_num_steps", "max_skipped_steps", "seed",
    "emas", "stable_target", "seed_generator", "evaluation_seed_generator",
    "skipped_steps", "skipped_in_a_row", "_seeds", "_rng", "_mask",
    "_averaged",
):  # fmt: skip
    setattr(InterfaceWrapper, _name, _inner_attribute(_name))


class SamplingWrapper(InterfaceWrapper):
    """A wrapper whose samples go through its own predictions.

    A subclass gives what it predicts otherwise, such as `jump`, and calls
    `_init_generation` in its constructor.
    """

    generate = Generation.generate
    predictor = Generation.predictor
    start = Generation.start

    def export(self, *args, **kwargs):
        """Export the sampler of these predictions; see `Interface.export`."""
        return Interface.export(self, *args, **kwargs)
