"""What tests/converters/convert_test.py needs of small published networks.

    python tests/published/convert_reference.py NAME [FOLDER_OF_ITS_REPOSITORY]

NAME is sit, dit, repa, meanflow or diffusers_dit. Weights are those of
weights.py; see SOURCES.md. "meanflow" also writes a checkpoint by flax's own
function. Needs what dit_reference.py needs, or diffusers.
"""

import pathlib
import sys

import dit_reference
import numpy as np
import weights

HERE = pathlib.Path(__file__).parent
SHAPE, CLASSES = (8, 8, 4), 5
SIZE = {
    "input_size": 8,
    "patch_size": 2,
    "in_channels": 4,
    "hidden_size": 32,
    "depth": 2,
    "num_heads": 2,
    "num_classes": CLASSES,
}


def filled(network, draw):
    """{name: shape} of a PyTorch network whose weights are drawn here."""
    import torch

    shapes = {}
    with torch.no_grad():
        for name, value in network.state_dict().items():
            shapes[name] = tuple(value.shape)
            if name not in ("pos_embed", "pos_embed.pos_embed"):
                value.copy_(torch.from_numpy(draw(name, value.shape)))
    network.eval()
    return shapes


def run(network, *, keywords=False):
    """The network's first output for the batch, channels-last."""
    import torch

    x, t, _, labels = weights.inputs(SHAPE, CLASSES)
    x = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    labels = torch.from_numpy(labels).long()
    with torch.no_grad():
        if keywords:
            # Its frequencies of time are not DiT's; at t = 0 that is nothing.
            t = torch.zeros(2, dtype=torch.long)
            y = network(x, timestep=t, class_labels=labels)[0]
        else:
            y = network(x, torch.from_numpy(t.copy()), labels)
    y = y[0] if isinstance(y, tuple) else y
    return y.numpy().transpose(0, 2, 3, 1)


def from_torch(name):
    if name == "diffusers_dit":
        import torch

        # As in inception_reference.py.
        operators = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            operators.define(
                f"{operator}(Tensor a, Tensor b, float c) -> Tensor"
            )
        from diffusers import DiTTransformer2DModel

        network = DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            sample_size=8,
            patch_size=2,
            num_embeds_ada_norm=CLASSES,
        )
    elif name == "repa":
        from models.sit import SiT

        network = SiT(
            **SIZE,
            decoder_hidden_size=32,
            encoder_depth=1,
            z_dims=[16],
            projector_dim=8,
            qk_norm=False,
            fused_attn=True,
        )
    else:
        import models

        network = (models.SiT if name == "sit" else models.DiT)(**SIZE)
    diffusers = name == "diffusers_dit"
    draw = weights.draw_diffusers if diffusers else weights.draw
    shapes = filled(network, draw)
    return run(network, keywords=diffusers), shapes


def from_flax():
    """(output, {}) of MeanFlow's network, and its checkpoint.

    The averaged weights are the network's, the last ones twice them.
    """
    import jax
    from flax import serialization
    from models import models_dit

    network = models_dit.DiT(
        **SIZE | {"hidden_size": 16, "depth": 1, "num_classes": 3}
    )
    x, t, r, labels = weights.inputs(SHAPE, 3)
    params = network.init(jax.random.PRNGKey(0), x, t, t - r, labels)["params"]
    rng = np.random.default_rng(0)
    params = jax.tree_util.tree_map(
        lambda v: np.float32(rng.standard_normal(v.shape) / 4.0), params
    )
    with jax.default_matmul_precision("highest"):
        y = network.apply({"params": params}, x, t, t - r, labels)
    state = {
        "step": 3,
        "params": {"net": jax.tree_util.tree_map(lambda v: 2.0 * v, params)},
        "ema_params": {"net": params},
    }
    (HERE / "convert_meanflow.msgpack").write_bytes(
        serialization.msgpack_serialize(state)
    )
    return np.asarray(y), {}


def main(name, folder=None):
    if folder is not None:
        sys.path.insert(0, folder)
    if name == "meanflow":
        y, shapes = from_flax()
    else:
        if name != "diffusers_dit":
            dit_reference.stub_torchvision()
        y, shapes = from_torch(name)
    np.savez_compressed(
        HERE / f"convert_{name}.npz",
        output=y.astype("float32"),
        names=np.array(list(shapes), dtype=str),
        shapes=np.array([str(s) for s in shapes.values()], dtype=str),
    )
    print(name, y.shape, float(np.abs(y).mean()), len(shapes))


if __name__ == "__main__":
    main(*sys.argv[1:])
