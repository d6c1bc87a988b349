"""Published decoupled transformers' weights into `kf.networks.DDT`.

`convert(state, network)` takes {name: array} as MCG-NJU/DDT (for networks of
the architecture "ddt") or bytetriper/RAE ("rae") name them.
"""

import numpy as np

from keras_flows.converters.assign import assign
from keras_flows.converters.assign import taken

LAYERS = {
    "s_embedder.proj": "encoder_patch_embedding",
    "x_embedder.proj": "decoder_patch_embedding",
    "s_projector": "condition_projection",
    "t_embedder.mlp.0": "t_embedding/hidden",
    "t_embedder.mlp.2": "t_embedding/out",
    "y_embedder.embedding_table": "label_embedding",
    "final_layer.linear": "final/out",
    "final_layer.adaLN_modulation": "final/modulation",
    "final_layer.norm_final": "final/norm",
}
BLOCK = {
    "attn.qkv": "attention/qkv",
    "attn.proj": "attention/out",
    "attn.q_norm": "attention/q_norm",
    "attn.k_norm": "attention/k_norm",
    "adaLN_modulation": "modulation",
    "norm1": "norm_1",
    "norm2": "norm_2",
    "mlp.w12": "mlp/both",
    "mlp.w1": "mlp/w1",
    "mlp.w3": "mlp/w3",
    "mlp.w2": "mlp/out",
}
# Fixed tables that ours computes.
UNUSED = ("pos_embed", "enc_feat_rope.", "dec_feat_rope.")


def _path(name, config):
    """Our path of a weight; KeyError where there is none."""
    if name == "t_embedder.W":
        return "t_embedding/frequencies"
    module, _, kind = name.rpartition(".")
    # The linear layer of a modulation is the first or the second of a list.
    head, _, last = module.rpartition(".")
    module = head if head.endswith("adaLN_modulation") else module
    if module.startswith("blocks."):
        _, index, rest = module.split(".", 2)
        index, depth = int(index), config["encoder_depth"]
        half = "encoder" if index < depth else "decoder"
        index -= 0 if index < depth else depth
        layer = f"{half}_block_{index}/"
        # RAE's w3 follows w12, DDT's stands beside w1.
        rae = config["architecture"] == "rae" and rest == "mlp.w3"
        layer += "mlp/out" if rae else BLOCK[rest]
    else:
        layer = LAYERS[module]
    if layer == "label_embedding":
        return f"{layer}/embeddings"
    if "norm" in layer.rpartition("/")[2]:
        return f"{layer}/gamma"
    return f"{layer}/{'kernel' if kind == 'weight' else kind}"


def _rotary_order(head):
    """Features of a head of DDT in our order: rows' pairs, columns' pairs.

    DDT's pairs turn by column and row in turn.
    """
    pairs = np.arange(head).reshape(-1, 2)
    return np.concatenate([pairs[1::2], pairs[::2]]).ravel()


def _reordered(path, value, config):
    """A weight of DDT with the features of heads and patches in our order."""
    decoder = path.startswith("decoder")
    heads = (config["decoder_heads"] if decoder else None) or config[
        "num_heads"
    ]
    p, channels = config["patch_size"], config["image_shape"][-1]
    if "/attention/qkv/" in path:
        shape = value.shape
        value = value.reshape(3, heads, -1, *shape[1:]).copy()
        value[:2] = value[:2][:, :, _rotary_order(value.shape[2])]
        return value.reshape(shape)
    if "/attention/" in path and "_norm/" in path:
        return value[_rotary_order(len(value))]
    # Of a patch, channels come first there and last here.
    if path.endswith("_patch_embedding/kernel"):
        value = value.reshape(-1, channels, p * p)
        return value.transpose(0, 2, 1).reshape(len(value), -1)
    if path.startswith("final/out/"):
        value = value.reshape(channels, p * p, -1).transpose(1, 0, 2)
        return value.reshape(channels * p * p, -1).squeeze()
    return value


def _value(path, value, config):
    value = np.asarray(value)
    if value.ndim == 4:
        value = value.transpose(0, 2, 3, 1).reshape(len(value), -1)
    if config["architecture"] == "ddt":
        value = _reordered(path, value, config)
    return value if path.startswith("label_embedding") else value.T


def convert(state, network):
    """Assign every weight of a published state to a network of ours.

    Args:
        state: dict of name to array, as the PyTorch repositories save it.
        network: a `DDT` of the same architecture.

    Raises:
        ValueError: if a weight of either has no counterpart of its shape;
            nothing is assigned then.
    """
    config = network.get_config()
    values = {}
    for name, value in taken(state):
        if name.startswith(UNUSED):
            continue
        try:
            path = _path(name, config)
            values[path] = _value(path, value, config)
        except (KeyError, ValueError, IndexError):
            # Kept under its own name, which `assign` will not find.
            values[name] = np.asarray(value)
    for path in [p for p in values if "/mlp/w1/" in p]:
        other = path.replace("/w1/", "/w3/")
        if other in values:
            values[path.replace("/w1/", "/both/")] = np.concatenate(
                [values.pop(path), values.pop(other)], axis=-1
            )
    assign(values, network)
