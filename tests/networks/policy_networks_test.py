"""Policy networks and encoders: the published ones; derivatives; training."""

import itertools
import pathlib
import zlib

import keras
import numpy as np
import pytest
from helpers.close import close
from published import weights

import keras_flows as kf
from keras_flows.networks.encoders.images import Crop

to_numpy = keras.ops.convert_to_numpy
HERE = pathlib.Path(__file__).parents[1]
PUBLISHED = {
    "mlp": ("ChunkMLP", {"width": 24, "depth": 2, "max_frequency": 100.0}),
    "unet": ("TemporalUNet", {"width": 16, "embedding_width": 16}),
    "unet_shift": (
        "TemporalUNet",
        {
            "width": 8,
            "embedding_width": 16,
            "width_mult": (1, 2),
            "kernel_size": 3,
            "scale": False,
        },
    ),
    "transformer": (
        "PolicyTransformer",
        {"width": 24, "num_heads": 2, "depth": 2},
    ),
    "transformer_encoder": (
        "PolicyTransformer",
        {"width": 24, "num_heads": 3, "depth": 1, "condition_depth": 2},
    ),
    "dit": ("PolicyDiT", {"width": 24, "num_heads": 2, "depth": 2}),
    "lstm": (
        "PolicyRNN",
        {"width": 12, "depth": 2, "max_frequency": 100.0},
    ),
    "gru": (
        "PolicyRNN",
        {"width": 12, "depth": 2, "cell": "gru", "max_frequency": 100.0},
    ),
}
# Of each kind the smallest that has all its parts.
SMALL = {
    "ChunkMLP": {
        "width": 8,
        "depth": 1,
        "time_features": 4,
        "max_frequency": 9.0,
    },
    "TemporalUNet": {
        "width": 8,
        "width_mult": (1, 1),
        "embedding_width": 8,
        "kernel_size": 3,
    },
    "PolicyTransformer": {"width": 8, "depth": 1, "num_heads": 2},
    "PolicyDiT": {"width": 8, "depth": 1, "num_heads": 2},
    "PolicyRNN": {
        "width": 8,
        "depth": 1,
        "time_features": 4,
        "max_frequency": 9.0,
    },
}
KINDS = tuple(SMALL)
JAX = keras.backend.backend() == "jax"
# JAX, whose derivatives are right and slow to compile, checks two of them.
DERIVED = ("ChunkMLP", "PolicyTransformer") if JAX else KINDS
OBJECTIVES = (
    "flow", "regression", "straight_flow", "tsd", "mip", "ctm", "psd", "lsd",
    "esd", "mf", "lmd", "emd",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _initial_weights(monkeypatch):
    """Draw them with NumPy: JAX compiles an initializer for each shape."""

    def draw(self, shape, dtype=None, **kwargs):
        rng = np.random.default_rng(zlib.crc32(str(shape).encode()))
        fan_in = int(np.prod(shape[:-1]))
        return (rng.standard_normal(shape) / np.sqrt(fan_in)).astype(dtype)

    for kind in ("VarianceScaling", "RandomNormal", "Orthogonal"):
        monkeypatch.setattr(getattr(keras.initializers, kind), "__call__", draw)


def small(kind, two_times=True, **options):
    return getattr(kf.networks, kind)(
        3, 4, (2, 5), two_times=two_times, **(SMALL[kind] | options)
    )


def randomize(network, seed=0):
    """Take what starts at zero or one away from there."""
    rng = np.random.default_rng(seed)
    for v in network.trainable_variables:
        v.assign(v + 0.3 * rng.standard_normal(v.shape) / np.sqrt(v.shape[0]))


def batch(rows=4):
    rng = np.random.default_rng(3)
    return tuple(
        rng.standard_normal((rows, *shape)).astype("float32")
        for shape in ((4, 3), (2, 5))
    )


def published(name, two_times):
    """(file, network with its weights, inputs)."""
    file = np.load(HERE / "published" / f"policy_{name}.npz")
    kind, options = PUBLISHED[name]
    network = getattr(kf.networks, kind)(
        3, 8, (2, 5), two_times=two_times, **options
    )
    state = weights.state(file, weights.draw_policy)
    weights.converter("policy").convert(state, network)
    x, t, r, condition = weights.chunks(8, 3, (2, 5))
    inputs = {"x": x, "t": t, "condition": condition}
    return file, network, inputs | ({"r": r} if two_times else {})


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.once
            if name in ("unet", "transformer_encoder", "gru")
            else (),
        )
        for name in PUBLISHED
    ],
)
def test_equals_the_published_network(name):
    file, network, inputs = published(name, two_times=True)
    y = weights.output(network, **inputs)
    close(y, file["output"], 4.5)


