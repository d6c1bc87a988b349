"""Features of images: extractors, Inception, DINOv2, their files."""

import hashlib
import importlib.util
import json
import pathlib
import pickle
import sys

import keras
import numpy as np
import pytest
from helpers.close import close
from published import weights

import keras_flows as kf
from keras_flows.metrics.features import weights_digest
from keras_flows.metrics.images import resize_tf1
from keras_flows.metrics.pretrained import find_weights
from keras_flows.metrics.pretrained import read_state
from keras_flows.networks.images.inception import load_inception_state

HERE = pathlib.Path(__file__).parents[1]


def pictures(num, size, seed=0, channels=3):
    rng = np.random.default_rng(seed)
    shape = (num, size, size, channels)
    return rng.uniform(-1.0, 1.0, shape).astype("float32")


def classifier(size=8, activation=None):
    return keras.Sequential(
        [
            keras.Input((size, size, 1)),
            keras.layers.Conv2D(4, 3, activation="relu", name="maps"),
            keras.layers.Flatten(),
            keras.layers.Dense(6, activation="relu", name="hidden"),
            keras.layers.Dense(10, activation=activation, name="logits"),
        ],
        name="small",
    )


def numpy(x):
    return keras.ops.convert_to_numpy(x)


def test_bad_images_are_named():
    extractor = kf.metrics.ClassifierFeatures(classifier())
    good = pictures(2, 8, channels=1)
    cases = {
        "uint8; convert 8 bits by kf.metrics.to_float": np.uint8(good > 0),
        "NaN": np.where(good > 0.9, np.nan, good),
        r"lie in \[-1, 1\].*clip": 2.0 * good,
        "must have 1 channels.*channels come last": pictures(2, 8),
        "must be 8 x 8 for 'small'": pictures(2, 9, channels=1),
        "no images": good[:0],
    }
    for message, images in cases.items():
        with pytest.raises(ValueError, match=message):
            extractor(images)
    with pytest.raises(ValueError, match="uint8. Received: float32"):
        kf.metrics.to_float(good)
    with pytest.raises(ValueError, match="NaN"):
        kf.metrics.to_uint8(np.full(3, np.nan))


# --- extractors


def test_features_of_a_classifier():
    model = classifier()
    extractor = kf.metrics.ClassifierFeatures(model, batch_size=4)
    images = pictures(10, 8, channels=1)
    result = extractor(images)
    assert result["features"].shape == (10, 6)
    # The last batch of two was filled up to four.
    direct = numpy(model(images))
    close(result["logits"], direct, 5)
    kernel, bias = (numpy(w) for w in model.layers[-1].weights)
    close(result["features"] @ kernel + bias, result["logits"], 5)
    maps = kf.metrics.ClassifierFeatures(model, layer="maps")
    assert maps(images)["features"].shape == (10, 4)
    assert maps.weights == extractor.weights
    with pytest.raises(ValueError, match="`layer` must be one of.*'hidden'"):
        kf.metrics.ClassifierFeatures(model, layer="other")


def test_logits_of_a_classifier_that_ends_in_a_softmax():
    model = classifier(activation="softmax")
    with pytest.raises(ValueError, match="`from_logits` is True.*softmax"):
        kf.metrics.ClassifierFeatures(model)
    extractor = kf.metrics.ClassifierFeatures(model, from_logits=False)
    images = pictures(3, 8, channels=1)
    np.testing.assert_allclose(
        np.exp(extractor(images)["logits"]), numpy(model(images)), atol=1e-6
    )


def test_weights_are_read_when_called():
    model = classifier()
    extractor = kf.metrics.ClassifierFeatures(model)
    images = pictures(2, 8, channels=1)
    before, digest = extractor(images)["logits"], extractor.weights
    model.layers[-1].bias.assign_add(np.ones(10))
    close(extractor(images)["logits"], before + 1.0, 5)
    assert digest != extractor.weights == weights_digest(extractor.network)


def test_distance_of_an_extractor_tells_what_it_hangs_on(tmp_path):
    extractor = kf.metrics.ClassifierFeatures(classifier(), batch_size=8)
    real, fake = (pictures(40, 8, seed, 1) for seed in (0, 1))
    fake = 0.5 * fake
    metric = kf.metrics.FrechetDistance(extractor, real)
    value = metric(fake)
    # A stream of batches of any size is the same set.
    streamed = metric(iter([fake[:15], fake[15:]]))
    assert abs(streamed - value) < 1e-6 * value
    record = metric.record(fake, seed=3, steps=50, guidance=1.0)
    json.dumps(record)
    assert abs(record.pop("value") - value) < 1e-12
    assert record == {
        "metric": "frechet_distance",
        "num_samples": 40,
        "num_reference": 40,
        "seed": 3,
        "extractor": "small",
        "weights": extractor.weights,
        "resize": None,
        "reference": "samples",
        "steps": 50,
        "guidance": 1.0,
    }
    metric.reference.save(tmp_path / "real.npz")
    other = kf.metrics.FrechetDistance(extractor, tmp_path / "real.npz")
    record = other.record(fake)
    assert abs(record["value"] - value) < 1e-6 * value
    assert record["reference"].startswith("real.npz sha256:")
    with pytest.raises(ValueError, match=r"names of their own.*\['weights'\]"):
        metric.record(fake, weights="mine")
    with pytest.raises(ValueError, match="Unknown `extractor`.*dinov2"):
        kf.metrics.FrechetDistance("vgg", real)
    with pytest.raises(ValueError, match="`name` must name the network"):
        kf.metrics.FrechetDistance(lambda x: x, real)


