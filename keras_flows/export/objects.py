"""A user's own classes and functions, on their way to another process."""

import contextlib
import importlib
import importlib.util
import json
import pickle
import sys

import keras

from keras_flows.presets import serialized

# What the other process has by itself.
_PACKAGES = ("keras", "keras_hub", "keras_flows", "builtins")


def own_objects(config):
    """{registered name: class or function} of what is a user's in a config."""
    found = {}
    for each in serialized(config):
        name = each.get("registered_name")
        if each["class_name"] == "function":
            name = each["config"]
        known = isinstance(name, str) and keras.saving.get_registered_object(
            name
        )
        if known and known.__module__.split(".")[0] not in _PACKAGES:
            found[name] = known
    return found


def send_objects(objects, path):
    """Write what `receive_objects` reads.

    By value, with `cloudpickle`, so that a script that defines a network is
    not run again; without that package by the names of their modules.

    Args:
        objects: {registered name: class or function}.
        path: a new file.

    Raises:
        ImportError: if one is of `__main__` and there is no `cloudpickle`.
    """
    modules = {each.__module__ for each in objects.values()}
    if importlib.util.find_spec("cloudpickle") is None:
        if "__main__" in modules:
            raise ImportError(
                f"{sorted(objects)} are defined in the script that runs, from "
                "where the TensorFlow process that writes the file cannot "
                "import them: pip install cloudpickle, or move them to a "
                "module."
            )
        path.write_bytes(b"modules" + json.dumps(sorted(modules)).encode())
        return
    import cloudpickle

    with contextlib.ExitStack() as stack:
        for name in modules - {"__main__"}:
            module = sys.modules[name]
            cloudpickle.register_pickle_by_value(module)
            stack.callback(cloudpickle.unregister_pickle_by_value, module)
        path.write_bytes(b"objects" + cloudpickle.dumps(objects))


def receive_objects(path):
    """Register with Keras what `send_objects` wrote for this process."""
    with open(path, "rb") as file:
        kind, content = file.read(7), file.read()
    if kind == b"modules":
        for name in json.loads(content):
            importlib.import_module(name)
        return
    # Of the process that started this one, and nobody else.
    keras.saving.get_custom_objects().update(pickle.loads(content))
