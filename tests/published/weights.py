"""The same random weights for a published network and for ours."""

import ast
import importlib.util
import pathlib
import zlib

import numpy as np


def draw(name, shape):
    """Weights of about unit gain, from the name alone, float32."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 25
    value = rng.standard_normal(shape) / np.sqrt(fan_in)
    return value.astype("float32")


def inputs(shape, num_classes, seed=0):
    """(x, t, r, labels) for a batch of two channels-last images."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, *shape)).astype("float32")
    t, r = np.sort(rng.uniform(size=(2, 2)).astype("float32"), axis=0)[::-1]
    return x, t, r, rng.integers(0, num_classes + 1, 2).astype("int32")


def state(file):
    """{name: drawn weights} of a file of expected numbers."""
    return {
        str(name): draw(str(name), ast.literal_eval(str(shape)))
        for name, shape in zip(file["names"], file["shapes"], strict=True)
    }


def converter(name):
    """The module tools/converters/<name>.py."""
    root = pathlib.Path(__file__).parents[2]
    spec = importlib.util.spec_from_file_location(
        f"{name}_converter", root / "tools" / "converters" / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