# --- the FID's Inception


def explicit_tf1(images, size):
    """ResizeBilinear of TensorFlow 1.15, pixel by pixel."""
    _, height, width, _ = images.shape
    result = np.zeros((len(images), size, size, images.shape[-1]))
    for i in range(size):
        y = i * height / size
        y0, y1 = int(y), min(int(y) + 1, height - 1)
        for j in range(size):
            x = j * width / size
            x0, x1 = int(x), min(int(x) + 1, width - 1)
            fy, fx = y - y0, x - x0
            result[:, i, j] = (1 - fy) * (
                (1 - fx) * images[:, y0, x0] + fx * images[:, y0, x1]
            ) + fy * ((1 - fx) * images[:, y1, x0] + fx * images[:, y1, x1])
    return result


@pytest.mark.parametrize("shape", [(5, 5), (8, 13), (40, 23), (17, 17)])
def test_resize_is_that_of_tensorflow_1(shape):
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (2, *shape, 3)).astype("float32")
    result = numpy(resize_tf1(keras.ops.convert_to_tensor(images), 17))
    expected = explicit_tf1(images, 17)
    close(result, expected, 5)
    if shape == (17, 17):
        np.testing.assert_array_equal(result, images)


@pytest.fixture(scope="module")
def inception_state():
    with np.load(HERE / "published" / "inception.npz") as file:
        return weights.state(file, weights.draw_inception), dict(file)


