"""REPA around every kind of interface: values, gradients, training."""

import keras
import numpy as np
import pytest
from helpers.close import close
from keras import layers
from keras import ops

import keras_flows as kf
from keras_flows.interfaces.repa import negative_cosine
from keras_flows.ops import value_and_gradients

SHAPE, TOKENS, DIM = (4, 4, 3), 4, 5


def network(two_times=False):
    """Four tokens of an image, three blocks; DiT itself is in recipes_test."""
    inputs = {
        "x": keras.Input(SHAPE, name="x"),
        "t": keras.Input((), name="t"),
        "condition": keras.Input((), dtype="int32", name="condition"),
    }
    times = [inputs["t"]]
    if two_times:
        inputs["r"] = keras.Input((), name="r")
        times.append(inputs["r"])
    c = layers.Embedding(4, 16, name="labels")(inputs["condition"])
    for i, time in enumerate(times):
        time = layers.Reshape((1,))(time)
        c = c + layers.Dense(16, "gelu", name=f"time_{i}")(time)
    tokens = layers.Reshape((TOKENS, 12))(inputs["x"])
    h = layers.Dense(16, name="tokens")(tokens) + layers.Reshape((1, 16))(c)
    for i in range(3):
        h = layers.Dense(16, "gelu", name=f"block_{i}")(h)
    y = layers.Reshape(SHAPE)(layers.Dense(12, name="final")(h))
    model = keras.Model(inputs, y)
    model.null_label = 3
    return model


def encoder():
    images = keras.Input(SHAPE)
    x = layers.Conv2D(DIM, 2, strides=2)(images)
    return keras.Model(images, layers.Reshape((TOKENS, DIM))(x))


INTERFACES = {
    "sit": lambda: kf.SiTInterface(network(), seed=0, ema=0.9),
    "edm": lambda: kf.EDMInterface(network(), seed=0, ema=0.9),
    "mean_flow": lambda: kf.MeanFlowInterface(
        network(two_times=True), seed=0, ema=0.9, fm_portion=0.5
    ),
    "lsd": lambda: kf.FlowMapInterface(
        network(two_times=True), "lsd", seed=0, ema=0.9
    ),
}


