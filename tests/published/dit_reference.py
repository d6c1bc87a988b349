"""Write what published transformers give for the weights of weights.py.

    python tests/published/dit_reference.py NAME FOLDER_OF_ITS_REPOSITORY

Names and repositories: see SOURCES.md. Needs timm (PyTorch) or flax (JAX)
beside the repository; the tests need neither.
"""

import os
import pathlib
import sys
from unittest import mock

import numpy as np
import weights

HERE = pathlib.Path(__file__).parent
SHAPE, CLASSES = (32, 32, 4), 1000


def stub_torchvision():
    """timm imports torchvision, which none of these networks uses."""

    class Stub(mock.MagicMock):
        __path__ = []

    for name in (
        "", ".transforms", ".transforms.functional", ".ops", ".ops.misc",
        ".models", ".models.feature_extraction", ".datasets",
    ):  # fmt: skip
        sys.modules[f"torchvision{name}"] = Stub()


def from_torch(network, shape=SHAPE):
    """(output, {name: shape}) of a PyTorch network."""
    import torch

    shapes = {}
    with torch.no_grad():
        for name, value in network.named_parameters():
            shapes[name] = tuple(value.shape)
            if name != "pos_embed":
                value.copy_(torch.from_numpy(weights.draw(name, value.shape)))
        network.eval()
        x, t, _, labels = weights.inputs(shape, CLASSES)
        y = network(
            torch.from_numpy(x.transpose(0, 3, 1, 2).copy()),
            torch.from_numpy(t.copy()),
            torch.from_numpy(labels).long(),
        )
    y = y[0] if isinstance(y, tuple) else y
    return y.numpy().transpose(0, 2, 3, 1)[..., : shape[-1]], shapes


def from_flax(network):
    """(output, {name: shape}) of MeanFlow's network, named as PyTorch's."""
    import jax

    sys.path.insert(0, str(HERE.parents[1]))
    from keras_flows.converters.dit import flax_state

    x, t, r, labels = weights.inputs(SHAPE, CLASSES)
    tree = network.init(jax.random.PRNGKey(0), x, t, t - r, labels)["params"]
    shapes = {name: v.shape for name, v in flax_state(tree).items()}

    def fill(path, value):
        one = {}
        node = one
        for key in path[:-1]:
            node[key.key] = node = {}
        node[path[-1].key] = value
        ((name, torch_value),) = flax_state(one).items()
        drawn = weights.draw(name, torch_value.shape)
        if value.ndim == 4:
            return drawn.transpose(2, 3, 1, 0)
        return drawn.T if path[-1].key == "kernel" else drawn

    tree = jax.tree_util.tree_map_with_path(fill, tree)
    with jax.default_matmul_precision("highest"):
        y = network.apply({"params": tree}, x, t, t - r, labels)
    return np.asarray(y), shapes


def lightning(name):
    """LightningDiT, small; "_qk" with normalised keys and no shift."""
    # It compiles its parts, and imports fairscale, which it does not use.
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    parallel = ".nn.model_parallel"
    for part in ("", ".nn", parallel, f"{parallel}.initialize",
                 f"{parallel}.layers"):  # fmt: skip
        sys.modules[f"fairscale{part}"] = mock.MagicMock()
    from models.lightningdit import LightningDiT

    qk = name.endswith("_qk")
    return LightningDiT(
        input_size=32,
        in_channels=4,
        patch_size=2,
        hidden_size=192,
        depth=4,
        num_heads=3,
        use_swiglu=True,
        use_rope=True,
        use_rmsnorm=True,
        use_qknorm=qk,
        wo_shift=qk,
    )


def decoupled(name):
    """Small DDT of MCG-NJU/DDT, or RAE's with a wider decoder ("rae")."""
    if name == "ddt":
        from src.models.denoiser.decoupled_improved_dit import DDT

        return DDT(
            in_channels=4, num_groups=2, hidden_size=96, num_blocks=4,
            num_encoder_blocks=2, patch_size=2, num_classes=CLASSES,
        )  # fmt: skip
    sys.modules["transformers"] = mock.MagicMock()
    from stage2.models.DDT import DiTwDDTHead

    return DiTwDDTHead(
        input_size=8, patch_size=1, in_channels=16, hidden_size=[64, 128],
        depth=[2, 1], num_heads=[2, 4], num_classes=CLASSES,
    )  # fmt: skip


def main(name, folder):
    sys.path.insert(0, folder)
    if name.startswith("meanflow"):
        from models import models_dit

        y, shapes = from_flax(models_dit.DiT_S_2())
    else:
        stub_torchvision()
        shape = SHAPE
        if name.endswith("ddt"):
            network = decoupled(name)
            shape = (8, 8, 16) if name == "rae_ddt" else (16, 8, 4)
        elif name.startswith("lightning"):
            network = lightning(name)
        elif name.startswith("repa"):
            from models.sit import SiT_models

            network = SiT_models["SiT-S/2"](
                qk_norm=False, fused_attn=True, decoder_hidden_size=384
            )
        else:
            import models

            kind = "DiT_S_2" if name.startswith("dit") else "SiT_S_2"
            network = getattr(models, kind)()
        y, shapes = from_torch(network, shape)
    np.savez_compressed(
        HERE / f"{name}.npz",
        output=y.astype("float32"),
        names=np.array(list(shapes)),
        shapes=np.array([str(tuple(s)) for s in shapes.values()]),
    )
    print(name, y.shape, float(np.abs(y).mean()), len(shapes))


if __name__ == "__main__":
    main(*sys.argv[1:])