@pytest.fixture(scope="module")
def inception(inception_state, tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "state.npz"
    np.savez(path, **inception_state[0])
    return kf.metrics.InceptionV3Features(path, batch_size=1)


@pytest.mark.slow
def test_inception_equals_the_published_network(inception, inception_state):
    """Through the extractor: its 8 bits and range included."""
    state, expected = inception_state
    image = kf.metrics.to_float(weights.photo(299))
    result = inception(image)
    for key in ("features", "logits"):
        close(result[key], expected[key], 5)
    close(result["logits_unbiased"] + state["fc.bias"], result["logits"], 6)
    with pytest.raises(ValueError, match="grey_to_rgb=True"):
        inception(image[..., :1])


@pytest.mark.slow
def test_inception_refuses_another_state(inception, inception_state):
    state, _ = inception_state
    with pytest.raises(ValueError, match="Missing: 472.*Unknown: 1"):
        load_inception_state(inception.network, {"head.weight": np.zeros(3)})
    wrong = {**state, "fc.weight": np.zeros((1000, 2048))}
    with pytest.raises(ValueError, match=r"fc.weight.*\(2048, 1000\)"):
        load_inception_state(inception.network, wrong)


# --- files


def test_states_are_read_from_every_kind_of_file(tmp_path):
    state = {"a.weight": np.arange(6.0, dtype="float32").reshape(2, 3)}
    np.savez(tmp_path / "s.npz", **state)
    kinds = ["npz"]
    if importlib.util.find_spec("torch"):
        import torch

        tensors = {k: torch.from_numpy(v) for k, v in state.items()}
        torch.save(tensors, tmp_path / "s.pth")
        kinds.append("pth")
    if importlib.util.find_spec("safetensors"):
        from safetensors.numpy import save_file

        save_file(state, tmp_path / "s.safetensors")
        kinds.append("safetensors")
    for kind in kinds:
        read = read_state(tmp_path / f"s.{kind}")
        np.testing.assert_array_equal(read["a.weight"], state["a.weight"])
    with pytest.raises(ValueError, match="must end in one of.*s.h5"):
        read_state(tmp_path / "s.h5")


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub.models", None)
    with pytest.raises(ImportError, match=r"keras_flows\[encoders\]"):
        kf.metrics.DINOv2Features()


def test_weights_are_read_by_the_hardened_readers(tmp_path, monkeypatch):
    """Without PyTorch, and without opening what a hostile file declares."""
    if importlib.util.find_spec("torch"):
        import torch

        torch.save({"a": torch.arange(3.0)}, tmp_path / "s.pth")
        monkeypatch.setitem(sys.modules, "torch", None)
        np.testing.assert_array_equal(
            read_state(tmp_path / "s.pth")["a"], [0.0, 1.0, 2.0]
        )
    header = {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    (tmp_path / "s.safetensors").write_bytes(
        len(text).to_bytes(8, "little") + text + bytes(4)
    )
    (tmp_path / "s.npz").write_bytes(b"no archive")
    (tmp_path / "s.pt").write_bytes(pickle.dumps({"a": print}))
    for name in ("s.safetensors", "s.npz", "s.pt"):
        with pytest.raises(ValueError, match=rf"`weights`.*{name}"):
            read_state(tmp_path / name)


def test_weights_are_found_by_their_hash(tmp_path):
    folder = tmp_path / "models" / "keras_flows"
    folder.mkdir(parents=True)
    (folder / "w.npz").write_bytes(b"weights")
    path, found = find_weights(folder / "w.npz")
    assert path == folder / "w.npz"
    assert found == hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(ValueError, match="must be 00.*not whole"):
        find_weights(path, "0" * 64)
    # What was downloaded before, and has the hash, is not fetched again.
    url = "https://example.invalid/releases/w.npz"
    cached, again = find_weights(url, found, cache_dir=tmp_path)
    assert cached == path and again == found
    with pytest.raises(ValueError, match="give its `sha256`"):
        find_weights(url)
    with pytest.raises(ValueError, match="https"):
        find_weights("http://example.invalid/w.npz", found)
    with pytest.raises(ValueError, match="there is no file"):
        find_weights(tmp_path / "other.npz")


# --- DINOv2


@pytest.fixture(scope="module")
def dinov2():
    pytest.importorskip("keras_hub")
    from keras_hub.models import DINOV2Backbone

    keras.utils.set_random_seed(0)
    return DINOV2Backbone(
        patch_size=14,
        num_layers=1,
        hidden_dim=8,
        num_heads=2,
        intermediate_dim=16,
        image_shape=(28, 28, 3),
        position_embedding_shape=(28, 28, 3),
    )


@pytest.mark.once
@pytest.mark.slow
def test_dinov2_is_the_class_token_of_a_resized_image(dinov2):
    """The resize is Pillow's bicubic, without its rounding to 8 bits."""
    image = pytest.importorskip("PIL.Image")
    extractor = kf.metrics.DINOv2Features(dinov2, batch_size=2)
    network = kf.ops.compiled(dinov2, dinov2.variables)
    assert (extractor.name, extractor.size) == ("dinov2", 28)
    for size in (50, 11):
        images = pictures(3, size)
        bits = kf.metrics.to_uint8(images).astype("float32")
        resized = np.stack(
            [
                np.stack(
                    [
                        np.asarray(
                            image.fromarray(channel).resize(
                                (28, 28), image.Resampling.BICUBIC
                            )
                        )
                        for channel in each.transpose(2, 0, 1)
                    ],
                    axis=-1,
                )
                for each in bits
            ]
        )
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        normal = ((resized / 255.0 - mean) / std).astype("float32")
        expected = numpy(network({"images": normal}))[:, 0]
        result = extractor(images)["features"]
        assert result.shape == (3, 8) and np.std(result) > 0.1
        close(result, expected, 5)


@pytest.mark.once
@pytest.mark.slow
def test_dinov2_of_a_preset_at_another_size(dinov2, tmp_path):
    dinov2.save_to_preset(tmp_path / "tiny")
    path = str(tmp_path / "tiny")
    extractor = kf.metrics.DINOv2Features(path, size=42, batch_size=2)
    assert extractor.size == 42
    assert extractor.weights == f"keras_hub {path}"
    same = [
        np.array_equal(numpy(a), numpy(b))
        for a, b in zip(dinov2.weights, extractor.network.weights)
        if a.shape == b.shape
    ]
    assert all(same) and len(same) == len(dinov2.weights) - 1
    features = extractor(pictures(2, 28))["features"]
    assert features.shape == (2, 8) and np.isfinite(features).all()


@pytest.mark.once
@pytest.mark.slow
def test_grey_images_are_repeated_if_asked(dinov2):
    grey = pictures(2, 28, channels=1)
    extractor = kf.metrics.DINOv2Features(dinov2, batch_size=2)
    with pytest.raises(ValueError, match="grey_to_rgb=True"):
        extractor(grey)
    extractor = kf.metrics.DINOv2Features(
        dinov2, grey_to_rgb=True, batch_size=2
    )
    rgb = np.repeat(grey, 3, axis=-1)
    np.testing.assert_array_equal(
        extractor(grey)["features"], extractor(rgb)["features"]
    )
    assert len(extractor.weights) == len("sha256:") + 64
