"""The same random weights for a published network and for ours."""

import ast
import importlib
import re
import zlib

import keras
import numpy as np


def draw(name, shape):
    """Weights of about unit gain, from the name alone, float32."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 25
    value = rng.standard_normal(shape) / np.sqrt(fan_in)
    return value.astype("float32")


def draw_inception(name, shape):
    """Weights that keep the size of what passes through Inception's ReLUs."""
    value = draw(name, shape)
    if name.endswith("running_var"):
        return 1.0 + np.abs(value)
    if name.endswith("bn.weight"):
        return 1.0 + value
    return value * np.float32(np.sqrt(2.0)) if len(shape) == 4 else value


def draw_policy(name, shape):
    """Weights of about unit gain, those of normalisations about 1."""
    value = draw(name, shape)
    if len(shape) == 1 and name.endswith("weight"):
        return 1.0 + value
    return value


def draw_diffusers(name, shape):
    """Each block's copy of the embeddings is the first block's."""
    return draw(re.sub(r"\.\d+\.norm1\.emb", ".0.norm1.emb", name), shape)


def chunks(horizon, action_dim, observation, seed=0):
    """(x, t, r, observation) for a batch of two chunks of actions."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, horizon, action_dim)).astype("float32")
    t, r = np.sort(rng.uniform(size=(2, 2)).astype("float32"), axis=0)
    return x, t, r, rng.standard_normal((2, *observation)).astype("float32")


def images(seed=0):
    """A dict of an observation's camera, in [0, 1], and its vector."""
    rng = np.random.default_rng(seed)
    return {
        "camera": rng.uniform(size=(2, 2, 72, 68, 3)).astype("float32"),
        "gripper": rng.standard_normal((2, 2, 4)).astype("float32"),
    }


def photo(size):
    """One channels-last uint8 image with structure at all scales."""
    rng = np.random.default_rng(0)
    image = rng.uniform(-0.3, 0.3, (1, size, size, 3))
    y, x = np.mgrid[:size, :size] / size
    for channel, wave in enumerate((2.0, 5.0, 11.0)):
        image[0, ..., channel] += 0.7 * np.sin(wave * (x + y * y) * np.pi)
    return (128.0 + 127.0 * image).astype("uint8")


def inputs(shape, num_classes, seed=0):
    """(x, t, r, labels) for a batch of two channels-last images."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, *shape)).astype("float32")
    t, r = np.sort(rng.uniform(size=(2, 2)).astype("float32"), axis=0)[::-1]
    return x, t, r, rng.integers(0, num_classes + 1, 2).astype("int32")


def state(file, draw=draw):
    """{name: drawn weights} of a file of expected numbers."""
    return {
        str(name): draw(str(name), ast.literal_eval(str(shape)))
        for name, shape in zip(file["names"], file["shapes"], strict=True)
    }


def converter(name):
    """The module keras_flows/converters/<name>.py."""
    return importlib.import_module(f"keras_flows.converters.{name}")


def output(network, **inputs):
    """The network's output as an array; compiled, op by op JAX is slow."""
    inputs = {k: keras.ops.convert_to_tensor(v) for k, v in inputs.items()}
    return network.predict_on_batch(inputs)


def num_parameters(build):
    """Number of weights of the network `build()`, none of them allocated."""
    with keras.StatelessScope(initialize_variables=False):
        return build().count_params()
