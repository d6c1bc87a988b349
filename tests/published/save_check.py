"""Convert what the published code's own saving code writes, and compare.

    python tests/published/save_check.py NAME [FOLDER_OF_ITS_REPOSITORY]

NAME is sit, dit, repa, lightning_dit, rae, policy, diffusers_dit or vae. The
published network gets random weights, the repository's own lines or function
write the checkpoint (diffusers: `save_pretrained`), `kf.presets.convert` reads
it, and the largest difference of the two networks' outputs is printed: it must
be below 1e-4. meanflow's file, by flax, is in convert_test.py. SOURCES.md says
what each repository needs.
"""

import argparse
import ast
import copy
import pathlib
import sys
import tempfile
import types

import convert_reference as reference
import dit_reference
import numpy as np
import torch
import weights

ROOT = pathlib.Path(__file__).parents[2]
SHAPE, CLASSES = reference.SHAPE, reference.CLASSES
TRAIN = {"sit": "train.py", "dit": "train.py", "repa": "train.py",
         "lightning_dit": "train.py"}  # fmt: skip


def saving_lines(path):
    """A script's `checkpoint = {...}` and `torch.save(checkpoint, ...)`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        text = ast.unparse(node) if isinstance(node, ast.stmt) else ""
        if isinstance(node, ast.Assign) and text.startswith("checkpoint = {"):
            found.append(text)
        if isinstance(node, ast.Expr) and text.startswith("torch.save(check"):
            found.append(text)
    assert len(found) == 2, found
    return "\n".join(sorted(found))


def function(path, name, namespace):
    """One function or method of a script, by its source alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            node.returns, node.decorator_list = None, []
            for argument in node.args.args:
                argument.annotation = None
            exec(ast.unparse(node), namespace)
            return namespace[name]
    raise ValueError(f"{path} has no {name}.")


def trained(network):
    """(the live network, twice the average; an optimizer with state)."""
    live = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(live.parameters(), lr=0.0)
    for parameter in live.parameters():
        parameter.data *= 2.0
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return live, optimizer


def save_training(name, folder, network, path):
    """As the repository's train.py (RAE: its function) saves."""
    live, optimizer = trained(network)
    model = types.SimpleNamespace(module=live)
    if name == "rae":
        import os

        save = function(
            folder / "src" / "train.py",
            "save_checkpoint",
            {"torch": torch, "os": os},
        )
        save(str(path), 3, 1, model, network, optimizer, None)
        return
    exec(
        saving_lines(folder / TRAIN[name]),
        {
            "torch": torch,
            "model": model,
            "ema": network,
            "opt": optimizer,
            "optimizer": optimizer,
            "args": argparse.Namespace(seed=0),
            "train_config": {"seed": 0},
            "global_step": 3,
            "checkpoint_path": path,
        },
    )


def transformer(name):
    """(small published network, kind, image shape, classes, options)."""
    if name == "lightning_dit":
        network = dit_reference.lightning("lightning_dit_qk")
        return network, (32, 32, 4), 1000, {}
    if name == "rae":
        more = {"num_heads": 2, "decoder_heads": 4}
        return dit_reference.decoupled("rae_ddt"), (8, 8, 16), 1000, more
    if name == "repa":
        from models.sit import SiT

        more = {"decoder_hidden_size": 32, "encoder_depth": 1, "z_dims": [16],
                "projector_dim": 8, "qk_norm": False,
                "fused_attn": True}  # fmt: skip
    else:
        import models

        SiT, more = models.SiT if name == "sit" else models.DiT, {}
    network = SiT(**reference.SIZE, **more)
    return network, SHAPE, CLASSES, {"num_heads": 2}


def output_of(network, shape, classes):
    """(inputs, the published output, channels-last)."""
    x, t, _, labels = weights.inputs(shape, classes)
    with torch.no_grad():
        y = network(
            torch.from_numpy(x.transpose(0, 3, 1, 2).copy()),
            torch.from_numpy(t.copy()),
            torch.from_numpy(labels).long(),
        )
    y = y[0] if isinstance(y, tuple) else y
    y = y.numpy().transpose(0, 2, 3, 1)
    return {"x": x, "t": t, "condition": labels, "output": y}


