"""Policy networks of "Much Ado About Noising" into those of `kf.networks`.

`convert(state, network)` takes {name: array} as the authors' repository names
the weights of its MLP, ChiUNet, ChiTransformer, SudeepDiT and RNN, for our
ChunkMLP, TemporalUNet, PolicyTransformer, PolicyDiT and PolicyRNN, and of its
MLPEncoder, PerStepMLPEncoder and MultiImageObsEncoder (ResNets of basic
blocks, average pooling) for our encoders. The times (s, t) there are (t, r)
here; a network without `r` is that at s = t.
"""

import re

import numpy as np

from keras_flows.converters.assign import assign
from keras_flows.converters.assign import taken

# Heads of a scalar that ours lack, and fixed tables that ours compute.
UNUSED = re.compile(
    r"scalar_|input_processor\.|final_processor\.|frequencies$|pos_enc\."
)
ATTENTION = {
    "self_attn.in_proj_": "attention/qkv",
    "self_attn.out_proj": "attention/out",
    "multihead_attn.in_proj_": "memory_attention/qkv",
    "multihead_attn.out_proj": "memory_attention/out",
    "linear1": "mlp_in",
    "linear2": "mlp_out",
}
FILM = {
    "conv1.0": "conv_1",
    "conv1.1": "norm_1",
    "conv2.0": "conv_2",
    "conv2.1": "norm_2",
    "cond_encoder.1": "film",
    "residual_conv": "skip",
}
RESNET = {
    "conv1": "1_conv",
    "bn1": "1_bn",
    "conv2": "2_conv",
    "bn2": "2_bn",
    "downsample.0": "0_conv",
    "downsample.1": "0_bn",
}
# Per network: {pattern of a module: our layer}. Groups fill {}, and {0} is
# looked up in the dict that stands third.
MODULES = {
    "ChunkMLP": [
        (r"input_proj", "input"),
        (r"input_norm", "input_norm"),
        (r"residual_blocks\.(\d+)\.norm(\d)", "block_{}/norm_{}"),
        (r"residual_blocks\.(\d+)\.linear(\d)", "block_{}/dense_{}"),
        (r"final_norm", "norm"),
        (r"main_output", "output"),
    ],
    "TemporalUNet": [
        (r"map_emb\.0", "time_hidden"),
        (r"map_emb\.2", "time_out"),
        (r"global_cond_encoder", "condition_embedding"),
        (r"downs\.(\d+)\.([01])\.(.+)", "down_{}_block_{}/{}", FILM),
        (r"downs\.(\d+)\.2\.conv", "down_{}_sample"),
        (r"mids\.(\d+)\.(.+)", "middle_block_{}/{}", FILM),
        (r"ups\.(\d+)\.([01])\.(.+)", "up_{}_block_{}/{}", FILM),
        (r"ups\.(\d+)\.2\.conv", "up_{}_sample"),
        (r"final_conv\.0", "final_conv"),
        (r"final_conv\.1", "final_norm"),
        (r"final_conv\.3", "output"),
    ],
    "PolicyTransformer": [
        (r"input_emb", "action_embedding"),
        (r"pos_emb", "action_positions"),
        (r"cond_obs_emb", "condition_embedding"),
        (r"cond_pos_emb", "memory_positions"),
        (r"encoder\.0", "memory_in"),
        (r"encoder\.2", "memory_out"),
        (
            r"encoder\.layers\.(\d+)\.(.+)",
            "condition_block_{}/{}",
            ATTENTION | {"norm1": "attention_norm", "norm2": "mlp_norm"},
        ),
        (
            r"decoder\.layers\.(\d+)\.(.+)",
            "block_{}/{}",
            ATTENTION
            | {
                "norm1": "attention_norm",
                "norm2": "memory_norm",
                "norm3": "mlp_norm",
            },
        ),
        (r"ln_f", "norm"),
        (r"head", "output"),
    ],
    "PolicyDiT": [
        (r"x_proj\.0", "action_in"),
        (r"x_proj\.2", "action_out"),
        (r"cond_proj\.0", "condition_in"),
        (r"cond_proj\.2", "condition_out"),
        (r"pos_emb", "positions"),
        (
            r"encoder\.layers\.(\d+)\.(.+)",
            "encoder_{}/{}",
            ATTENTION
            | {
                "self_attn.in_proj_": "value",
                "self_attn.out_proj": "out",
                "norm1": "norm_1",
                "norm2": "norm_2",
            },
        ),
        (
            r"decoder\.layers\.(\d+)\.(.+)",
            "decoder_{}/{}",
            ATTENTION
            | {
                "norm1": "norm_1",
                "norm2": "norm_2",
                "attn_mod1.scale": "modulation/0",
                "attn_mod1.shift": "modulation/1",
                "mlp_mod1.scale": "modulation/2",
                "mlp_mod1.shift": "modulation/3",
                "attn_mod2.scale": "gates/0",
                "mlp_mod2.scale": "gates/1",
            },
        ),
        (r"final_layer\.linear", "final/out"),
        (r"final_layer\.adaLN_modulation\.1", "final/modulation"),
    ],
    "PolicyRNN": [
        (r"mlp\.0", "hidden_0"),
        (r"mlp\.1", "norm_0"),
        (r"mlp\.4", "hidden_1"),
        (r"mlp\.5", "norm_1"),
        (r"main_output", "output"),
    ],
    # Hidden layers stand in lists with their activations; the last layer is
    # found by its index.
    "MLPEncoder": [
        (r"mlp\.mlp\.(\d+)\.0", "hidden_{}"),
        (r"mlp\.mlp\.\d+", "output"),
    ],
    "PerStepMLPEncoder": [(r"mlp\.(\d+)", "step_{}")],
    "ImageEncoder": [
        (r"mlp\.0", "hidden_0"),
        (r"mlp\.2", "output"),
        (r"key_model_map\.(\w+)\.(conv1|bn1)", "backbone_{}/conv{}", RESNET),
        (
            r"key_model_map\.(\w+)\.layer(\d)\.(\d)\.(.+)",
            "backbone_{}/stack{}_block{}_{}",
            RESNET,
        ),
    ],
}


