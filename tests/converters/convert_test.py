"""Published checkpoints become presets: layouts, sizes, direction, safety."""

import argparse
import json
import pathlib

import keras
import numpy as np
import pytest
from helpers.checkpoints import published
from helpers.checkpoints import save_safetensors
from helpers.checkpoints import save_torch
from helpers.close import close
from helpers.commands import refused
from helpers.commands import run
from keras import ops
from oracle import ExactNetwork
from oracle import Linear
from oracle import Oracle
from published import weights

import keras_flows as kf
from keras_flows.converters.assign import assign
from keras_flows.converters.direction import reverse
from keras_flows.converters.direction import reversed_call
from keras_flows.presets.convert_files import read_checkpoint

pytestmark = pytest.mark.once

HERE = pathlib.Path(__file__).parents[1]
SHAPE, CLASSES = (8, 8, 4), 5


def limit(output):
    """Of the largest difference: 4.5 digits of the largest output."""
    return 10**-4.5 * np.abs(output).max()


def golden(output, shape=SHAPE, classes=CLASSES, **more):
    x, t, _, labels = weights.inputs(shape, classes)
    return {"x": x, "t": t, "condition": labels, "output": output} | more


def check_direction(model, kind, expected):
    """Ours is -published(x, 1 - t) where the repository has data at t = 1.

    Those are SiT (transport/path.py: alpha is t), LightningDiT (the same) and
    DDT (flow_matching/scheduling.py); REPA's and RAE's alpha is 1 - t.
    """
    data_at_one = kind in ("sit", "lightning_dit", "ddt")
    inputs = {k: v for k, v in expected.items() if k != "output"}
    if data_at_one:
        inputs["t"] = 1.0 - inputs["t"]
    y = weights.output(model.network, **inputs)
    y = -y if data_at_one else y
    close(y, expected["output"], 4.5)


def options(heads=2):
    return {"num_heads": heads}


@pytest.mark.parametrize("name", ["sit", "repa", "dit"])
def test_a_training_checkpoint(name, tmp_path):
    """The averaged weights, equal to the published network's output."""
    state, output = published(f"convert_{name}")
    path = save_torch(
        tmp_path / "0000001.pt", state, {"args": argparse.Namespace(seed=0)}
    )
    expected = golden(output)
    done = kf.presets.convert(
        path, name, tmp_path / "preset", options=options(), golden=expected
    )
    assert done.weights == "ema"
    assert done.difference < limit(output)
    assert bool(done.dropped) == (name == "repa")
    assert all(d.startswith("projectors.") for d in done.dropped)
    # What was written says so, and loads as the same model.
    loaded = kf.from_preset(tmp_path / "preset")
    assert type(loaded) is type(done.model)
    assert loaded.null_label == CLASSES
    about = json.loads((tmp_path / "preset" / "metadata.json").read_text())
    assert about["weights"] == "ema"
    assert about["golden_difference"] < limit(output)
    check_direction(loaded, name, expected)
    # The weights of the last step are twice those.
    last = kf.presets.convert(
        path, name, ema=False, options=options(), golden=expected
    )
    assert last.weights == "model" and last.difference > 0.1


def test_sizes_come_from_shapes(tmp_path):
    state, _ = published("convert_sit")
    path = save_torch(tmp_path / "sit.pt", state)
    done = kf.presets.convert(path, "sit", options=options())
    assert done.weights == "only"
    config = done.model.network.get_config()
    expected = {
        "image_shape": SHAPE,
        "patch_size": 2,
        "width": 32,
        "depth": 2,
        "mlp_ratio": 4.0,
        "num_classes": CLASSES,
        "learn_sigma": True,
        "two_times": False,
    }
    assert {key: config[key] for key in expected} == expected
    with pytest.raises(ValueError, match="`options` must have 'num_heads'"):
        kf.presets.convert(path, "sit")
    with pytest.raises(ValueError, match="`ema`=True.*no such weights"):
        kf.presets.convert(path, "sit", ema=True, options=options())
    # Another depth of heads, patch, ... does not go unnoticed.
    with pytest.raises(ValueError, match="different architectures"):
        kf.presets.convert(path, "sit", options=options() | {"depth": 1})
    with pytest.raises(ValueError, match="no weight.*'enc"):
        kf.presets.convert(path, "edm")
    with pytest.raises(ValueError, match="`kind`.*lightning_dit"):
        kf.presets.convert(path, "sd3")