@pytest.mark.once
@pytest.mark.parametrize("name", PUBLISHED)
def test_one_time_is_the_published_network_at_equal_times(name):
    file, network, inputs = published(name, two_times=False)
    y = weights.output(network, **inputs)
    close(y, file["velocity"], 4.5)
    assert np.abs(file["velocity"] - file["output"]).max() > 0.01


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=() if kind in DERIVED else pytest.mark.once)
        for kind in KINDS
    ],
)
def test_jvp_through_the_network_is_right(kind):
    network = small(kind)
    randomize(network)
    model = kf.FlowMapInterface(network, "lsd", ema=None, seed=0)
    kf.check_jvp(model, batch())


def grid():
    """Every pair on PyTorch; elsewhere, where each compiles, a few.

    The derivatives are compared in `test_jvp_through_the_network_is_right`.
    """
    few = {
        ("ChunkMLP", "mip"),
        ("TemporalUNet", "flow"),
        ("PolicyTransformer", "mip"),
        ("PolicyDiT", "tsd"),
        ("PolicyRNN", "straight_flow"),
    }
    return [
        pytest.param(*pair, marks=() if pair in few else pytest.mark.once)
        for pair in itertools.product(KINDS, OBJECTIVES)
    ]


@pytest.mark.parametrize(("kind", "objective"), grid())
def test_every_network_trains_by_every_objective(kind, objective):
    spec = kf.objectives.get(objective)
    network = small(kind, two_times=spec.needs_r, dropout=0.1)
    randomize(network)
    teacher = None
    if spec.teacher == "required":
        teacher = kf.FlowMapInterface(
            small(kind, two_times=False, name="teacher"), "flow", ema=None
        )
        randomize(teacher.network, seed=1)
        teacher.trainable = False
    model = kf.FlowMapInterface(
        network, objective, teacher=teacher, ema=None, seed=0
    )
    model.compile(keras.optimizers.Adam(1e-3), run_eagerly=not JAX)
    before = [to_numpy(v) for v in network.trainable_variables]
    logs = model.train_on_batch(*batch(), return_dict=True)
    assert np.isfinite(logs["loss"]) and logs["loss"] > 0.0
    assert 0.0 < logs["gradient_norm"] < np.inf
    # Regression's x is zero, and so the gradient of what multiplies it.
    if objective != "regression":
        for old, v in zip(before, network.trainable_variables, strict=True):
            new = to_numpy(v)
            assert np.abs(new - old).max() > 0, v.path


