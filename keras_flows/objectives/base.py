"""The shape of an objective: one paper, one class, one screen.

`objective(model, batch)` gives a dict of per-example terms of shape (B,),
"loss" first. Its options are its fields, so they are checked where it is made
and saved with the model.
"""

import dataclasses
import typing

import keras

from keras_flows.interpolants import DiscreteVariancePreserving
from keras_flows.ops import Config
from keras_flows.ops import given
from keras_flows.ops import register
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked
from keras_flows.parametrization import BY_NAME


class Objective(Config):
    """Base class of objectives: frozen dataclasses.

    Attributes:
        name: by which `objectives.get` finds it.
        terms: names of the terms beside "loss", which are logged.
        needs_r: whether the network must take the second time `r`.
        teacher: "required", "optional" or "none".
        predicts: what the network predicts: "velocity" or "data".
        start: what sampling starts from, "noise" or "zero".
        sampler: name of the sampler that fits.
        num_steps: its default number of steps.
        gaussian: whether it takes the noise of the path to be Gaussian.
        stable: whether it makes its targets from `model.endpoints`, as
            `stable_target` asks.
        takes_mask: False where something else than the norm of a residual is
            over the whole example, padding and all.
        weighs: False where the loss is no sum over single examples.
    """

    name = ""
    terms = ()
    needs_r = False
    teacher = "none"
    predicts = "velocity"
    start = "noise"
    sampler = "euler"
    num_steps = 9
    stable = False
    gaussian = True
    takes_mask = True
    weighs = True

    def __call__(self, model, batch):
        """Per-example terms, (B,) each, "loss" first.

        Args:
            model: the interface, which draws times and noise and calls the
                network.
            batch: a `Batch`.
        """
        raise NotImplementedError

    def provides(self, posterior):
        """What a model that it trained predicts, see `Sampler.needs`.

        Args:
            posterior: whether the parametrization's data is E[x | x_t].
        """
        if not posterior:
            return frozenset({"end"})
        known = {"velocity", "score", "data"}
        return frozenset(known | {"map", "end"} if self.needs_r else known)

    def check_path(self, path):
        """Refuse a path of three parts where two are meant."""
        if self.gaussian and not path.gaussian:
            raise ValueError(
                "`interpolant` must be a path from Gaussian noise for "
                f"objective '{self.name}'. Received: {path}; "
                "kf.StochasticInterpolantInterface learns that one."
            )
        if self.needs_r and isinstance(path, DiscreteVariancePreserving):
            raise ValueError(
                f"`interpolant` of the flow map '{self.name}' must be smooth "
                f"in time. Received: {path}, whose rates jump from step to "
                "step; take a VariancePreserving."
            )

    def check_stable(self, stable_target):
        """Refuse stable targets where there are none."""
        if stable_target and not self.stable:
            raise ValueError(
                "`stable_target=True` averages the targets of objectives that "
                f"regress a velocity or the data at x_t; '{self.name}' "
                "does not."
            )

    def check(self, model):
        """Raise a ValueError where the model lacks what it needs."""

    def default_sampler(self):
        """The sampler that fits, or its name."""
        return self.sampler


def check_option(argument, value, allowed):
    """Refuse an option of an objective that is not among `allowed`."""
    given.choice(argument, value, allowed)


def _names(name, value):
    """Names as a tuple of strings."""
    several = isinstance(value, (tuple, list))
    if not several or not all(each and isinstance(each, str) for each in value):
        raise ValueError(
            f"`{name}` must be a tuple of names, such as ('velocity_loss',). "
            f"Received: {value!r}."
        )
    return tuple(value)


@register
@checked(
    fn=given.function,
    needs_r=FLAG,
    num_steps=SIZE,
    predicts=given.of(given.choice, words=tuple(BY_NAME)),
    sampler=given.text,
    terms=_names,
)
@dataclasses.dataclass(frozen=True)
class FunctionObjective(Objective):
    """A function (model, batch) -> terms as an objective.

    Args:
        fn: the function, registered with Keras to be saved.
        terms: names of its terms beside "loss".
        needs_r, predicts, sampler, num_steps: see `Objective`.
    """

    fn: typing.Callable
    terms: tuple = ()
    needs_r: bool = False
    predicts: str = "velocity"
    sampler: str = "euler"
    num_steps: int = 9

    @property
    def name(self):
        return self.fn.__name__

    def check(self, model):
        # An unknown name is refused here, and not after the training.
        _ = model.default_sampler

    def __call__(self, model, batch):
        return self.fn(model, batch)

    def get_config(self):
        fn = keras.saving.serialize_keras_object(self.fn)
        return {**super().get_config(), "fn": fn, "terms": list(self.terms)}

    @classmethod
    def from_config(cls, config):
        fn = keras.saving.deserialize_keras_object(config["fn"])
        terms = tuple(config["terms"])
        return cls(**{**config, "fn": fn, "terms": terms})