def test_published_sizes_have_published_heads():
    from keras_flows.converters.sizes import HEADS

    assert [HEADS[w] for w in (384, 768, 1024, 1152)] == [6, 12, 16, 16]


def test_dit_keeps_its_variances(tmp_path):
    """Eight channels, the noise and the share of the variance."""
    state, output = published("convert_dit")
    assert output.shape[-1] == 8
    path = save_torch(tmp_path / "dit.pt", state)
    model = kf.presets.convert(path, "dit", options=options()).model
    assert isinstance(model, kf.DiscreteInterface) and model.learn_sigma
    samples = model.generate(
        2, condition=[0, 1], num_steps=2, guidance_scale=2.0, seed=0
    )
    assert tuple(samples.shape) == (2, *SHAPE)


def test_the_layout_of_diffusers(tmp_path):
    state, output = published("convert_diffusers_dit", weights.draw_diffusers)
    save_safetensors(tmp_path / "diffusion_pytorch_model.safetensors", state)
    (tmp_path / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"no")
    (tmp_path / "config.json").write_text(
        json.dumps({"num_attention_heads": 2, "sample_size": 8})
    )
    # Its frequencies of time are not DiT's; at t = 0 that is nothing.
    done = kf.presets.convert(
        tmp_path, "dit", golden=golden(output, t=np.zeros(2, "float32"))
    )
    assert done.difference < limit(output) and done.weights == "only"


@pytest.mark.parametrize(
    "name, kind, shape, more",
    [
        ("lightning_dit_qk", "lightning_dit", (32, 32, 4), {}),
        (
            "ddt",
            "ddt",
            (16, 8, 4),
            {"encoder_depth": 2, "image_shape": (16, 8, 4)},
        ),
        ("rae_ddt", "rae", (8, 8, 16), {"num_heads": 2, "decoder_heads": 4}),
    ],
)
def test_other_transformers(name, kind, shape, more, tmp_path):
    import torch

    state, output = published(name)
    if kind == "ddt":
        # PyTorch Lightning's layout.
        tensors = {k: torch.from_numpy(v.copy()) for k, v in state.items()}
        tree = {f"ema_denoiser.{k}": v for k, v in tensors.items()}
        tree |= {f"denoiser.{k}": 2.0 * v for k, v in tensors.items()}
        path = tmp_path / "epoch.ckpt"
        torch.save({"state_dict": tree, "epoch": 3}, path)
    else:
        state = {f"module.{k}": v for k, v in state.items()}
        path = save_torch(tmp_path / "a.pt", state, {"config": {"seed": 0}})
    done = kf.presets.convert(
        path, kind, options=more, golden=golden(output, shape, 1000)
    )
    assert done.difference < limit(output) and done.weights == "ema"
    check_direction(done.model, kind, golden(output, shape, 1000))


def test_meanflow_as_flax_saves_it():
    folder = HERE / "published"
    path = folder / "convert_meanflow.msgpack"
    output = np.load(folder / "convert_meanflow.npz")["output"]
    _, _, r, _ = weights.inputs(SHAPE, 3)
    expected = golden(output, classes=3, r=r)
    with pytest.raises(ValueError, match="`options` must have 'image_shape'"):
        kf.presets.convert(path, "meanflow", options=options())
    done = kf.presets.convert(
        path,
        "meanflow",
        options=options() | {"image_shape": SHAPE},
        golden=expected,
    )
    assert isinstance(done.model, kf.MeanFlowInterface)
    assert done.weights == "ema" and done.difference < limit(output)
    last = read_checkpoint(path, ema=False)
    first = read_checkpoint(path, ema=True)
    name = next(n for n in first.state if n.endswith("bias"))
    np.testing.assert_array_equal(last.state[name], 2.0 * first.state[name])