ENCODERS = {
    "mlp": ("MLPEncoder", {"width": 8, "hidden_width": 12}),
    "per_step": ("PerStepMLPEncoder", {"width": 8, "hidden_width": 12}),
    "image": (
        "ImageEncoder",
        {
            "width": 8,
            "crop_shape": (64, 64),
            "pooling": "average",
            "pixel_scale": 1.0,
        },
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("name", ENCODERS)
def test_equals_the_published_encoder(name):
    file = np.load(HERE / "published" / f"policy_encoder_{name}.npz")
    kind, options = ENCODERS[name]
    x, _, _, condition = weights.chunks(8, 3, (2, 5))
    seen = {"a": x[:, :2], "b": condition}
    if name == "image":
        seen = weights.images()
    shapes = {k: v.shape[1:] for k, v in seen.items()}
    encoder = getattr(kf.networks, kind)(shapes, **options)
    state = weights.state(file, weights.draw_policy)
    weights.converter("policy").convert(state, encoder)
    y = weights.output(encoder, **seen)
    close(y, file["output"], 4.5)


RESNET = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [3],
    "stackwise_num_filters": [64],
    "stackwise_num_blocks": [1],
    "stackwise_num_strides": [1],
    "block_type": "basic_block",
}
VECTORS = {"b": (2, 3), "a": (2, 4)}
CAMERAS = {"left": (2, 18, 20, 3), "right": (2, 18, 20, 3), "arm": (2, 4)}


def seen(shapes, rows=3):
    rng = np.random.default_rng(0)
    return {
        k: keras.ops.convert_to_tensor(
            rng.uniform(-1.0 if len(shape) == 4 else 0.0, 1.0, (rows, *shape))
        )
        for k, shape in shapes.items()
    }


def encoder(kind, shapes=None, **options):
    if kind == "ImageEncoder":
        shapes = shapes or CAMERAS
        options = {
            "backbone": RESNET,
            "crop_shape": (16, 16),
            "width": 6,
            "keypoints": 4,
        } | options
    elif kind != "IdentityEncoder":
        options = {"width": 6, "depth": 1} | options
    return getattr(kf.networks, kind)(shapes or VECTORS, **options)


@pytest.mark.once
def test_images_of_episodes_reach_the_backbone_as_they_are():
    """Bytes become -1 to 1 in `Windows`, and nothing scales them again."""
    model = encoder("ImageEncoder", crop_shape=None)
    shapes = {key: shape[1:] for key, shape in CAMERAS.items()}
    rng = np.random.default_rng(0)
    episode = {
        "observation": {
            "left": rng.integers(0, 256, (4, *shapes["left"]), "uint8"),
            "right": rng.integers(0, 256, (4, *shapes["right"]), "uint8"),
            "arm": np.zeros((4, 4), "float32"),
        },
        "action": np.zeros((4, 2), "float32"),
    }
    windows = kf.datasets.robots.Windows(
        [episode], 3, 2, 2, batch_size=2, shuffle=False
    )
    _, given = windows[0]
    scaled = keras.Model(model.inputs, model.get_layer("left_scale").output)
    pixels = to_numpy(scaled([given[x.name] for x in model.inputs]))
    np.testing.assert_allclose(
        pixels, given["left"].reshape(pixels.shape), atol=1e-6
    )
    assert pixels.min() < -0.98 and pixels.max() > 0.98


@pytest.mark.once
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("IdentityEncoder", {}),
        ("MLPEncoder", {}),
        ("PerStepMLPEncoder", {}),
        ("ImageEncoder", {}),
        ("ImageEncoder", {"share_weights": True, "pooling": "average"}),
    ],
)
def test_encoders_shapes_gradients_and_file(kind, options, tmp_path):
    model = encoder(kind, **options)
    x = seen(CAMERAS if kind == "ImageEncoder" else VECTORS)
    y = model(x)
    assert y.shape == (3, 2, 7 if kind == "IdentityEncoder" else 6)
    if model.trainable_variables:
        _, gradients = kf.ops.value_and_gradients(
            lambda: keras.ops.sum(model(x) ** 3), model.trainable_variables
        )
        for v, g in zip(model.trainable_variables, gradients, strict=True):
            assert float(keras.ops.max(keras.ops.abs(g))) > 0.0, v.path
    paths = [v.path for v in model.trainable_variables]
    assert len(set(paths)) == len(paths)
    copy = kf.networks.clone_network(model, "copy")
    np.testing.assert_array_equal(to_numpy(copy(x)), to_numpy(y))
    model.save(tmp_path / "encoder.keras")
    copy = keras.saving.load_model(tmp_path / "encoder.keras")
    assert copy.get_config() == model.get_config()
    close(to_numpy(copy(x)), to_numpy(y), 6)


@pytest.mark.once
def test_per_step_encoder_keeps_steps_apart():
    x = seen(VECTORS)
    other = x | {"a": x["a"] + keras.ops.reshape([0.0, 1.0], (1, 2, 1))}
    for kind, kept in (("PerStepMLPEncoder", True), ("MLPEncoder", False)):
        model = encoder(kind)
        moved = to_numpy(model(other) - model(x))
        assert (np.abs(moved[:, 0]).max() == 0.0) == kept
        assert np.abs(moved[:, 1]).max() > 0.01


def test_crops_are_pieces_of_the_image_and_cover_it():
    """Pixels that tell their place: random in training, else the centre."""
    row, column = np.mgrid[:6, :7]
    image = np.stack([row, column], -1)[None].astype("float32")
    crop = Crop(4, 3, seed=0)
    x = keras.ops.convert_to_tensor(np.repeat(image, 200, 0))
    y = to_numpy(crop(x, training=True))
    corners = y[:, 0, 0].astype("int")
    for one, (top, left) in zip(y, corners, strict=True):
        np.testing.assert_array_equal(
            one, image[0, top : top + 4, left : left + 3]
        )
    # The last place of the last row and column, too.
    assert len({tuple(c) for c in corners}) == 3 * 5
    centre = to_numpy(crop(x, training=False))
    assert (centre[:, 0, 0] == [1, 2]).all()
    fixed = Crop(4, 3, random=False)
    np.testing.assert_array_equal(to_numpy(fixed(x, training=True)), centre)


