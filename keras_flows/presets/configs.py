"""What is in a preset's config: which classes, and of which dtype."""

import keras

from keras_flows.presets.files import CONFIG

# Packages whose classes Keras finds without a registration.
_KERAS = ("keras", "keras_hub", "keras_cv", "keras_nlp")


def serialized(config):
    """Every serialised object in a config, outer ones first."""
    if isinstance(config, dict):
        if "class_name" in config and "config" in config:
            yield config
        for value in config.values():
            yield from serialized(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from serialized(value)


def registered_config(model):
    """The config of a model, all of whose classes Keras finds again.

    Raises:
        ValueError: naming a class or function that is not registered.
    """
    config = keras.saving.serialize_keras_object(model)
    for each in serialized(config):
        module, name = each.get("module"), each.get("registered_name")
        if each["class_name"] == "function":
            name = each["config"]
        if (
            not module
            or module.split(".")[0] in _KERAS
            or not isinstance(name, str)
            or keras.saving.get_registered_object(name) is not None
        ):
            continue
        raise ValueError(
            f"`{each['class_name']}` of {module} is not registered, and what "
            "is saved with it could not be loaded: put "
            "@keras.saving.register_keras_serializable('my_package') above "
            "it, before the model is made."
        )
    return config


def check_registered(config, preset):
    """Raise where a config names what is no class of Keras's or registered.

    Nothing of a preset is imported: what `module` says is for the message.

    Raises:
        ValueError: naming the class, function or code.
    """
    for each in serialized(config):
        kind, module = each["class_name"], each.get("module")
        name = each.get("registered_name")
        if kind == "function":
            name = each["config"]
        if not isinstance(kind, str) or not isinstance(
            module, (str, type(None))
        ):
            raise ValueError(
                f"Preset {str(preset)!r}: {CONFIG} must name classes and "
                f"modules by strings. Found: {kind!r}, {module!r}."
            )
        if kind == "__lambda__":
            raise ValueError(
                f"Preset {str(preset)!r} holds a lambda, which is code: no "
                "code of a preset is run. Save it with a registered function."
            )
        if isinstance(name, str) and ">" in name or module == "builtins":
            own = True
        else:
            own = module and module.split(".")[0] not in _KERAS
        if not own or (
            isinstance(name, str)
            and keras.saving.get_registered_object(name) is not None
        ):
            continue
        if module and module.split(".")[0] in _KERAS:
            continue
        if not isinstance(name, str) or ">" not in name:
            raise ValueError(
                f"Preset {str(preset)!r} holds {name or kind!r} of "
                f"{module}, which is no class or function of Keras's and not "
                "registered: it is not imported."
            )
        origin = "the module that registers it"
        if module and module not in ("__main__", "builtins"):
            origin = f"`import {module}`"
        raise ValueError(
            f"Preset {str(preset)!r} holds {name!r}, which is not registered "
            f"here. First run {origin}."
        )


def with_dtype(config, dtype):
    """The config with every model in it at another dtype."""
    try:
        dtype = keras.dtype_policies.get(dtype).name
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            "`dtype` must be a dtype or dtype policy, such as 'bfloat16'. "
            f"Received: {dtype!r}."
        ) from error
    for each in serialized(config):
        arguments = each["config"]
        if not isinstance(arguments, dict):
            continue
        if each["class_name"] in ("Functional", "Sequential"):
            # These have no dtype of their own.
            for layer in arguments.get("layers", ()):
                if layer["class_name"] != "InputLayer":
                    layer["config"]["dtype"] = dtype
        cls = keras.saving.get_registered_object(
            each.get("registered_name") or ""
        )
        is_model = isinstance(cls, type) and issubclass(cls, keras.Model)
        if is_model and "dtype" in arguments:
            arguments["dtype"] = dtype
    return config
