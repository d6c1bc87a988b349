"""Sizes of published networks, from the shapes of their weights."""

import functools
import math
import re

from keras_flows.networks import ChunkMLP
from keras_flows.networks import DiT
from keras_flows.networks import LightningDiT
from keras_flows.networks import PolicyDiT
from keras_flows.networks import PolicyRNN
from keras_flows.networks import PolicyTransformer
from keras_flows.networks import TemporalUNet
from keras_flows.presets.stored import quoted

# More than any published network has; a file may name as many as it likes.
MOST_BLOCKS = 1000
LARGEST_SIZE = 1 << 16
# Width: heads, of the published sizes; shapes do not tell heads.
HEADS = {
    width: heads
    for cls in (LightningDiT, DiT)
    for width, _, heads in cls.SIZES.values()
}
# DDT's encoder has these of its blocks, by their number and width.
ENCODERS = {(12, 768): 8, (24, 1024): 20, (28, 1152): 22}
# The largest frequency of the times' features in policies.
PUBLISHED_FREQUENCY = 100.0


def unknown(argument):
    """Raise for what neither shapes nor options tell."""
    raise ValueError(
        f"`options` must have {argument!r}: the file does not tell it, as in "
        f"options={{{argument!r}: ...}}."
    )


def dims(state, name, ndim=None):
    """The shape of a weight, which must be there and have elements.

    Args:
        state: dict of name to array.
        name: of the weight.
        ndim: number of its dimensions, or None for any but 0.
    """
    if name not in state:
        raise ValueError(
            f"`source` has no weight {name!r}, which this kind of checkpoint "
            f"has; it has {', '.join(map(quoted, list(state)[:4]))}, ..."
        )
    shape = state[name].shape
    if not shape or 0 in shape or ndim not in (None, len(shape)):
        raise ValueError(
            f"the weight {name!r} has the shape {shape}, where "
            f"{ndim or 'some'} dimensions are expected."
        )
    return shape


def count(state, pattern):
    """How many numbers stand in the pattern's group, among all names."""
    found = (re.match(pattern, name) for name in state)
    number = len({match[1] for match in found if match})
    if number > MOST_BLOCKS:
        raise ValueError(
            f"`source` has {number} blocks, and at most {MOST_BLOCKS} are "
            "converted."
        )
    return number


def size_in(config, key, default=None):
    """A whole number above 0 out of a config.json, or what stands for it."""
    value = config.get(key)
    if value is None:
        return default
    if type(value) is not int or not 0 < value <= LARGEST_SIZE:
        raise ValueError(
            f"config.json: {key!r} must be a whole number from 1 to "
            f"{LARGEST_SIZE}. It is {quoted(value)}."
        )
    return value


def resolved(inferred, options):
    """`inferred` overruled by `options`; functions there are last resorts."""
    merged = inferred | options
    for key, value in merged.items():
        if callable(value):
            merged[key] = value()
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in merged.items()
    }


def heads_of(width, state, norm):
    """From the size of a normalised head, or as published."""
    if norm in state:
        return width // dims(state, norm, 1)[0]
    return HEADS.get(width) or functools.partial(unknown, "num_heads")


def image_shape_of(state, config, patch, channels):
    """(H, W, C) of squares, from the positions or the config."""
    side = size_in(config, "sample_size")
    if "pos_embed" in state:
        side = math.isqrt(dims(state, "pos_embed", 3)[1]) * patch
    if side is None:
        return functools.partial(unknown, "image_shape")
    return (side, side, channels)


def policy_sizes(state):
    """(class, its arguments as far as shapes tell them)."""
    layers = count(state, r"decoder\.layers\.(\d+)\.")
    if "input_proj.weight" in state:
        width = dims(state, "input_proj.weight", 2)[0]
        hidden = dims(state, "residual_blocks.0.linear1.weight", 2)[0]
        return ChunkMLP, {
            "width": width,
            "depth": count(state, r"residual_blocks\.(\d+)\."),
            "expansion": hidden // width,
            "max_frequency": PUBLISHED_FREQUENCY,
        }
    if "map_emb.0.weight" in state:
        levels = count(state, r"downs\.(\d+)\.")
        kernels = [
            dims(state, f"downs.{i}.0.conv1.0.weight", 3) for i in range(levels)
        ]
        widths = [shape[0] for shape in kernels]
        film = dims(state, "downs.0.0.cond_encoder.1.weight", 2)[0]
        return TemporalUNet, {
            "action_dim": kernels[0][1],
            "width": widths[0],
            "width_mult": (
                1,
                *(b / a for a, b in zip(widths, widths[1:], strict=False)),
            ),
            "embedding_width": dims(state, "map_emb.0.weight", 2)[1],
            "kernel_size": kernels[0][2],
            "scale": film == 2 * widths[0],
        }
    if "cond_obs_emb.weight" in state:
        width, action_dim = dims(state, "input_emb.weight", 2)
        # The first position of the condition is that of time.
        steps = dims(state, "cond_pos_emb", 3)[1] - 1
        features = dims(state, "cond_obs_emb.weight", 2)[1]
        return PolicyTransformer, {
            "action_dim": action_dim,
            "horizon": dims(state, "pos_emb", 3)[1],
            "condition_shape": (steps, features),
            "width": width,
            "depth": layers,
            "condition_depth": count(state, r"encoder\.layers\.(\d+)\."),
            "num_heads": functools.partial(unknown, "num_heads"),
        }
    if "x_proj.0.weight" in state:
        width = dims(state, "x_proj.2.weight", 2)[0]
        hidden = dims(state, "decoder.layers.0.linear1.weight", 2)[0]
        return PolicyDiT, {
            "action_dim": dims(state, "x_proj.0.weight", 2)[1],
            "horizon": dims(state, "pos_emb")[0],
            "width": width,
            "depth": layers,
            "mlp_ratio": hidden // width,
            "num_heads": functools.partial(unknown, "num_heads"),
        }
    rows, width = dims(state, "rnn.weight_hh_l0", 2)
    return PolicyRNN, {
        "action_dim": dims(state, "main_output.weight", 2)[0],
        "width": width,
        "depth": count(state, r"rnn\.weight_hh_l(\d+)"),
        "cell": "lstm" if rows == 4 * width else "gru",
        "max_frequency": PUBLISHED_FREQUENCY,
    }