def test_meanflow_as_an_archive(tmp_path):
    state = read_checkpoint(HERE / "published" / "convert_meanflow.msgpack")
    path = tmp_path / "weights.npz"
    np.savez(path, **{k.replace(".", "/"): v for k, v in state.state.items()})
    again = read_checkpoint(path)
    assert again.weights == "only" and set(again.state) == set(state.state)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("ddpmpp", {"channel_mult": (1, 2), "architecture": "ddpm++"}),
        ("ncsnpp", {"channel_mult": (1, 2), "architecture": "ncsn++"}),
        ("adm", {"channel_mult": (1, 4)}),
    ],
)
def test_edm_with_its_preconditioning(name, expected, tmp_path):
    state, output = published(name)
    state = {f"model.{k}": v for k, v in state.items()}
    path = save_torch(tmp_path / "edm.pt", state)
    done = kf.presets.convert(
        path, "edm", golden=golden(output, (16, 16, 3), 10)
    )
    assert done.difference < limit(output)
    config = done.model.network.get_config()
    expected = expected | {
        "channels": 32,
        "num_blocks": 1,
        "attn_resolutions": (8,),
        "num_classes": 10,
    }
    assert {key: config[key] for key in expected} == expected


@pytest.mark.parametrize("old", [False, True])
def test_stable_diffusions_autoencoder(old, tmp_path):
    file = np.load(HERE / "published" / "vae.npz")
    state = weights.state(file)
    if old:
        for new, was in (
            (".to_q.", ".query."),
            (".to_k.", ".key."),
            (".to_v.", ".value."),
            (".to_out.0.", ".proj_attn."),
        ):
            state = {k.replace(new, was): v for k, v in state.items()}
    save_safetensors(tmp_path / "diffusion_pytorch_model.safetensors", state)
    config = {"scaling_factor": 0.2, "norm_num_groups": 32}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = kf.presets.convert(
        tmp_path, "vae", options={"image_shape": (32, 16, 3)}
    ).model
    assert model.get_config()["block_out_channels"] == (32, 64)
    mean, _ = model.encode(
        ops.convert_to_tensor(weights.inputs((32, 16, 3), 1)[0])
    )
    close(keras.ops.convert_to_numpy(mean), 0.2 * file["mean"], 5)


SIZES = {"action_dim": 3, "horizon": 8, "condition_shape": (2, 5)}


@pytest.mark.parametrize(
    "name, cls, more",
    [
        ("mlp", "ChunkMLP", {}),
        ("unet", "TemporalUNet", {}),
        ("unet_shift", "TemporalUNet", {}),
        ("transformer", "PolicyTransformer", {"num_heads": 2}),
        ("dit", "PolicyDiT", {"num_heads": 2}),
        ("lstm", "PolicyRNN", {}),
        ("gru", "PolicyRNN", {}),
    ],
)
def test_policies(name, cls, more, tmp_path):
    import torch

    file = np.load(HERE / "published" / f"policy_{name}.npz")
    state = weights.state(file, weights.draw_policy)
    tensors = {f"net.{k}": torch.from_numpy(v) for k, v in state.items()}
    path = tmp_path / "model.pt"
    last = {k: 2.0 * v for k, v in tensors.items()}
    tree = {"flow_map": last, "encoder": {}, "flow_map_ema": tensors}
    torch.save(tree | {"encoder_ema": {}, "optimizer": {}}, path)
    x, t, r, condition = weights.chunks(8, 3, (2, 5))
    done = kf.presets.convert(
        path,
        "policy",
        options=SIZES | more,
        golden={
            "x": x, "t": t, "r": r, "condition": condition,
            "output": file["output"],
        },
    )  # fmt: skip
    assert type(done.model).__name__ == cls
    assert done.weights == "ema" and done.difference < limit(file["output"])


def test_back_to_torch_and_forth(tmp_path):
    for kind in ("sit", "dit"):
        state, _ = published(f"convert_{kind}")
        path = save_torch(tmp_path / "a.pt", state)
        model = kf.presets.convert(path, kind, options=options()).model
        back = kf.presets.torch_state(model, kind)
        assert set(back) == set(state)
        for name, value in back.items():
            assert value.shape == state[name].shape
            if name != "pos_embed":
                # A turn there and back, in float32.
                np.testing.assert_allclose(value, state[name], atol=1e-6)
    with pytest.raises(ValueError, match="`kind` must be one of sit, dit"):
        kf.presets.torch_state(model, "vae")