def check_transformer(name, folder, out, convert):
    network, shape, classes, options = transformer(name)
    with torch.no_grad():
        for key, value in network.named_parameters():
            if key not in ("pos_embed", "pos_embed.pos_embed"):
                value.copy_(torch.from_numpy(weights.draw(key, value.shape)))
    expected = output_of(network.eval(), shape, classes)
    path = out / "checkpoint.pt"
    save_training(name, folder, network, path)
    return convert(path, name, options=options, golden=expected)


def check_diffusers(out, convert):
    import diffusers

    network = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4,
        out_channels=8, num_layers=2, sample_size=8, patch_size=2,
        num_embeds_ada_norm=CLASSES,
    )  # fmt: skip
    reference.filled(network, weights.draw_diffusers)
    y = reference.run(network, keywords=True)
    network.save_pretrained(out)
    x, t, _, labels = weights.inputs(SHAPE, CLASSES)
    # Its frequencies of time are not DiT's; at t = 0 that is nothing.
    golden = {"x": x, "t": 0.0 * t, "condition": labels, "output": y}
    return convert(out, "dit", golden=golden)


def check_vae(out, convert):
    import diffusers
    import keras

    network = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(32, 64), layers_per_block=1, latent_channels=4,
        norm_num_groups=32, scaling_factor=0.2,
    ).eval()  # fmt: skip
    reference.filled(network, weights.draw)
    network.save_pretrained(out)
    images = weights.inputs((32, 16, 3), 1)[0]
    with torch.no_grad():
        mean = network.encode(
            torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        ).latent_dist.mean
    done = convert(out, "vae", options={"image_shape": (32, 16, 3)})
    found = keras.ops.convert_to_numpy(done.model.encode(images)[0])
    error = np.abs(found - 0.2 * mean.numpy().transpose(0, 2, 3, 1)).max()
    return types.SimpleNamespace(weights=done.weights, difference=error)


def check_policy(folder, out, convert):
    import importlib

    import policy_reference

    sys.modules["loguru"] = types.SimpleNamespace(logger=None)
    module, kind, options = policy_reference.NETWORKS["dit"]
    module = importlib.import_module(f"mip.networks.{module}")
    network = getattr(module, kind)(**policy_reference.SHAPES, **options).eval()
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if not key.startswith(policy_reference.UNUSED):
                drawn = weights.draw_policy(key, value.shape)
                value.copy_(torch.from_numpy(drawn))
        x, t, r, condition = weights.chunks(8, 3, (2, 5))
        chunk = network(*map(torch.from_numpy, (x, t, r, condition)))[0].numpy()
    live, optimizer = trained(network)
    nothing = torch.nn.Identity()
    save = function(folder / "mip" / "agent.py", "save", {"torch": torch})
    agent = types.SimpleNamespace(
        flow_map=torch.nn.ModuleDict({"net": live}),
        flow_map_ema=torch.nn.ModuleDict({"net": network}),
        encoder=nothing, encoder_ema=nothing, optimizer=optimizer,
    )  # fmt: skip
    save(agent, out / "model.pt", {"n_gradient_step": 3})
    golden = {"x": x, "t": t, "r": r, "condition": condition, "output": chunk}
    sizes = {"action_dim": 3, "horizon": 8, "condition_shape": (2, 5)}
    return convert(
        out / "model.pt", "policy", options=sizes | {"num_heads": 2},
        golden=golden,
    )  # fmt: skip


def main(name, folder=None):
    sys.path.append(str(ROOT))
    if folder is not None:
        folder = pathlib.Path(folder)
        sys.path.insert(0, str(folder / "src" if name == "rae" else folder))
    if name in ("diffusers_dit", "vae", "policy"):
        # As in inception_reference.py.
        operators = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            operators.define(
                f"{operator}(Tensor a, Tensor b, float c) -> Tensor"
            )
    else:
        dit_reference.stub_torchvision()
    import keras_flows as kf

    with tempfile.TemporaryDirectory() as out:
        out, convert = pathlib.Path(out), kf.presets.convert
        if name == "vae":
            done = check_vae(out, convert)
        elif name == "diffusers_dit":
            done = check_diffusers(out, convert)
        elif name == "policy":
            done = check_policy(folder, out, convert)
        else:
            done = check_transformer(name, folder, out, convert)
    print(f"{name}: {done.weights} weights, difference {done.difference:.1e}")
    assert done.difference < 1e-4


if __name__ == "__main__":
    main(*sys.argv[1:])
