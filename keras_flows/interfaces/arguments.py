"""Arguments of constructors: checked, told in a config, and read from it."""

import inspect
from collections.abc import Callable
from typing import Any
from typing import TypeVar

import keras

from keras_flows.interfaces.teacher import Teacher
from keras_flows.networks import deserialize_network
from keras_flows.ops.scalars import COUNT
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import GUIDANCE
from keras_flows.ops.scalars import LOCATION
from keras_flows.ops.scalars import NOT_NEGATIVE
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import REAL
from keras_flows.ops.scalars import SCALE
from keras_flows.ops.scalars import SEED
from keras_flows.ops.scalars import SHARE
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Integer
from keras_flows.ops.scalars import Number
from keras_flows.ops.scalars import Optional
from keras_flows.ops.scalars import checked

Constructor = TypeVar("Constructor", bound=Callable[..., Any])

# What a number or a flag must be, whichever constructor takes it.
KINDS = {
    **dict.fromkeys(
        ("learn_sigma", "separate_fakes", "stable_target", "zero_terminal_snr"),
        FLAG,
    ),
    **dict.fromkeys(
        (
            "ect_stages", "fake_updates", "feature_dim", "max_skipped_steps",
            "proj_dim", "repa_depth", "steps_per_stage", "teacher_steps",
            "total_steps",
        ),
        SIZE,
    ),
    **dict.fromkeys(("min_levels", "max_levels"), Integer(2)),
    "num_timesteps": Optional(SIZE),
    "warmup_steps": COUNT,
    "seed": SEED,
    **dict.fromkeys(("t_mu", "n_mu"), LOCATION),
    **dict.fromkeys(("t_sigma", "n_sigma", "x_sigma"), SCALE),
    **dict.fromkeys(("guidance_scale", "teacher_guidance_scale"), GUIDANCE),
    **dict.fromkeys(("alpha", "guidance_power"), REAL),
    **dict.fromkeys(
        ("cond_drop_ratio", "diagonal_portion", "fm_portion"), SHARE
    ),
    **dict.fromkeys(
        ("guidance_mixture_ratio", "target_decay"), Number(0, below=1)
    ),
    "ect_factor": Number(above=1, high=1000),
    **dict.fromkeys(("min_snr_gamma", "time_scale"), POSITIVE),
    "t_shift_base": Optional(POSITIVE),
    **dict.fromkeys(
        (
            "adversarial_weight", "discriminator_weight", "guidance_t_max",
            "guidance_t_min", "norm_eps", "norm_power", "regression_weight",
            "repa_loss_weight", "vlb_weight",
        ),
        NOT_NEGATIVE,
    ),
}  # fmt: skip


def checked_arguments(constructor: Constructor) -> Constructor:
    """Decorator of a constructor: numbers and flags are as in `KINDS`."""
    names = [n for n in _names(constructor) if n in KINDS]
    return checked(**{n: KINDS[n] for n in names})(constructor)


def with_arguments(config, model, cls):
    """A config, and the arguments of a class's constructor not in it yet.

    An argument is the attribute of the same name; a `Teacher` is told by its
    model, other objects as Keras tells them.
    """
    own = [name for name in _names(cls.__init__) if name not in config]
    return {**config, **{name: _told(getattr(model, name)) for name in own}}


def _names(constructor):
    """Of all arguments but `self` and `**kwargs`."""
    _, *others = inspect.signature(constructor).parameters.values()
    return [p.name for p in others if p.kind is not p.VAR_KEYWORD]


def _told(value):
    if isinstance(value, Teacher):
        value = value.model
    if hasattr(value, "get_config"):
        return keras.saving.serialize_keras_object(value)
    return value


def deserialized(config, custom_objects=None):
    """A config whose serialised objects are objects again.

    A teacher is frozen. A network that has a null label of its own tells it,
    also where it was changed to have other classes.
    """
    found = {
        key: deserialize_network(value, custom_objects)
        if isinstance(value, dict) and "class_name" in value
        else value
        for key, value in config.items()
    }
    if isinstance(config.get("teacher"), dict):
        found["teacher"].trainable = False
    if getattr(found.get("network"), "null_label", None) is not None:
        found.pop("null_label", None)
    return found