def small(kind="DiT", **more):
    network = getattr(kf.networks, kind)(
        (4, 4, 2), width=16, num_heads=2, **more
    )
    rng = np.random.default_rng(0)
    for v in network.trainable_variables:
        v.assign(0.3 * rng.standard_normal(v.shape))
    return network


@pytest.mark.parametrize(
    "kind, more",
    [("DiT", {"depth": 1}), ("DDT", {"encoder_depth": 1, "decoder_depth": 1})],
)
def test_reversed_weights_are_the_reversed_function(kind, more):
    """-network(x, 1 - t); DDT's times turn faster than DiT's."""
    network = small(kind, **more)
    x, t = weights.inputs((4, 4, 2), 1)[:2]
    inputs = {"x": ops.convert_to_tensor(x), "t": ops.convert_to_tensor(t)}
    expected = keras.ops.convert_to_numpy(reversed_call(network)(inputs))
    plain = keras.ops.convert_to_numpy(network(inputs))
    assign(reverse(network), network)
    y = keras.ops.convert_to_numpy(network(inputs))
    close(y, expected, 5)
    assert np.abs(y - plain).max() > 0.1 and np.abs(y + plain).max() > 1e-3


@kf.ops.register
class Reversed(keras.Model):
    """The network that `reverse` makes of another, without its weights."""

    input_names = ("x", "t", "r")

    def __init__(self, network):
        super().__init__(autocast=False)
        self.inner = network
        self.built = True

    def call(self, inputs, training=False):
        inputs = inputs | {"r": inputs["t"]}
        call = reversed_call(lambda i: self.inner(i | {"r": i["t"]}))
        return call(inputs)


@pytest.mark.parametrize("turned", [True, False])
def test_sits_convention_samples_the_data_once_turned(turned):
    """The exact velocity of SiT's path, x_t = t x + (1 - t) n, in ours."""
    oracle = Oracle(Linear(0), m=(0.4, -0.7), s=(0.5, 0.8))
    exact = ExactNetwork(oracle)
    network = Reversed(exact) if turned else exact
    model = kf.SiTInterface(network, ema=None)
    noise = np.random.default_rng(0).standard_normal((2000, 2))
    samples = keras.ops.convert_to_numpy(
        model.generate(noise=noise.astype("float32"), num_steps=50)
    )
    # The flow of Gaussian data is affine: Euler's 50 steps err by 0.01.
    close = np.allclose(
        samples, noise * oracle.s + oracle.m, atol=0.05, rtol=0.02
    )
    assert close == turned


def test_the_command(tmp_path, capsys):
    """There, with the difference printed, and back."""
    state, output = published("convert_sit")
    path = save_torch(tmp_path / "sit.pt", state)
    np.savez(tmp_path / "golden.npz", **golden(output))
    words = ["convert", path, "--kind=sit"]
    made = run(
        *words,
        f"--out={tmp_path / 'preset'}",
        '--options={"num_heads": 2}',
        f"--golden={tmp_path / 'golden.npz'}",
    )
    text = capsys.readouterr().out
    assert made == 0
    few = [f"--out={tmp_path / 'none'}", "--max_bytes=10"]
    said = refused(capsys, *words, *few)
    assert said.startswith("Not converted") and "max_bytes=" in said
    assert "SiTInterface of DiT" in text and "weights: only" in text
    assert float(text.rpartition("difference: ")[2]) < limit(output)
    words = ["convert", tmp_path / "preset", "--kind=sit", "--to_torch"]
    assert run(*words, f"--out={tmp_path / 'back.npz'}") == 0
    assert "back.npz: 32 arrays" in capsys.readouterr().out
    back = read_checkpoint(tmp_path / "back.npz").state
    name = "t_embedder.mlp.0.weight"
    np.testing.assert_allclose(back[name], state[name], atol=1e-6)
