"""Write what the policy networks of "Much Ado About Noising" give.

    python tests/published/policy_reference.py FOLDER_OF_MUCH_ADO

Small versions with the weights of weights.py; see SOURCES.md. Needs einops.
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


def main(folder):
    sys.path.insert(0, folder)
    # A logger and configurations, which the networks import and do not use.
    sys.modules["loguru"] = types.ModuleType("loguru")
    encoders = types.ModuleType("mip.encoders")
    for name in (
        "IdentityEncoder", "MLPEncoder", "MultiImageObsEncoder",
        "PerStepMLPEncoder",
    ):  # fmt: skip
        setattr(encoders, name, None)
    sys.modules["mip.encoders"] = encoders
    x, t, r, condition = (
        torch.from_numpy(a) for a in weights.chunks(8, 3, (2, 5))
    )
    for name, (module, kind, options) in NETWORKS.items():
        module = importlib.import_module(f"mip.networks.{module}")
        network = getattr(module, kind)(**SHAPES, **options).eval()
        shapes = {}
        with torch.no_grad():
            for key, value in network.state_dict().items():
                if not key.startswith(UNUSED):
                    shapes[key] = tuple(value.shape)
                    drawn = weights.draw_policy(key, value.shape)
                    value.copy_(torch.from_numpy(drawn))
            outputs = {
                "output": network(x, t, r, condition)[0].numpy(),
                "velocity": network(x, t, t, condition)[0].numpy(),
            }
        np.savez_compressed(
            HERE / f"policy_{name}.npz",
            **outputs,
            names=np.array(list(shapes)),
            shapes=np.array([str(s) for s in shapes.values()]),
        )
        y, v = outputs.values()
        print(name, y.shape, np.abs(y).mean(), np.abs(y - v).mean())


if __name__ == "__main__":
    main(*sys.argv[1:])