def test_spatial_softmax_finds_a_peak():
    x = np.zeros((1, 3, 5, 2), "float32")
    x[0, 2, 1, 0] = 50.0
    # The second map has two equal peaks: the mean of their places.
    x[0, 0, 0, 1] = x[0, 1, 4, 1] = 50.0
    y = to_numpy(kf.networks.SpatialSoftmax()(keras.ops.convert_to_tensor(x)))
    np.testing.assert_allclose(y, [[-0.5, 1.0, 0.0, -0.5]], atol=1e-5)
    soft = kf.networks.SpatialSoftmax(temperature=1e6)
    y = to_numpy(soft(keras.ops.convert_to_tensor(x)))
    np.testing.assert_allclose(y, np.zeros((1, 4)), atol=1e-3)


@pytest.mark.once
def test_causal_attention_sees_no_later_actions():
    """Only where it is on, and the observation of the next step at most."""
    for causal in (True, False):
        network = small("PolicyTransformer", two_times=False, causal=causal)
        x, condition = batch(2)
        t = np.full(2, 0.3, "float32")
        base = weights.output(network, x=x, t=t, condition=condition)
        for inputs, first in (
            ({"x": x + np.eye(4)[2][:, None].astype("float32")}, 2),
            ({"condition": condition + np.array([[0.0], [1.0]], "float32")}, 1),
        ):
            given = {"x": x, "t": t, "condition": condition} | inputs
            moved = weights.output(network, **given) - base
            assert (np.abs(moved[:, :first]).max() == 0.0) == causal
            assert np.abs(moved[:, first:]).max() > 1e-3


@pytest.mark.once
@pytest.mark.parametrize("kind", KINDS)
def test_networks_keep_times_exact_and_come_back(kind, tmp_path):
    """Mixed precision leaves times alone; a file brings the network back."""
    network = small(kind, dtype="mixed_bfloat16")
    for layer in network.layers:
        if layer.name in ("t", "r", "time_features", "times"):
            assert layer.compute_dtype == "float32"
    network.save(tmp_path / "network.keras")
    copy = keras.saving.load_model(tmp_path / "network.keras")
    assert copy.get_config() == network.get_config()
    x, condition = batch()
    inputs = {"x": x, "t": x[:, 0, 0], "r": x[:, 1, 0], "condition": condition}
    y = weights.output(network, **inputs)
    np.testing.assert_array_equal(weights.output(copy, **inputs), y)
    for layer in network.layers:
        again = type(layer).from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
    # A condition of one vector.
    vector = getattr(kf.networks, kind)(3, 4, (10,), **SMALL[kind])
    y = weights.output(
        vector, x=x, t=x[:, 0, 0], condition=condition.reshape(4, 10)
    )
    assert y.shape == (4, 4, 3)


@pytest.mark.once
def test_bad_arguments_are_named():
    networks = kf.networks
    for kind in KINDS:
        with pytest.raises(ValueError, match="`condition_shape`"):
            getattr(networks, kind)(3, 4, (2, 2, 2), **SMALL[kind])
    with pytest.raises(ValueError, match="`horizon`.*multiple of 4"):
        networks.TemporalUNet(3, 10, (5,))
    with pytest.raises(ValueError, match="`kernel_size`"):
        networks.TemporalUNet(3, 8, (5,), kernel_size=4)
    with pytest.raises(ValueError, match="`num_heads`"):
        networks.PolicyTransformer(3, 4, (5,), width=16, num_heads=3)
    with pytest.raises(ValueError, match="`num_heads`"):
        networks.PolicyDiT(3, 4, (5,), width=16, num_heads=3)
    with pytest.raises(ValueError, match="`cell`.*lstm, gru"):
        networks.PolicyRNN(3, 4, (5,), cell="rnn")
    with pytest.raises(ValueError, match="`observation_shape`.*steps"):
        encoder("MLPEncoder", {"a": (2, 3), "b": (3, 3)})
    with pytest.raises(ValueError, match="'a'.*ImageEncoder"):
        encoder("MLPEncoder", {"a": (2, 8, 8, 3)})
    with pytest.raises(ValueError, match="no image"):
        encoder("ImageEncoder", VECTORS)
    with pytest.raises(ValueError, match="does not fit"):
        encoder("ImageEncoder", crop_shape=(30, 16))
    with pytest.raises(ValueError, match="`backbone`.*resnet18"):
        encoder("ImageEncoder", backbone="vgg")
    network = small("ChunkMLP")
    file = np.load(HERE / "published" / "policy_dit.npz")
    with pytest.raises(ValueError, match="different architectures"):
        weights.converter("policy").convert(weights.state(file), network)
