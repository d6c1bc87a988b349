"""EDM's U-Nets against the published ones, and their derivatives."""

import pathlib

import keras
import numpy as np
import pytest
from helpers.close import close
from keras import ops
from published import weights

import keras_flows as kf
from keras_flows.networks.images.unet_layers import downsample
from keras_flows.networks.images.unet_layers import upsample

HERE = pathlib.Path(__file__).parents[1]
# JAX derives every kernel itself, and XLA takes a minute over these; PyTorch
# runs the networks of two levels.
ON_TENSORFLOW = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="runs on TensorFlow only"
)


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("ddpmpp", "SongUNet", {"channel_mult": (1, 2)}),
        (
            "ncsnpp",
            "SongUNet",
            {"channel_mult": (1, 2), "architecture": "ncsn++"},
        ),
        ("adm", "DhariwalUNet", {"channel_mult": (1, 4)}),
    ],
)
def test_equals_the_published_network(name, kind, options):
    file = np.load(HERE / "published" / f"{name}.npz")
    network = getattr(kf.networks, kind)(
        (16, 16, 3),
        channels=32,
        num_blocks=1,
        attn_resolutions=(8,),
        num_classes=10,
        **options,
    )
    weights.converter("edm").convert(weights.state(file), network)
    x, t, _, labels = weights.inputs((16, 16, 3), 10)
    y = weights.output(network, x=x, t=t, condition=labels)
    close(y, file["output"], 4.5)


@pytest.mark.once
@pytest.mark.parametrize(
    ("kind", "millions"),
    # arXiv 2206.00364, appendix F: CIFAR's DDPM++ and ImageNet-64's ADM.
    [
        ("SongUNet", 55.7),
        ("DhariwalUNet", 295.9),
    ],
)
def test_parameters_are_the_papers(kind, millions):
    options = {
        "SongUNet": {"image_shape": (32, 32, 3), "channel_mult": (2, 2, 2)},
        "DhariwalUNet": {"image_shape": (64, 64, 3), "num_classes": 1000},
    }[kind]
    count = weights.num_parameters(
        lambda: getattr(kf.networks, kind)(**options)
    )
    assert abs(count / 1e6 - millions) < 0.1


def small(kind, **kwargs):
    return getattr(kf.networks, kind)(
        (8, 4, 2),
        channels=8,
        num_blocks=1,
        num_classes=3,
        **{"channel_mult": (1, 2), "attn_resolutions": (4,), **kwargs},
    )


@pytest.mark.parametrize(
    "kind, levels",
    [
        # One level has every kind of layer but the resampling, whose
        # convolutions are linear.
        pytest.param("SongUNet", (1,), marks=ON_TENSORFLOW),
        pytest.param("SongUNet", (1, 2), marks=pytest.mark.once),
        pytest.param("DhariwalUNet", (1, 2), marks=pytest.mark.once),
    ],
)
def test_jvp_through_the_network_is_right(kind, levels):
    network = small(
        kind,
        two_times=True,
        dropout=0.0,
        channel_mult=levels,
        attn_resolutions=(8 // 2 ** (len(levels) - 1),),
    )
    rng = np.random.default_rng(0)
    for v in network.trainable_variables:
        if "kernel" in v.path:
            fan_in = int(np.prod(v.shape[:-1]))
            v.assign(rng.standard_normal(v.shape) / np.sqrt(fan_in))
    x = rng.standard_normal((4, 8, 4, 2)).astype("float32")
    model = kf.FlowMapInterface(network, "lsd", ema=None, seed=0)
    kf.check_jvp(model, (x, np.arange(4, dtype="int32") % 3))


@pytest.mark.once
@pytest.mark.parametrize("kind", ["SongUNet", "DhariwalUNet"])
def test_trains_and_survives_its_config(kind):
    network = small(kind, dropout=0.2)
    copy = type(network).from_config(network.get_config())
    assert [v.shape for v in copy.variables] == [
        v.shape for v in network.variables
    ]
    model = kf.EDMInterface(network, seed=0, ema=None)
    model.compile(keras.optimizers.Adam(1e-3))
    rng = np.random.default_rng(0)
    x = 0.5 * rng.standard_normal((32, 8, 4, 2)).astype("float32")
    labels = rng.integers(0, 3, 32).astype("int32")
    before = [keras.ops.convert_to_numpy(v) for v in network.variables]
    history = model.fit(x, labels, batch_size=16, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    moved = [
        np.abs(old - keras.ops.convert_to_numpy(v)).max() > 0
        for old, v in zip(before, network.variables, strict=True)
        if "seed" not in v.path
    ]
    assert all(moved)


@pytest.mark.once
def test_resampling_of_a_constant_and_of_a_ramp():
    """Unit sum: a constant stays; a ramp stays a ramp away from the edge."""
    ramp = np.broadcast_to(
        np.arange(16.0, dtype="float32")[None, :, None, None], (1, 16, 16, 1)
    )
    for taps in ((1, 1), (1, 3, 3, 1)):
        x = ops.convert_to_tensor(np.ascontiguousarray(ramp))
        down = keras.ops.convert_to_numpy(downsample(x, taps))
        up = keras.ops.convert_to_numpy(upsample(x, taps))
        assert down.shape == (1, 8, 8, 1) and up.shape == (1, 32, 32, 1)
        # Centres of the new pixels, in the old pixels' coordinates.
        close(down[0, 2:-2, 4, 0], 2.0 * np.arange(2, 6) + 0.5, 6)
        if len(taps) == 4:
            close(up[0, 4:-4, 16, 0], np.arange(4, 28) / 2 - 0.25, 6)
        else:
            np.testing.assert_array_equal(up, ramp.repeat(2, 1).repeat(2, 2))


@pytest.mark.once
def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="multiple of 2 pixels"):
        kf.networks.SongUNet((7, 8, 3), channels=8, channel_mult=(1, 2))
    with pytest.raises(ValueError, match="`architecture`"):
        kf.networks.SongUNet((8, 8, 3), channels=8, architecture="vp")
    # Nothing is assigned, so nothing need be allocated.
    with keras.StatelessScope(initialize_variables=False):
        network = small("DhariwalUNet")
    with pytest.raises(ValueError, match="different architectures"):
        file = np.load(HERE / "published" / "adm.npz")
        weights.converter("edm").convert(weights.state(file), network)