def _layer(module, kind, levels):
    """Our layer of a module; KeyError where there is none."""
    for pattern, layer, *names in MODULES[kind]:
        match = re.fullmatch(pattern, module)
        if match is None:
            continue
        groups = list(match.groups())
        if names:
            groups[-1] = names[0][groups[-1]]
        if layer.startswith("up_"):
            # The published steps up count from the coarsest level.
            groups[0] = levels - 1 - int(groups[0])
        elif layer.startswith("step_"):
            index = int(groups[0]) // 2
            return "output" if index == levels else f"hidden_{index}"
        elif "stack" in layer:
            groups[1] = int(groups[1]) - 1
        return layer.format(*groups)
    raise KeyError(module)


def _named(name, value, kind, levels):
    """(path, value in our layout) of a weight; KeyError without one."""
    if name in ("pos_emb", "cond_pos_emb"):
        return f"{_layer(name, kind, levels)}/positions", value.squeeze(
            int(name == "pos_emb" and kind == "PolicyDiT")
        )
    # in_proj_weight has no dot before its kind.
    module, weight = re.fullmatch(r"(.+?)\.?(weight|bias)", name).groups()
    layer = _layer(module, kind, levels)
    if layer.startswith("encoder_") and layer.endswith("/value"):
        # Query and key of a token that sees itself only do nothing.
        value = value[-len(value) // 3 :]
    if layer == "output" and value.ndim == 3:
        value = value[:, :, 0]
    if re.search("norm|_bn$", layer.rpartition("/")[2]):
        return f"{layer}/{'gamma' if weight == 'weight' else 'beta'}", value
    # Images' rows and columns keep their order, which .T turns around.
    value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
    return f"{layer}/{'kernel' if weight == 'weight' else 'bias'}", value


def _recurrent(state, cell):
    """{our path: value} of the recurrent layers, taken out of the state."""
    values = {}
    for name in [n for n in state if n.startswith("rnn.weight_ih_l")]:
        index = name.removeprefix("rnn.weight_ih_l")
        path = f"{cell}_{index}/{cell}_cell"
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        parts = [np.asarray(state.pop(f"rnn.{n}_l{index}")) for n in names]
        if cell == "gru":
            # PyTorch's gates are reset, update; Keras's update, reset.
            parts = [np.split(p, 3) for p in parts]
            parts = [np.concatenate([p[1], p[0], p[2]]) for p in parts]
        kernel, recurrent, *biases = parts
        values[f"{path}/kernel"] = kernel.T
        values[f"{path}/recurrent_kernel"] = recurrent.T
        bias = sum(biases) if cell == "lstm" else np.stack(biases)
        values[f"{path}/bias"] = bias
    return values


def _regrouped(values):
    """Split or join what one layer has there and another here."""
    for path in list(values):
        if "memory_attention/qkv/" in path:
            value = values.pop(path)
            width = value.shape[-1] // 3
            values[path.replace("/qkv/", "/q/")] = value[..., :width]
            values[path.replace("/qkv/", "/kv/")] = value[..., width:]
        elif re.search(r"/(modulation|gates)/0/", path):
            parts, index = [], 0
            while (part := path.replace("/0/", f"/{index}/")) in values:
                parts.append(values.pop(part))
                index += 1
            joined = np.concatenate(parts, axis=-1)
            values[path.replace("/0/", "/")] = joined
    return values


def convert(state, network):
    """Assign every weight of a published policy network to ours.

    The heads of a scalar, which ours lack, are left out.

    Args:
        state: dict of name to array, as the PyTorch repository saves it.
        network: ours of the same sizes.

    Raises:
        ValueError: if a weight of either has no counterpart of its shape;
            nothing is assigned then.
    """
    kind = type(network).__name__
    if kind not in MODULES:
        raise ValueError(
            f"`network` must be one of {', '.join(MODULES)}. Received: {kind}."
        )
    config = network.get_config()
    levels = len(config.get("width_mult", ())) or config.get("depth")
    values = {}
    if kind == "PolicyRNN":
        values |= _recurrent(state, config["cell"])
    for name, value in taken(state):
        if UNUSED.match(name):
            continue
        value = np.asarray(value)
        try:
            path, value = _named(name, value, kind, levels)
            values[path] = value
        except (KeyError, AttributeError):
            # Kept under its own name, which `assign` will not find.
            values[name] = value
    assign(_regrouped(values), network)
