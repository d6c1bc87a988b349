"""Write what the policy networks of "Much Ado About Noising" give.

    python tests/published/policy_reference.py FOLDER_OF_MUCH_ADO

Small versions with the weights of weights.py; see SOURCES.md. Needs einops,
torchvision and what `mip.torch_utils` imports.
"""

import importlib
import pathlib
import sys
import types

import numpy as np
import torch
import weights

HERE = pathlib.Path(__file__).parent
SHAPES = {"act_dim": 3, "Ta": 8, "obs_dim": 5, "To": 2}
NETWORKS = {
    "mlp": ("mlp", "MLP", {"emb_dim": 24, "n_layers": 2}),
    "unet": (
        "chiunet",
        "ChiUNet",
        {"model_dim": 16, "emb_dim": 16, "dim_mult": [1, 2, 2]},
    ),
    "unet_shift": (
        "chiunet",
        "ChiUNet",
        {
            "model_dim": 8,
            "emb_dim": 16,
            "dim_mult": [1, 2],
            "kernel_size": 3,
            "cond_predict_scale": False,
        },
    ),
    "transformer": (
        "chitfm",
        "ChiTransformer",
        {"d_model": 24, "nhead": 2, "num_layers": 2},
    ),
    "transformer_encoder": (
        "chitfm",
        "ChiTransformer",
        {"d_model": 24, "nhead": 3, "num_layers": 1, "n_cond_layers": 2},
    ),
    "dit": (
        "sudeepdit",
        "SudeepDiT",
        {"d_model": 24, "n_heads": 2, "depth": 2},
    ),
    "lstm": ("rnn", "RNN", {"rnn_hidden_dim": 12, "rnn_num_layers": 2}),
    "gru": (
        "rnn",
        "RNN",
        {"rnn_hidden_dim": 12, "rnn_num_layers": 2, "rnn_type": "GRU"},
    ),
}
# Not weights of the networks' functions of (x, s, t, condition), or fixed.
UNUSED = (
    "frequencies", "scalar_", "input_processor", "final_processor", "pos_enc.",
)  # fmt: skip


def write(name, network, call, unused=UNUSED):
    """Draw a network's weights and write what `call(network)` gives."""
    network, shapes = network.eval(), {}
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if not key.startswith(unused):
                shapes[key] = tuple(value.shape)
                drawn = weights.draw_policy(key, value.shape)
                value.copy_(torch.from_numpy(drawn))
        outputs = {k: v.numpy() for k, v in call(network).items()}
    np.savez_compressed(
        HERE / f"policy_{name}.npz",
        **outputs,
        names=np.array(list(shapes)),
        shapes=np.array([str(s) for s in shapes.values()]),
    )
    print(name, {k: (v.shape, np.abs(v).mean()) for k, v in outputs.items()})


def main(folder):
    sys.path.insert(0, folder)
    # A logger that the networks' helpers import.
    sys.modules["loguru"] = types.SimpleNamespace(logger=None)
    # As in inception_reference.py.
    operators = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            operators.define(f"{name}(Tensor a, Tensor b, float c) -> Tensor")
    from mip import encoders

    x, t, r, condition = (
        torch.from_numpy(a) for a in weights.chunks(8, 3, (2, 5))
    )
    for name, (module, kind, options) in NETWORKS.items():
        module = importlib.import_module(f"mip.networks.{module}")
        write(
            name,
            getattr(module, kind)(**SHAPES, **options),
            lambda network: {
                "output": network(x, t, r, condition)[0],
                "velocity": network(x, t, t, condition)[0],
            },
        )
    size = {"emb_dim": 8, "hidden_dims": [12, 12]}
    observation = {"b": condition, "a": x[:, :2]}
    write(
        "encoder_mlp",
        encoders.MLPEncoder(8, To=2, **size),
        lambda network: {"output": network(observation)},
    )
    write(
        "encoder_per_step",
        encoders.PerStepMLPEncoder(8, **size),
        lambda network: {"output": network(observation)},
    )
    obs = {
        "camera": {"shape": (3, 72, 68), "type": "rgb"},
        "gripper": {"shape": (4,)},
    }
    seen = {k: torch.from_numpy(v) for k, v in weights.images().items()}
    seen["camera"] = seen["camera"].permute(0, 1, 4, 2, 3).contiguous()
    write(
        "encoder_image",
        encoders.MultiImageObsEncoder(
            {"obs": obs}, "resnet18", emb_dim=8, crop_shape=(64, 64),
            use_group_norm=True, use_seq=True, keep_horizon_dims=True,
        ),
        lambda network: {"output": network(seen)},
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
