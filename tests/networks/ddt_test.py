"""The decoupled transformer against the published ones; its derivatives."""

import pathlib

import keras
import numpy as np
import pytest
from helpers.close import close
from published import weights

import keras_flows as kf

HERE = pathlib.Path(__file__).parents[1]
PUBLISHED = {
    "ddt": {
        "image_shape": (16, 8, 4),
        "patch_size": 2,
        "width": 96,
        "encoder_depth": 2,
        "decoder_depth": 2,
        "num_heads": 2,
    },
    "rae_ddt": {
        "image_shape": (8, 8, 16),
        "patch_size": 1,
        "width": 64,
        "encoder_depth": 2,
        "decoder_depth": 1,
        "num_heads": 2,
        "decoder_dim": 128,
        "decoder_heads": 4,
        "qk_norm": False,
        "architecture": "rae",
    },
}


@pytest.mark.parametrize("name", ["ddt", "rae_ddt"])
def test_equals_the_published_network(name):
    file = np.load(HERE / "published" / f"{name}.npz")
    options = PUBLISHED[name]
    network = kf.networks.DDT(num_classes=1000, **options)
    weights.converter("ddt").convert(weights.state(file), network)
    x, t, _, labels = weights.inputs(options["image_shape"], 1000)
    y = weights.output(network, x=x, t=t, condition=labels)
    close(y, file["output"], 4.5)


@pytest.mark.once
@pytest.mark.parametrize(
    ("millions", "options"),
    # MCG-NJU/DDT's XL/2 (22En6De); DiT^DH-XL of arXiv 2510.11690, table 6.
    [
        (675, {"image_shape": (32, 32, 4)}),
        (
            839,
            {
                "image_shape": (16, 16, 768),
                "patch_size": 1,
                "decoder_dim": 2048,
                "qk_norm": False,
                "architecture": "rae",
            },
        ),
    ],
)
def test_parameters_are_the_papers(millions, options):
    depths = {False: (22, 6), True: (28, 2)}["architecture" in options]

    def count(encoder, decoder):
        return weights.num_parameters(
            lambda: kf.networks.DDT(
                width=1152,
                num_heads=16,
                num_classes=1000,
                encoder_depth=encoder,
                decoder_depth=decoder,
                **options,
            )
        )

    # Every block of a half has as many.
    one = count(1, 1)
    total = one + sum(
        (depth - 1) * (more - one)
        for depth, more in zip(depths, (count(2, 1), count(1, 2)), strict=True)
    )
    assert abs(total / 1e6 - millions) < 1.0


def small(**kwargs):
    options = {
        "image_shape": (8, 4, 3),
        "patch_size": 2,
        "width": 16,
        "encoder_depth": 1,
        "decoder_depth": 1,
        "num_heads": 2,
        "num_classes": 5,
        "two_times": True,
    }
    return kf.networks.DDT(**(options | kwargs))


def randomize(network, seed=0):
    """AdaLN-Zero hides most of a new network; take it away from zero."""
    rng = np.random.default_rng(seed)
    for v in network.trainable_variables:
        # Of unit gain: more, and differences of step 0.01 are too coarse.
        fan_in = v.shape[0] if len(v.shape) > 1 else 10
        v.assign(rng.standard_normal(v.shape) / np.sqrt(fan_in))


def batch(rows=4, shape=(8, 4, 3)):
    rng = np.random.default_rng(1)
    return (
        rng.standard_normal((rows, *shape)).astype("float32"),
        np.arange(rows, dtype="int32"),
    )


@pytest.mark.once
def test_jvp_through_the_network_is_right():
    network = small(decoder_dim=24, decoder_heads=3)
    randomize(network)
    model = kf.FlowMapInterface(network, "lsd", ema=None, seed=0)
    kf.check_jvp(model, batch())


@pytest.mark.once
def test_every_input_matters_and_it_starts_as_the_zero_velocity():
    network = small()
    x, labels = batch()
    t = np.full(4, 0.4, "float32")
    inputs = {"x": x, "t": t, "r": t / 2, "condition": labels}

    def output(**other):
        return weights.output(network, **(inputs | other))

    assert np.abs(output()).max() == 0.0
    randomize(network)
    base = output()
    for other in (
        {"x": x + 0.1},
        {"t": t + 0.1},
        {"r": t / 4},
        {"condition": labels + 1},
    ):
        assert np.abs(output(**other) - base).max() > 1e-3


@pytest.mark.once
@pytest.mark.parametrize("architecture", ["ddt", "rae"])
def test_comes_back_from_a_file(architecture, tmp_path):
    network = small(architecture=architecture, decoder_dim=24, remat=True)
    randomize(network)
    network.save(tmp_path / "ddt.keras")
    copy = keras.saving.load_model(tmp_path / "ddt.keras")
    assert copy.get_config() == network.get_config()
    for a, b in zip(network.variables, copy.variables, strict=True):
        assert a.path == b.path
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b)
        )
    blocks = [layer for layer in copy.layers if "_block_" in layer.name]
    assert len(blocks) == 2 and all(block.remat for block in blocks)
    for layer in network.layers:
        again = type(layer).from_config(layer.get_config())
        assert again.get_config() == layer.get_config()


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="`architecture`.*ddt, rae"):
        small(architecture="dit")
    with pytest.raises(ValueError, match="`encoder_depth`.*LightningDiT"):
        small(encoder_depth=0)
    with pytest.raises(ValueError, match="`decoder_depth`"):
        small(decoder_depth=0)
    with pytest.raises(ValueError, match="patch_size.*must divide"):
        small(patch_size=3)
    with pytest.raises(ValueError, match="`num_heads`"):
        small(num_heads=3)


@pytest.mark.once
def test_a_state_of_another_architecture_assigns_nothing():
    network = small()
    before = [keras.ops.convert_to_numpy(v) for v in network.variables]
    for name in PUBLISHED:
        file = np.load(HERE / "published" / f"{name}.npz")
        with pytest.raises(ValueError, match="different architectures"):
            weights.converter("ddt").convert(weights.state(file), network)
    for old, v in zip(before, network.variables, strict=True):
        np.testing.assert_array_equal(old, keras.ops.convert_to_numpy(v))
