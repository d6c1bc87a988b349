"""What transformers for images have around their blocks."""

import functools
import operator

import keras
import numpy as np
from keras import layers

from keras_flows.networks.layers.dense import Dense
from keras_flows.networks.layers.embeddings import TimestepEmbedding
from keras_flows.networks.layers.patches import Patchify
from keras_flows.networks.layers.patches import SinCosPositions
from keras_flows.networks.layers.patches import Unpatchify
from keras_flows.networks.layers.patches import patch_grid
from keras_flows.ops import float_dtype
from keras_flows.ops.scalars import SIZE


def size_arguments(size, sizes):
    """Constructor arguments of a size such as "S/2": its letter, its patch."""
    letter, _, patch = size.upper().rpartition("-")[2].partition("/")
    if letter not in sizes or not patch.isdigit():
        raise ValueError(
            f"`size` must be one of {', '.join(sizes)}, a slash and the patch "
            f"size, as in 'B/2'. Received: {size!r}."
        )
    width, depth, num_heads = sizes[letter]
    return {
        "patch_size": int(patch),
        "width": width,
        "depth": depth,
        "num_heads": num_heads,
    }


def guidance_flag(name, value):
    """True, False or "interval": see DiT's `guidance`."""
    if isinstance(value, (bool, np.bool_)) or (
        isinstance(value, str) and value == "interval"
    ):
        return value
    raise ValueError(
        f"`{name}` must be True, False or 'interval'. Received: {value!r}."
    )


def class_counts(name, value):
    """None, a number of classes, or a dict of one for each label."""
    if value is None:
        return None
    if not isinstance(value, dict):
        return SIZE(name, value)
    if not value or not all(isinstance(key, str) for key in value):
        raise ValueError(
            f"`{name}` must be an int, or a dict from the name of each label "
            f"to the number of its classes. Received: {value!r}."
        )
    # The order of the weights in a file must not be the dict's, which JSON
    # does not keep.
    return {key: SIZE(f"{name}[{key!r}]", value[key]) for key in sorted(value)}


class_counts.of_numbers = True


def image_inputs(image_shape, two_times, num_classes, guidance=False):
    """The dict of inputs of a network for images."""
    inputs = {
        "x": keras.Input(tuple(image_shape), dtype=float_dtype(), name="x"),
        "t": keras.Input((), dtype=float_dtype(), name="t"),
    }
    if two_times:
        inputs["r"] = keras.Input((), dtype=float_dtype(), name="r")
    if isinstance(num_classes, dict):
        inputs["condition"] = {
            key: keras.Input((), dtype="int32", name=f"condition_{key}")
            for key in num_classes
        }
    elif num_classes is not None:
        inputs["condition"] = keras.Input((), dtype="int32", name="condition")
    if guidance:
        inputs["guidance"] = keras.Input(
            (), dtype=float_dtype(), name="guidance"
        )
    if guidance == "interval":
        inputs["guidance_interval"] = keras.Input(
            (2,), dtype=float_dtype(), name="guidance_interval"
        )
    return inputs


def check_heads(width, num_heads, argument="width", heads="num_heads"):
    """Refuse heads whose size rotary embeddings cannot be of."""
    if width % num_heads or (width // num_heads) % 4:
        raise ValueError(
            f"`{argument}` must be a multiple of 4 times `{heads}`, for "
            f"rotary embeddings. Received: {argument}={width}, "
            f"{heads}={num_heads}."
        )


def embedded_times(inputs, embedding):
    """embedding("t_embedding")(t), added where they are: t - r, guidance."""
    c = embedding(name="t_embedding")(inputs["t"])
    if "r" in inputs:
        c = c + embedding(name="interval_embedding")(inputs["t"] - inputs["r"])
    if "guidance" in inputs:
        c = c + embedding(name="guidance_embedding")(inputs["guidance"])
    if "guidance_interval" in inputs:
        for i, end in enumerate(("low", "high")):
            level = inputs["guidance_interval"][:, i]
            c = c + embedding(name=f"guidance_{end}_embedding")(level)
    return c


def embedded_labels(inputs, num_classes, embedding, name):
    """embedding(count, name)(label), of several labels the sum."""
    if not isinstance(num_classes, dict):
        return embedding(num_classes, name)(inputs["condition"])
    return functools.reduce(
        operator.add,
        [
            embedding(count, f"{name}_{key}")(inputs["condition"][key])
            for key, count in num_classes.items()
        ],
    )


def with_label(c, inputs, num_classes):
    """c plus the embedding of the label, where there is one, or of each."""
    if num_classes is None:
        return c

    def embedding(count, name):
        return layers.Embedding(
            count + 1,
            c.shape[-1],
            embeddings_initializer=keras.initializers.RandomNormal(stddev=0.02),
            dtype=float_dtype(),
            name=name,
        )

    return c + embedded_labels(
        inputs, num_classes, embedding, "label_embedding"
    )


def image_transformer(
    image_shape, patch_size, width, blocks, final, num_heads, two_times,
    num_classes, learn_sigma, dtype, guidance=False,
):  # fmt: skip
    """(inputs, outputs) of a DiT: what its blocks have around them.

    Args:
        blocks: list of layers of (tokens, condition).
        final: class of the last layer, called with its number of units.

    The other arguments are those of `DiT`.
    """
    grid = patch_grid(image_shape, patch_size)
    channels = image_shape[-1]
    if width % num_heads or width % 4:
        raise ValueError(
            "`width` must be a multiple of `num_heads` and of 4. "
            f"Received: width={width}, num_heads={num_heads}."
        )
    inputs = image_inputs(image_shape, two_times, num_classes, guidance)
    c = embedded_times(inputs, functools.partial(TimestepEmbedding, width))
    c = with_label(c, inputs, num_classes)
    x = Patchify(patch_size, dtype=dtype, name="patchify")(inputs["x"])
    x = Dense(width, dtype=dtype, name="patch_embedding")(x)
    x = SinCosPositions(*grid, dtype=dtype, name="positions")(x)
    for block in blocks:
        x = block(x, c)
    outputs = channels * (2 if learn_sigma else 1)
    y = final(patch_size**2 * outputs, dtype=dtype, name="final")(x, c)
    y = Unpatchify(
        patch_size, (*image_shape[:2], outputs), dtype=dtype, name="unpatchify"
    )(y)
    return inputs, y[..., :channels]
