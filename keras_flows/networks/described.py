"""A model that its constructor's arguments describe."""

import inspect
from collections.abc import Iterable

import keras

from keras_flows.presets import Preset


class DescribedModel(Preset, keras.Model):
    """Base of the networks: `get_config` is what the constructor was given.

    The arguments are taken down by the names in the constructor's signature,
    defaults included, before it runs; a subclass needs to do nothing. Lists
    and shapes of all kinds are returned as tuples.
    """

    def __new__(cls, *args, **kwargs):
        model = super().__new__(cls, *args, **kwargs)
        try:
            model._arguments = _arguments(cls, args, kwargs)
        except TypeError:
            # Missing or unknown ones: the constructor names them.
            pass
        return model

    def get_config(self):
        return {key: _plain(value) for key, value in self._arguments.items()}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


def _arguments(cls, args, kwargs):
    """The arguments of a call of the constructor, by name."""
    signature = inspect.signature(cls.__init__)
    bound = signature.bind(None, *args, **kwargs)
    bound.apply_defaults()
    _, *names = signature.parameters
    arguments = {}
    for name in names:
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            arguments |= bound.arguments[name]
        else:
            arguments[name] = bound.arguments[name]
    return arguments


def _plain(value):
    if isinstance(value, Iterable) and not isinstance(value, (str, dict)):
        return tuple(value)
    return value
