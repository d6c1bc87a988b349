"""A model that its constructor's arguments describe."""

import gc
import inspect
from collections.abc import Iterable

import keras

from keras_flows.ops import given
from keras_flows.presets import Preset


class DescribedModel(Preset, keras.Model):
    """Base of the networks: `get_config` is what the constructor was given.

    The arguments are taken down by the names in the constructor's signature,
    defaults included, before it runs; a subclass needs to do nothing. Lists
    and shapes of all kinds are returned as tuples.
    What was done to its layers since, `enable_lora` and `quantize`, is told
    too.
    """

    def __new__(cls, *args, **kwargs):
        model = super().__new__(cls, *args, **kwargs)
        try:
            model._arguments = _arguments(cls, args, kwargs)
        except TypeError:
            # Missing or unknown ones: the constructor names them.
            return model
        if model._arguments.get("dtype") is not None:
            given.dtype("dtype", model._arguments["dtype"])
        return model

    def get_config(self):
        config = {key: _plain(value) for key, value in self._arguments.items()}
        adapted = _adapted(self)
        return {**config, "adapted": adapted} if adapted else config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        adapted = config.pop("adapted", {})
        model = cls(**config)
        _adapt(model, adapted)
        return model


def _adapted(model):
    """{place of a layer: {"lora": [rank, alpha], "quantize": mode}}."""
    found = {}
    for place, layer in enumerate(model._flatten_layers(include_self=False)):
        changes = {}
        if getattr(layer, "lora_enabled", False):
            changes["lora"] = [layer.lora_rank, layer.lora_alpha]
        if getattr(layer, "_is_quantized", False):
            changes["quantize"] = layer.quantization_mode
        if changes:
            found[str(place)] = changes
    return found


def _adapt(model, adapted):
    """Do to the layers of a new model what `_adapted` tells."""
    layers = list(model._flatten_layers(include_self=False))
    # Keras collects garbage for each layer that it quantises, a second's work
    # in a large process: all that is there now is not looked at, unless the
    # caller has seen to that.
    freeze = not gc.get_freeze_count()
    if freeze:
        gc.freeze()
    try:
        for place, changes in adapted.items():
            layer = layers[int(place)]
            if "quantize" in changes:
                layer.quantize(changes["quantize"], type_check=False)
            if "lora" in changes:
                layer.enable_lora(*changes["lora"])
    finally:
        if freeze:
            gc.unfreeze()


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
