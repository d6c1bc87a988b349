"""Diffusers' `AutoencoderKL` weights into `kf.networks.AutoencoderKL`.

`convert(state, network)` takes {name: array} of
`diffusion_pytorch_model.safetensors`, with attention's names of today (to_q)
or of before 2023 (query).
"""

import re

import numpy as np

from keras_flows.converters.assign import assign
from keras_flows.converters.assign import taken

LAYERS = {
    "encoder.conv_in": "encoder_in",
    "encoder.conv_norm_out": "encoder_out_norm",
    "encoder.conv_out": "encoder_out",
    "quant_conv": "quantize",
    "post_quant_conv": "unquantize",
    "decoder.conv_in": "decoder_in",
    "decoder.conv_norm_out": "decoder_out_norm",
    "decoder.conv_out": "decoder_out",
}
ATTENTION = {
    "group_norm": "norm",
    "to_q": "attention/q",
    "query": "attention/q",
    "to_k": "attention/k",
    "key": "attention/k",
    "to_v": "attention/v",
    "value": "attention/v",
    "to_out.0": "attention/out",
    "proj_attn": "attention/out",
}
BLOCK = re.compile(
    r"(?P<half>encoder|decoder)\."
    r"(?P<part>down_blocks\.|up_blocks\.|mid_block)(?P<level>\d*)\."
    r"(?P<kind>resnets|attentions|downsamplers|upsamplers)\.(?P<index>\d+)\."
    r"(?P<rest>.+)"
)


def _layer(name, levels):
    """Our path of a module; KeyError where there is none."""
    match = BLOCK.fullmatch(name)
    if match is None:
        return LAYERS[name]
    half, part, level, kind, index, rest = match.groups()
    if part == "mid_block":
        place = f"{half}_middle"
    else:
        # Diffusers counts the decoder's resolutions from the coarsest.
        place = int(level) if half == "encoder" else levels - 1 - int(level)
        place = f"{half}_{place}"
    if kind == "attentions":
        return f"{place}_attention/{ATTENTION[rest]}"
    if kind == "resnets":
        return f"{place}_block{index}/{rest.removeprefix('conv_')}"
    return f"{place}_{kind.removesuffix('samplers')}"


def _path(name, levels):
    module, _, kind = name.rpartition(".")
    layer = _layer(module, levels)
    if "norm" in layer:
        return f"{layer}/{'gamma' if kind == 'weight' else 'beta'}"
    return f"{layer}/{'kernel' if kind == 'weight' else kind}"


def _value(path, value):
    value = np.asarray(value)
    if "/attention/" in path and value.ndim == 4:
        value = value[:, :, 0, 0]
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    return value.T


def convert(state, network):
    """Assign every weight of diffusers' `AutoencoderKL` to ours.

    Args:
        state: dict of name to array, as diffusers saves it.
        network: an `AutoencoderKL` of the same architecture.

    Raises:
        ValueError: if a weight of either has no counterpart of its shape;
            nothing is assigned then.
    """
    levels = len(network.get_config()["block_out_channels"])
    values = {}
    for name, value in taken(state):
        try:
            path = _path(name, levels)
        except KeyError:
            # Kept under its own name, which `assign` will not find.
            path = name
        values[path] = _value(path, value)
    for path in [p for p in values if "/attention/q/" in p]:
        parts = [path.replace("/q/", f"/{part}/") for part in "qkv"]
        if all(part in values for part in parts):
            values[path.replace("/q/", "/qkv/")] = np.concatenate(
                [values.pop(part) for part in parts], axis=-1
            )
    assign(values, network)
