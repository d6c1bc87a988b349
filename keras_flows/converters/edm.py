"""EDM's weights (NVlabs/edm) into `kf.networks.SongUNet` and `DhariwalUNet`.

`convert(state, network)` takes {name: array}, parameters and buffers, as the
network inside EDM's preconditioning names them (without its "model.").
"""

import numpy as np

from keras_flows.converters.assign import assign
from keras_flows.converters.assign import taken


def _path(name):
    parts = name.split(".")
    if parts[0] in ("enc", "dec"):
        parts = [f"{parts[0]}_{parts[1]}", *parts[2:]]
    layer, kind = parts[:-1], parts[-1]
    if layer[-1] == "qkv":
        layer[-1:] = ["attention", "qkv"]
    elif layer[-1] == "proj":
        layer[-1:] = ["attention", "out"]
    norm = "norm" in layer[-1]
    kind = {
        "weight": "gamma" if norm else "kernel",
        "bias": "beta" if norm else "bias",
    }.get(kind, kind)
    return "/".join([*layer, kind])


def _value(path, value, heads):
    value = np.asarray(value)
    if "/attention/qkv/" in path and heads:
        # EDM's channels are (head, channel, q|k|v), ours (q|k|v, head, ...).
        shape = (heads, -1, 3, *value.shape[1:])
        value = np.moveaxis(value.reshape(shape), 2, 0)
        value = value.reshape(-1, *value.shape[3:])
    if "/attention/" in path and value.ndim == 4:
        value = value[:, :, 0, 0]
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    return value.T


def convert(state, network):
    """Assign every weight of an EDM U-Net to ours.

    Weights of the augmentation's labels, which sampling does not use, are
    left out.

    Raises:
        ValueError: if a weight of either has no counterpart of its shape;
            nothing is assigned then.
    """
    heads = {
        layer.name: layer.num_heads
        for layer in network.layers
        if hasattr(layer, "num_heads")
    }
    values = {}
    for name, value in taken(state):
        if "resample_filter" in name or name.startswith("map_augment"):
            continue
        path = _path(name)
        values[path] = _value(path, value, heads.get(path.split("/")[0]))
    assign(values, network)
