"""Published transformers' weights into `kf.networks.DiT` and `LightningDiT`.

`convert(state, network)` takes {name: array} as the PyTorch repositories name
them (facebookresearch/DiT, willisma/SiT, sihyun-yu/REPA, hustvl/LightningDiT);
`flax_state` brings the parameter tree of Gsunshine/meanflow to the same names.
"""

import numpy as np

from keras_flows.converters.assign import assign

PREFIXES = {
    "x_embedder.proj": "patch_embedding",
    "t_embedder.mlp.0": "t_embedding/hidden",
    "t_embedder.mlp.2": "t_embedding/out",
    "h_embedder.mlp.0": "interval_embedding/hidden",
    "h_embedder.mlp.2": "interval_embedding/out",
    "y_embedder.embedding_table": "label_embedding",
    "final_layer.linear": "final/out",
    "final_layer.adaLN_modulation.1": "final/modulation",
    "final_layer.norm_final": "final/norm",
}
BLOCK = {
    "attn.qkv": "attention/qkv",
    "attn.proj": "attention/out",
    "mlp.fc1": "mlp_in",
    "mlp.fc2": "mlp_out",
    "adaLN_modulation.1": "modulation",
    "attn.q_norm": "attention/q_norm",
    "attn.k_norm": "attention/k_norm",
    "norm1": "norm_1",
    "norm2": "norm_2",
    "mlp.w12": "mlp/both",
    "mlp.w3": "mlp/out",
}
# Fixed tables that ours computes, and heads that only training uses.
UNUSED = ("pos_embed", "projectors.", "feat_rope.")


def _path(name):
    prefix, _, kind = name.rpartition(".")
    if prefix.startswith("blocks."):
        _, index, rest = prefix.split(".", 2)
        layer = f"block_{index}/{BLOCK[rest]}"
    else:
        layer = PREFIXES[prefix]
    if prefix.startswith("y_embedder"):
        return f"{layer}/embeddings"
    if "norm" in prefix:
        return f"{layer}/gamma"
    return f"{layer}/{'kernel' if kind == 'weight' else kind}"


def _value(name, value):
    value = np.asarray(value)
    if value.ndim == 4:
        # (C_out, C_in, p, q) of a convolution to (p, q, C_in) x C_out.
        return value.transpose(2, 3, 1, 0).reshape(-1, value.shape[0])
    if value.ndim == 2 and not name.startswith("y_embedder"):
        return value.T
    return value


def convert(state, network):
    """Assign every weight of a published state to a network of ours.

    Args:
        state: dict of name to array, as the PyTorch repositories save it.
        network: a network of the same architecture.

    Raises:
        ValueError: if a weight of either has no counterpart of its shape;
            nothing is assigned then.
    """
    values = {}
    for name, value in state.items():
        if not name.startswith(UNUSED):
            try:
                values[_path(name)] = _value(name, value)
            except KeyError:
                raise ValueError(
                    f"`state` has a weight that ours have not: {name!r}."
                ) from None
    assign(values, network)


def flax_state(params):
    """{name: array} as PyTorch names them, from MeanFlow's flax tree."""
    state = {}

    def visit(tree, path):
        if hasattr(tree, "items"):
            for key, child in tree.items():
                visit(child, [*path, key])
            return
        *layers, kind = [
            p for p in path if p not in ("_flax_linear", "_flax_embedding")
        ]
        value = np.asarray(tree)
        if kind == "kernel" and value.ndim == 4:
            value = value.transpose(3, 2, 0, 1)
        elif kind == "kernel":
            value = value.T
        name = ".".join(p.removeprefix("layers_") for p in layers)
        name = name.replace("._flax_conv", "")
        state[f"{name}.{'bias' if kind == 'bias' else 'weight'}"] = value

    visit(params, [])
    return state
