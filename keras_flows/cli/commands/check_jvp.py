"""`keras-flows check-jvp`."""

import importlib
import inspect
import os
import sys

import keras
import numpy as np

import keras_flows as kf


def run(flags):
    """Print the relative errors; a network that fails is an error."""
    found = load(flags.model)
    model = found if isinstance(found, kf.Interface) else _around(found, flags)
    rng = np.random.default_rng(flags.seed)
    shape = flags.shape or model.sample_shape
    if shape is None or None in shape:
        raise ValueError(
            "--shape of one example is missing: the model does not tell it."
        )
    x = rng.standard_normal((flags.batch_size, *shape)).astype("float32")
    batch = (x, *_condition(model, flags, rng))
    errors = kf.check_jvp(model, batch, flags.tolerance)
    told = ", ".join(f"{name} {value:.1e}" for name, value in errors.items())
    print(f"{flags.model}: derivatives are right, relative errors {told}")


def load(name):
    """An interface or a network, by preset, .keras file or import path."""
    if name.endswith(".keras"):
        return keras.saving.load_model(name, compile=False)
    module, colon, attribute = name.partition(":")
    if not colon or "//" in name:
        return kf.from_preset(name)
    sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"{module} cannot be imported: {error}.") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{module} has no {attribute}.")
        found = getattr(found, part)
    return found() if not _is_model(found) else found


def _is_model(found):
    # An instance: classes and functions are called without arguments.
    return not isinstance(found, type) and (
        isinstance(found, keras.Model) or hasattr(found, "named_parameters")
    )


def _around(network, flags):
    """A flow map around a network, or flow matching around one of (x, t)."""
    if not isinstance(network, keras.Model):
        network = _torch_network(network, flags)
    names = kf.networks.input_names(network)
    if names is not None and "r" not in names:
        return kf.SiTInterface(network, seed=flags.seed)
    return kf.FlowMapInterface(network, "lsd", seed=flags.seed)


def _condition(model, flags, rng):
    """(condition,) of random labels or numbers, or ()."""
    specs = kf.networks.contract.input_specs(model.network) or {}
    spec = specs.get("condition")
    if spec is None:
        return ()
    if not hasattr(spec, "shape") or None in spec.shape:
        raise ValueError(
            f"{flags.model} takes a condition of several parts or of free "
            "sizes: call kf.check_jvp(model, (x, condition)) yourself."
        )
    shape = flags.batch_size, *spec.shape
    if "int" in (spec.dtype or ""):
        return (np.zeros(shape, "int32"),)
    return (rng.standard_normal(shape).astype("float32"),)


class _TorchNetwork(keras.Model):
    """A torch.nn.Module called with x, x and t, or x, t and r."""

    def __init__(self, module, count, shape):
        super().__init__(autocast=False)
        self.input_names = ("x", "t", "r")[: max(count, 2)]
        self.count = count
        self.module = keras.layers.TorchModuleWrapper(
            module, output_shape=(None, *shape)
        )

    def call(self, inputs):
        return self.module(
            *(inputs[name] for name in self.input_names[: self.count])
        )


def _torch_network(module, flags):
    if keras.backend.backend() != "torch":
        raise ValueError(
            f"{flags.model} is a torch.nn.Module: add --backend=torch."
        )
    if flags.shape is None:
        raise ValueError(
            f"--shape of one example is missing: {flags.model} does not tell "
            "it."
        )
    kinds = (
        inspect.Parameter.POSITIONAL_ONLY,
        (inspect.Parameter.POSITIONAL_OR_KEYWORD),
    )
    taken = [
        p
        for p in inspect.signature(module.forward).parameters.values()
        if p.kind in kinds
    ]
    needed = [p for p in taken if p.default is inspect.Parameter.empty]
    if not taken or len(needed) > 3:
        raise ValueError(
            f"{flags.model} must be called with x, x and t, or x, t and r. "
            f"It takes {[p.name for p in taken]}."
        )
    count = min(max(len(needed), 1), 3)
    return _TorchNetwork(module, count, flags.shape)
