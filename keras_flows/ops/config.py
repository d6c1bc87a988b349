"""Configuration is constructor arguments: dataclasses that Keras can save."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import keras

Registered = TypeVar("Registered")


def register(thing: Registered) -> Registered:
    """Register a class or function with Keras under `keras_flows`."""
    return keras.saving.register_keras_serializable(package="keras_flows")(
        thing
    )


class Config:
    """Mixin for frozen dataclasses: `get_config` is their fields."""

    def get_config(self):
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.init
        }

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def _key(name):
    return str(name).lower().replace("_", "").replace("-", "").replace(" ", "")


def deserialized(config, argument, base):
    """An instance of `base` from a Keras config dictionary.

    Raises:
        ValueError: naming `argument`, where Keras cannot make one of it.
    """
    try:
        made = keras.saving.deserialize_keras_object(config)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"`{argument}` cannot be made of its config: {error}"
        ) from error
    if not isinstance(made, base):
        raise ValueError(
            f"`{argument}` must be the config of a {base.__name__}, as "
            "keras.saving.serialize_keras_object gives it, with 'module', "
            f"'class_name' and 'config'. Received: {config!r}."
        )
    return made


def resolve(identifier, known, argument, base=None):
    """Turn a string, class or instance into an instance.

    Args:
        identifier: a name in `known` (case, `-` and `_` do not matter), a
            class, an instance of `base`, or a Keras config dictionary.
        known: dict of name to class or factory.
        argument: the name of the user's argument, for the error message.
        base: the class whose instances pass through unchanged.

    Raises:
        ValueError: if the name is not known; the message lists those that are.
    """
    if isinstance(identifier, dict) and "class_name" in identifier:
        return deserialized(identifier, argument, base or object)
    if isinstance(identifier, str):
        by_key = {_key(name): factory for name, factory in known.items()}
        if _key(identifier) in by_key:
            return by_key[_key(identifier)]()
    elif isinstance(identifier, type) and base and issubclass(identifier, base):
        return identifier()
    elif base is not None and isinstance(identifier, base):
        return identifier
    raise ValueError(
        f"Unknown `{argument}`: {identifier!r}. Known: "
        f"{', '.join(sorted(known))}"
        + (f", or an instance of {base.__name__}." if base else ".")
    )
