"""Published transformers' weights into `kf.networks.DiT` and `LightningDiT`.

`convert(state, network)` takes {name: array} as the PyTorch repositories name
them (facebookresearch/DiT, willisma/SiT, sihyun-yu/REPA, hustvl/LightningDiT);
`flax_state` brings the parameter tree of Gsunshine/meanflow to the same names.
"""

import re

import numpy as np

from keras_flows.converters.assign import assign
from keras_flows.converters.assign import taken
from keras_flows.networks.layers.patches import sincos_positions

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


_FIRST = "transformer_blocks.0.norm1.emb."
DIFFUSERS = {
    "pos_embed.proj": "x_embedder.proj",
    f"{_FIRST}timestep_embedder.linear_1": "t_embedder.mlp.0",
    f"{_FIRST}timestep_embedder.linear_2": "t_embedder.mlp.2",
    f"{_FIRST}class_embedder.embedding_table": "y_embedder.embedding_table",
    "proj_out_1": "final_layer.adaLN_modulation.1",
    "proj_out_2": "final_layer.linear",
}
DIFFUSERS_PARTS = {
    "norm1.linear": "adaLN_modulation.1",
    "attn1.to_q": "attn.to_q",
    "attn1.to_k": "attn.to_k",
    "attn1.to_v": "attn.to_v",
    "attn1.to_out.0": "attn.proj",
    "ff.net.0.proj": "mlp.fc1",
    "ff.net.2": "mlp.fc2",
}
DIFFUSERS_BLOCK = re.compile(
    r"transformer_blocks\.(\d+)\."
    rf"(norm1\.emb|{'|'.join(map(re.escape, DIFFUSERS_PARTS))})(\..+)"
)


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
    for name, value in taken(state):
        if not name.startswith(UNUSED):
            try:
                values[_path(name)] = _value(name, value)
            except KeyError:
                raise ValueError(
                    f"`state` has a weight that ours have not: {name!r}."
                ) from None
    assign(values, network)


def torch_state(network, values):
    """The inverse of `convert`: {name: array} of a `DiT`, as PyTorch has it.

    The fixed positions, which the repositories save, are among them.

    Args:
        network: a `DiT`, for what is no weight.
        values: dict of path to array, as `assign` takes it.
    """
    patch = network.get_layer("patchify").patch_size
    prefixes = {ours: theirs for theirs, ours in PREFIXES.items()}
    parts = {ours: theirs for theirs, ours in BLOCK.items()}
    positions = network.get_layer("positions")
    table = sincos_positions(
        positions.rows,
        positions.columns,
        network.get_layer("patch_embedding").units,
    )
    state = {"pos_embed": table[None].astype("float32")}
    for path, value in values.items():
        layer, _, kind = path.rpartition("/")
        if layer.startswith("block_"):
            block, _, part = layer.partition("/")
            index = block.removeprefix("block_")
            name = f"blocks.{index}.{parts[part]}"
        else:
            name = prefixes[layer]
        if layer == "patch_embedding" and kind == "kernel":
            value = value.reshape(patch, patch, -1, value.shape[-1])
            value = value.transpose(3, 2, 0, 1)
        elif kind == "kernel":
            value = value.T
        kind = "bias" if kind == "bias" else "weight"
        state[f"{name}.{kind}"] = np.ascontiguousarray(value)
    return state


def diffusers_state(state):
    """{name: array} as facebookresearch/DiT has it, from diffusers' names.

    Every block there has a copy of the embeddings of time and label; the
    first block's is taken.
    """
    values = {}
    for name, value in taken(state):
        for theirs, ours in DIFFUSERS.items():
            if name.startswith(theirs):
                name = ours + name.removeprefix(theirs)
                break
        else:
            found = DIFFUSERS_BLOCK.fullmatch(name)
            if found and found[2] == "norm1.emb":
                continue
            if found:
                part = DIFFUSERS_PARTS[found[2]]
                name = f"blocks.{found[1]}.{part}{found[3]}"
        values[name] = value
    for name in [n for n in values if ".attn.to_q." in n]:
        parts = [values.pop(name.replace("to_q", f"to_{k}")) for k in "qkv"]
        values[name.replace("to_q", "qkv")] = np.concatenate(parts)
    return values


def flax_state(params):
    """{name: array} as PyTorch names them, from MeanFlow's flax tree.

    The tree may be nested or flat, with dots in its names.
    """
    state = {}

    def visit(tree, path):
        if hasattr(tree, "items"):
            for key, child in tree.items():
                visit(child, [*path, *key.split(".")])
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
