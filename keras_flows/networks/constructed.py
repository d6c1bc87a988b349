"""By what arguments a network was made whose class has no `get_config`.

Keras takes the arguments of a layer down, but not those of a `keras.Model`: of
`Net(width=64)` it keeps the defaults (keras 3.15, `Model.__new__` hands nothing
on). A network made again from these would be another one without a word.
"""

import inspect

import keras

from keras_flows.networks.building import build
from keras_flows.networks.contract import input_specs

PLAIN = (str, int, float, bool, type(None))
# Arguments of every model, which Keras keeps.
COMMON = ("name", "dtype", "trainable")


def own_arguments(network):
    """The arguments of a network's constructor.

    They are the attributes of the same names, and the defaults of the others.
    A new network of them must have the same layers and plain attributes.

    Raises:
        ValueError: if an argument cannot be told, or a new network differs.
    """
    kind = type(network)
    attributes, config, sure = vars(network), {}, True
    for key, parameter in inspect.signature(kind.__init__).parameters.items():
        default = parameter.default
        if key == "self" or parameter.kind in (
            parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD,
        ):  # fmt: skip
            continue
        if key in COMMON:
            config[key] = _common(network, key)
            continue
        value = attributes.get(key, inspect.Parameter.empty)
        if isinstance(value, PLAIN):
            config[key] = value
            sure = sure and value == default
            continue
        sure = False
        if not isinstance(default, PLAIN):
            raise ValueError(
                _refusal(network, f"`{key}` of its constructor is not known")
            )
        config[key] = default
    if not sure and (
        told := _difference(network, _made(kind, config, network))
    ):
        raise ValueError(_refusal(network, told))
    return config


def described(network):
    """What Keras writes of an object beside its config."""
    kind = type(network)
    return {
        "module": None if _registered(kind) else kind.__module__,
        "class_name": kind.__name__,
        "registered_name": keras.saving.get_registered_name(kind),
    }


def _registered(kind):
    return keras.saving.get_registered_name(kind) != kind.__name__


def _common(network, key):
    if key == "dtype":
        return keras.saving.serialize_keras_object(network.dtype_policy)
    return getattr(network, key)


def _made(kind, config, network):
    try:
        made = kind.from_config(dict(config))
    except Exception as error:
        raise ValueError(
            _refusal(network, f"{kind.__name__}(**{config}) fails: {error}")
        ) from error
    inputs = input_specs(network)
    if inputs is not None:
        build(made, inputs)
    return made


def _difference(network, made):
    """In what a new network differs, or None."""
    base = vars(keras.Model())
    for key, value in vars(network).items():
        if key.startswith("_") or key in base or key in COMMON:
            continue
        other = vars(made).get(key, value)
        if isinstance(value, PLAIN) and value != other:
            return f"its `{key}` is {value!r}, and that of a new one {other!r}"
    ours, theirs = _layers(network), _layers(made)
    if len(ours) != len(theirs):
        return f"it has {len(ours)} layers, and a new one {len(theirs)}"
    for (name, one), (_, other) in zip(ours, theirs, strict=True):
        if one != other:
            return f"its layer '{name}' is another one than that of a new one"
    return None


def _layers(network):
    return [
        (layer.name, (type(layer).__name__, _nameless(_config_of(layer))))
        for layer in network._flatten_layers(include_self=False)
    ]


def _config_of(layer):
    try:
        return layer.get_config()
    except NotImplementedError:
        return None


def _nameless(config):
    """A config without the names, which Keras numbers."""
    if isinstance(config, dict):
        return {k: _nameless(v) for k, v in config.items() if k != "name"}
    if isinstance(config, (list, tuple)):
        return [_nameless(part) for part in config]
    return config


def _refusal(network, why):
    kind = type(network).__name__
    return (
        f"`network` ('{network.name}') cannot be saved or copied: {kind} has "
        "no `get_config`, Keras keeps no arguments of a model, and "
        f"{why}. Keep each argument under its own name (self.width = width), "
        f"or give {kind} a `get_config` with all of them."
    )