def batch(size=8, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((size, *SHAPE)).astype("float32")
    return x, rng.integers(0, 3, size).astype("int32")


def repa(kind, depth=2, **kwargs):
    kwargs.setdefault("encoder", encoder())
    return kf.REPAInterface(
        INTERFACES[kind](), feature_dim=DIM, repa_depth=depth, proj_dim=8,
        **kwargs,
    )  # fmt: skip


def test_negative_cosine_is_numpys():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3, 4, 5)).astype("float32")
    expected = -np.mean(
        np.sum(a * b, -1) / np.linalg.norm(a, axis=-1)
        / np.linalg.norm(b, axis=-1), axis=-1,
    )  # fmt: skip
    value = negative_cosine(*(ops.convert_to_tensor(p) for p in (a, b)))
    np.testing.assert_allclose(ops.convert_to_numpy(value), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_cosine_is_float32_in_half_precision(dtype):
    """In float16 the squares of these overflow, and 0 / 0 is not a number."""
    big = ops.cast(300.0 * ops.ones((2, 3, 64)), dtype)
    zero = ops.zeros((2, 3, 64), dtype=dtype)
    value = negative_cosine(big, big)
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    np.testing.assert_allclose(ops.convert_to_numpy(value), -1.0, atol=1e-5)
    value = negative_cosine(zero, big)
    np.testing.assert_array_equal(ops.convert_to_numpy(value), 0.0)


@pytest.mark.parametrize("kind", INTERFACES)
def test_gradient_reaches_the_block_and_none_beyond(kind):
    """Of blocks 0, 1, 2 with depth 2, the last must see nothing."""
    model = repa(kind)
    x, labels = (ops.convert_to_tensor(part) for part in batch())
    variables = model.trainable_variables
    _, gradients = value_and_gradients(
        lambda: ops.mean(model.loss(x, labels)["repa_loss"]), variables
    )
    reached = {}
    own = {id(v) for v in model.projector.variables}
    for v, g in zip(variables, gradients, strict=True):
        name = next(
            (p for p in v.path.split("/") if p.startswith(("block_", "final"))),
            "projector" if id(v) in own else "embedding",
        )
        size = float(ops.convert_to_numpy(ops.max(ops.abs(g))))
        reached[name] = max(reached.get(name, 0.0), size)
    assert reached.pop("block_2") == 0.0 and reached.pop("final") == 0.0
    assert set(reached) == {"block_0", "block_1", "projector", "embedding"}
    assert min(reached.values()) > 1e-6


@pytest.mark.parametrize("kind", INTERFACES)
def test_trains_and_leaves_the_encoder_alone(kind):
    model = repa(kind)
    before = [ops.convert_to_numpy(v) for v in model.encoder.held]
    model.compile(keras.optimizers.Adam(3e-3))
    x, labels = batch(16)
    history = model.fit(x, labels, batch_size=8, epochs=6, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert history["repa_loss"][-1] < history["repa_loss"][0]
    np.testing.assert_allclose(
        np.array(history["diffusion_loss"])
        + 0.5 * np.array(history["repa_loss"]),
        history["loss"],
        rtol=1e-5,
    )
    for old, v in zip(before, model.encoder.held, strict=True):
        np.testing.assert_array_equal(old, ops.convert_to_numpy(v))
    assert int(model.interface.emas[0].updates.numpy()) == 12
    samples = model.generate(2, condition=np.array([0, 1]), num_steps=2, seed=0)
    assert tuple(samples.shape) == (2, *SHAPE)


@pytest.mark.once
@pytest.mark.parametrize("kind", ["sit", "mean_flow", "lsd"])
def test_features_are_those_of_a_plain_forward_pass(kind):
    """With features of the network itself as target the loss is -1.

    The projector is the identity here; what the objective's own forward pass
    noted, rows split and merged again, must be the same features.
    """
    model = repa(kind, encoder=None)
    interface = model.interface
    x, labels = (ops.convert_to_tensor(part) for part in batch())
    seen = []
    plain = interface.tap

    def record(inputs, training=False):
        seen.append(inputs)
        return plain(inputs, training=training)

    interface.tap = record
    with kf.ops.gather() as notes:
        interface.loss(x, labels, training=False)
    interface.tap = plain
    tokens = model._tokens(x, notes)
    assert tuple(tokens.shape) == (8, TOKENS, 16)
    if kind != "sit":
        return
    with kf.ops.gather() as again:
        plain(seen[0])
    np.testing.assert_array_equal(
        ops.convert_to_numpy(tokens),
        ops.convert_to_numpy(again[0][1][model.tapped]),
    )


def test_rows_come_back_in_the_batchs_order():
    """Features of row i are of row i, though rows are split by stride."""
    model = repa("mean_flow", encoder=None)
    x = np.zeros((8, *SHAPE), "float32")
    x += np.arange(8, dtype="float32")[:, None, None, None]
    model.interface.sample_n = lambda shape: ops.zeros(shape)
    model.interface.sample_t = lambda shape: 0.5 * ops.ones(shape)
    x, labels = ops.convert_to_tensor(x), ops.zeros(8, "int32")
    with kf.ops.gather() as notes:
        model.interface.loss(x, labels, training=False)
    tokens = ops.convert_to_numpy(model._tokens(x, notes))
    with kf.ops.gather() as plain:
        model.interface.net(0.5 * x, 0.5 * ops.ones(8), condition=labels)
    close(tokens, ops.convert_to_numpy(plain[0][1][model.tapped]), 5)


@pytest.mark.once
def test_precomputed_features_equal_the_encoders():
    x, labels = batch()
    model = repa("sit")
    state = model.interface.seed_generator.state
    state.assign(np.array([1, 0], "uint32"))
    online = model.loss(ops.convert_to_tensor(x), labels, training=False)
    features = ops.convert_to_numpy(model.encoder(ops.convert_to_tensor(x)))
    state.assign(np.array([1, 0], "uint32"))
    ready = model.loss(
        ops.convert_to_tensor(x),
        labels,
        {"features": ops.convert_to_tensor(features)},
        training=False,
    )
    np.testing.assert_allclose(
        ops.convert_to_numpy(online["repa_loss"]),
        ops.convert_to_numpy(ready["repa_loss"]),
        atol=1e-6,
    )
    model.set_encoder(None)
    model.compile(keras.optimizers.Adam(1e-3))

    def batches():
        for _ in range(2):
            yield x, labels, {"features": features}

    assert np.isfinite(
        model.fit(batches(), verbose=0, steps_per_epoch=2).history["loss"]
    ).all()


def test_survives_saving(tmp_path):
    model = repa("lsd")
    model.save_to_preset(tmp_path / "repa")
    again = kf.Interface.from_preset(tmp_path / "repa")
    assert isinstance(again, kf.REPAInterface) and again.encoder is None
    noise = np.random.default_rng(0).standard_normal((2, *SHAPE))
    arguments = {
        "condition": np.array([0, 2]),
        "noise": noise.astype("float32"),
        "num_steps": 2,
    }
    np.testing.assert_array_equal(
        ops.convert_to_numpy(model.generate(**arguments)),
        ops.convert_to_numpy(again.generate(**arguments)),
    )
    for v, w in zip(
        model.projector.variables, again.projector.variables, strict=True
    ):
        np.testing.assert_array_equal(
            ops.convert_to_numpy(v), ops.convert_to_numpy(w)
        )
    model.interface.save_to_preset(tmp_path / "plain")
    plain = kf.Interface.from_preset(tmp_path / "plain")
    np.testing.assert_array_equal(
        ops.convert_to_numpy(model.generate(**arguments)),
        ops.convert_to_numpy(plain.generate(**arguments)),
    )


@pytest.mark.once
def test_dino_encoder_aligns_patches():
    keras_hub = pytest.importorskip("keras_hub")
    backbone = keras_hub.models.DINOV2Backbone(
        4, 1, 8, 2, 16, num_register_tokens=1, image_shape=(8, 8, 3),
        position_embedding_shape=(8, 8, 3),
    )  # fmt: skip
    model = kf.networks.dino_encoder(backbone, (16, 16, 3), (2, 2))
    assert model.output.shape[1:] == (4, 8)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 3))
    images = images.astype("float32")
    direct = kf.networks.dino_encoder(backbone, (8, 8, 3), (2, 2))(images)
    mean = np.array([0.485, 0.456, 0.406])
    std = np.array([0.229, 0.224, 0.225])
    pixels = ((images + 1) / 2 - mean) / std
    tokens = backbone({"images": pixels.astype("float32")})
    close(ops.convert_to_numpy(direct), ops.convert_to_numpy(tokens)[:, 2:], 5)
    with pytest.raises(ValueError, match="2 x 2|3 x 2 tokens"):
        kf.networks.dino_encoder(backbone, (16, 16, 3), (3, 2))


@pytest.mark.once
def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="`interface`"):
        kf.REPAInterface(network())
    with pytest.raises(ValueError, match="no layer 'block_7'"):
        repa("sit", depth=8)
    with pytest.raises(ValueError, match="`encoder` must yield"):
        images = keras.Input(SHAPE)
        repa("sit", encoder=keras.Model(images, layers.Conv2D(3, 1)(images)))
    model = repa("sit", encoder=None)
    x, labels = (ops.convert_to_tensor(part) for part in batch())
    with pytest.raises(ValueError, match="REPA needs an encoder"):
        model.loss(x, labels)
    with pytest.raises(ValueError, match="`features` must have shape"):
        model.loss(x, labels, {"features": ops.zeros((8, 3, DIM))})
    with pytest.raises(ValueError, match="third element"):
        model.loss(x, labels, {"feature": ops.zeros((8, TOKENS, DIM))})
