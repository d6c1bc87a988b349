"""Prepared latents: what is written, sampled, resumed and refused."""

import json
import pathlib
import sys
import zipfile

import keras
import numpy as np
import pytest
from keras import ops

import keras_flows as kf
from keras_flows.datasets import latents as module

# Arrays and files; what of it reaches `fit` is in training_test, too.
pytestmark = pytest.mark.once

pytest.importorskip("array_record")
Image = pytest.importorskip("PIL.Image")


class Raw(keras.Model):
    """An autoencoder whose `encode` gives raw latents: (8, 8) to (4, 4)."""

    def __init__(self, seed=0):
        super().__init__()
        init = keras.initializers.RandomNormal(0.3, seed=seed)
        self.layer = keras.layers.Conv2D(
            4, 2, 2, kernel_initializer=init, data_format="channels_last"
        )
        self.layer.build((None, 8, 8, 3))
        self.built = True

    def encode(self, x):
        mean, logvar = ops.split(self.layer(x), 2, axis=-1)
        return mean + 3.0, logvar - 2.0


def tiny_vae(scaling_factor=0.5):
    keras.utils.set_random_seed(1)
    return kf.networks.AutoencoderKL(
        (8, 8, 3), 2, (4, 4), 1, 2, scaling_factor, 0.25
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(11):
        path = folder / "ab"[i % 2]
        path.mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (16, 20, 3)).astype("uint8")
        Image.fromarray(pixels).save(path / f"{i:02d}.png")
    return folder


def source_of(images):
    return kf.datasets.FolderSource(images)


def prepare(images, out, autoencoder=None, **kwargs):
    kwargs = {"image_size": 8, "batch_size": 4, "shards": 3, **kwargs}
    return kf.datasets.prepare_latents(
        source_of(images), autoencoder or Raw(), out, **kwargs
    )


def encoded(images, autoencoder):
    """[(label, (mean, std, mirrored mean, mirrored std))] of the images."""
    transform = kf.datasets.images.ImageTransform(8)
    records = records_of(source_of(images))
    x = np.stack([transform.image(r["image"]) for r in records])
    parts = []
    for batch in (x, x[:, :, ::-1].copy()):
        mean, logvar = autoencoder.encode(ops.convert_to_tensor(batch))
        parts.append(ops.convert_to_numpy(mean))
        parts.append(np.exp(0.5 * ops.convert_to_numpy(logvar)))
    rows = np.stack(parts, axis=1)
    return [(r["label"], row) for r, row in zip(records, rows)]


def records_of(source):
    return [source[i] for i in range(len(source))]


def test_records_are_the_encoders_posteriors(images, tmp_path):
    seen = []
    manifest = prepare(
        images, tmp_path, progress=lambda *args: seen.append(args)
    )
    assert seen == [(i + 1, 11) for i in range(11)]
    assert manifest == json.loads((tmp_path / "manifest.json").read_text())
    assert [shard["records"] for shard in manifest["shards"]] == [4, 4, 3]
    assert manifest["latent_shape"] == [4, 4, 2]
    assert manifest["classes"] == ["a", "b"] and manifest["flips"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["manifest.json", *(s["file"] for s in manifest["shards"])]
    )
    rows = records_of(module.LatentSource(tmp_path))
    expected = encoded(images, Raw())
    # Spread over the shards in another order than the source's.
    order = [
        int(np.argmin([np.abs(r["latents"] - e).max() for _, e in expected]))
        for r in rows
    ]
    assert sorted(order) == list(range(11)) and order != list(range(11))
    for i, row in zip(order, rows):
        assert row["label"] == expected[i][0]
        np.testing.assert_allclose(row["latents"], expected[i][1], atol=1e-5)
    mean = np.mean([e[0].mean() for _, e in expected])
    total = sum(s["mean"] * s["records"] for s in manifest["shards"]) / 11
    np.testing.assert_allclose(total, mean, atol=1e-5)


def test_samples_follow_the_posterior(images, tmp_path):
    """z = (mean + std eps - shift) * scale, half of them mirrored."""
    prepare(images, tmp_path, scaling_factor=0.5, shift_factor=3.0, shards=1)
    data = kf.datasets.Latents(tmp_path, 11, shuffle=False, repeat=True)
    z, labels = data[0]
    assert z.shape == (11, 4, 4, 2) and z.dtype == np.float32
    assert labels.dtype == np.int32 and data.classes == ["a", "b"]
    source = data.source
    num = 600
    samples = np.stack([data[i][0] for i in range(num)])
    for row in range(3):
        mean, std, mirrored, other = source[row]["latents"]
        # A mixture of the two posteriors, by halves.
        expected = 0.5 * ((mean + mirrored) / 2 - 3.0)
        variance = 0.25 * (
            (std**2 + other**2) / 2 + ((mean - mirrored) / 2) ** 2
        )
        error = samples[:, row].mean(axis=0) - expected
        assert np.abs(error / np.sqrt(variance / num)).max() < 5
        ratio = samples[:, row].var(axis=0) / variance
        assert np.abs(ratio - 1).max() < 0.3
    plain = kf.datasets.Latents(
        tmp_path, 11, flip=False, shuffle=False, repeat=True
    )
    samples = np.stack([plain[i][0] for i in range(num)])
    mean, std = source[0]["latents"][:2]
    deviation = (samples[:, 0] - 0.5 * (mean - 3.0)) / (0.5 * std)
    assert np.abs(deviation.mean(axis=0)).max() < 5 / np.sqrt(num)
    assert np.abs(deviation.var() - 1) < 0.05


def test_order_and_noise_are_seeded_and_resume(images, tmp_path):
    prepare(images, tmp_path)

    def make(seed=0):
        return kf.datasets.Latents(tmp_path, 4, seed=seed, repeat=True)

    data, again = make(), make()
    np.testing.assert_array_equal(data[5][0], make()[5][0])
    row_by_row = data.transform.__call__
    rows = kf.datasets.Batches(data.source, 4, row_by_row, repeat=True)
    np.testing.assert_array_equal(data[5][0], rows[5][0])
    assert np.abs(data[5][0] - make(1)[5][0]).max() > 0
    again.restore(data.state(5))
    np.testing.assert_array_equal(data[6][0], again[1][0])


def test_half_precision_and_no_flips(images, tmp_path):
    prepare(images, tmp_path / "full", flip=False)
    prepare(images, tmp_path / "half", flip=False, dtype="float16")
    for name, dtype in (("full", "float32"), ("half", "float16")):
        row = module.LatentSource(tmp_path / name)[0]["latents"]
        assert row.dtype == dtype and row.shape == (2, 4, 4, 2)
    z, _ = kf.datasets.Latents(tmp_path / "full", 4, flip=False)[0]
    near, _ = kf.datasets.Latents(tmp_path / "half", 4, flip=False)[0]
    assert near.dtype == np.float32
    np.testing.assert_allclose(z, near, atol=0.01)
    with pytest.raises(ValueError, match="`flip` needs.*Pass flip=False"):
        kf.datasets.Latents(tmp_path / "full", 4)


class Interrupted(Exception):
    pass


def test_interrupted_preparation_goes_on(images, tmp_path):
    whole = prepare(images, tmp_path / "whole")

    def stop(done, total):
        if done == 6:
            raise Interrupted

    out = tmp_path / "parts"
    with pytest.raises(Interrupted):
        prepare(images, out, progress=stop)
    first = whole["shards"][0]["file"]
    left = {p.name for p in out.iterdir()}
    assert first in left and "manifest.json" not in left
    assert any(name.endswith(".partial") for name in left)
    with pytest.raises(ValueError, match="were not finished.*again"):
        kf.datasets.Latents(out, 4)
    written = (out / first).stat().st_mtime_ns
    seen = []
    manifest = prepare(images, out, progress=lambda *a: seen.append(a[0]))
    assert seen == list(range(5, 12))
    assert (out / first).stat().st_mtime_ns == written
    assert manifest["shards"] == whole["shards"]
    assert len(list(out.iterdir())) == 4
    # A third call finds everything there and encodes nothing.
    assert prepare(images, out, progress=stop) == manifest


def test_other_settings_do_not_mix(images, tmp_path):
    prepare(images, tmp_path)
    with pytest.raises(ValueError, match="another way: autoencoder was"):
        prepare(images, tmp_path, Raw(seed=1))
    with pytest.raises(ValueError, match="dtype was 'float32'.*float16"):
        prepare(images, tmp_path, dtype="float16")
    with pytest.raises(ValueError, match="`shards` must lie.*11.*12"):
        prepare(images, tmp_path / "new", shards=12)
    with pytest.raises(ValueError, match="`dtype` must be.*float64"):
        prepare(images, tmp_path / "new", dtype="float64")
    with pytest.raises(ValueError, match="`batch_size`.*0"):
        prepare(images, tmp_path / "new", batch_size=0)


def test_latents_that_are_not_whole_are_refused(images, tmp_path):
    manifest = prepare(images, tmp_path)
    file = tmp_path / "manifest.json"
    shard = tmp_path / manifest["shards"][1]["file"]
    data = shard.read_bytes()

    def refused(message, **kwargs):
        with pytest.raises(ValueError, match=message):
            kf.datasets.Latents(tmp_path, 4, **kwargs)

    flipped = bytearray(data)
    flipped[70_000] ^= 1
    shard.write_bytes(flipped)
    refused(f"{shard.name}' has another sha256")
    shard.write_bytes(data[: len(data) // 2])
    refused("half-written", checksums=False)
    shard.unlink()
    refused("is missing")
    shard.write_bytes(data)
    file.write_text(json.dumps({**manifest, "num_records": 12}))
    refused("lists 11 records in its shards and 12")
    file.write_text(json.dumps({**manifest, "format": 9}))
    refused("is of format 9")
    file.write_text("{")
    refused("cannot be read")
    file.unlink()
    refused("holds shards but no manifest.json")
    with pytest.raises(ValueError, match="no folder of prepared latents"):
        kf.datasets.Latents(tmp_path / "nowhere", 4)


def test_a_latent_that_is_not_finite_is_refused(images, tmp_path):
    broken = Raw()
    broken.layer.bias.assign(np.array([0, np.inf, 0, 0], "float32"))
    with pytest.raises(ValueError, match="not finite"):
        prepare(images, tmp_path, broken)


def model_for(shape=(4, 4, 2)):
    network = kf.networks.MLP(shape, 8, 1, num_classes=2)
    model = kf.SiTInterface(network, ema=None, seed=0)
    model.compile("sgd")
    return model


def test_fit_compares_the_manifest_with_the_model(images, tmp_path):
    vae = Raw()
    prepare(images, tmp_path / "ours", vae, name="ours.keras")
    prepare(images, tmp_path / "other", Raw(seed=1), name="other.keras")
    ours = kf.datasets.Latents(tmp_path / "ours", 4, workers=2)
    other = kf.datasets.Latents(tmp_path / "other", 4)
    model = model_for()
    history = model.fit(ours, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    steps = int(model.optimizer.iterations.numpy())
    assert steps == 4
    # Marked by its first fit, and no part of the model is the autoencoder.
    assert model.latents_of == kf.datasets.describe_autoencoder(
        vae, "ours.keras"
    )
    assert len(model.trainable_weights) == len(model.network.trainable_weights)
    with pytest.raises(
        ValueError,
        match="'other.keras'.*'ours.keras': weights_sha256 is",
    ):
        model.fit(other, verbose=0)
    assert int(model.optimizer.iterations.numpy()) == steps
    model.latents_of = kf.datasets.describe_autoencoder(tiny_vae())
    with pytest.raises(
        ValueError,
        match="own_scaling_factor is None in.*0.5 in the.*latents_of = None",
    ):
        model.fit(ours, verbose=0)
    with pytest.raises(ValueError, match=r"shape \(4, 4, 2\).*\(2, 4, 4\)"):
        model_for((2, 4, 4)).fit(ours, verbose=0)
    model.latents_of = None
    model.save_weights(tmp_path / "model.weights.h5")
    model.fit(other, verbose=0)
    model.load_weights(tmp_path / "model.weights.h5")


def test_the_real_autoencoder_scales_once(images, tmp_path):
    """What decodes is what a model trains on: no factor is applied twice."""
    vae = tiny_vae()
    manifest = prepare(images, tmp_path, vae, flip=False, shards=1)
    assert manifest["autoencoder"]["own_scaling_factor"] == 0.5
    assert manifest["autoencoder"]["scaling_factor"] == 1.0
    data = kf.datasets.Latents(
        tmp_path, 11, flip=False, shuffle=False, repeat=True
    )
    average = np.mean([data[i][0] for i in range(200)], axis=0)
    expected = sorted(encoded(images, vae), key=lambda row: row[1][0, 0, 0, 0])
    order = np.argsort(
        [r["latents"][0, 0, 0, 0] for r in records_of(data.source)]
    )
    means = np.stack([row[1][0] for row in expected])
    stds = np.stack([row[1][1] for row in expected])
    error = (average[order] - means) / (stds / np.sqrt(200))
    assert np.abs(error).max() < 5


def tiny_encoder(seed=0, feature_dim=6):
    """Images (8, 8, 3) to a grid of 4 x 4 tokens."""
    init = keras.initializers.RandomNormal(0.3, seed=seed)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(
        feature_dim, 2, 2, kernel_initializer=init, data_format="channels_last"
    )(inputs)
    return keras.Model(inputs, keras.layers.Reshape((16, feature_dim))(x))


def test_extras_belong_to_the_view_that_z_is_of(images, tmp_path):
    encoder = tiny_encoder()
    manifest = prepare(
        images, tmp_path, features=encoder, features_name="e", keep_images=True
    )
    assert manifest["features"]["name"] == "e"
    assert manifest["features_shape"] == [16, 6]
    assert manifest["image_shape"] == [8, 8, 3]
    pixels = {}
    for extras in ("features", "image"):
        data = kf.datasets.Latents(tmp_path, 11, extras=extras, repeat=True)
        z, labels, kept = data[2]
        assert z.shape == (11, 4, 4, 2) and labels.shape == (11,)
        assert list(kept) == [extras] and kept[extras].dtype == np.float32
        pixels[extras] = kept[extras]
    # The same seed draws the same mirrors for both: features are the
    # encoder's of the very image.
    again = ops.convert_to_numpy(encoder(pixels["image"]))
    np.testing.assert_allclose(pixels["features"], again, atol=1e-5)
    # And z is the posterior's of that view: near its mean, for small noise.
    raw = Raw()
    mean, logvar = raw.encode(ops.convert_to_tensor(pixels["image"]))
    error = (z - ops.convert_to_numpy(mean)) / np.exp(
        0.5 * ops.convert_to_numpy(logvar)
    )
    assert abs(error.mean()) < 0.3 and 0.7 < error.std() < 1.3
    originals = {
        kf.datasets.images.ImageTransform(8).image(r["image"]).tobytes()
        for r in records_of(source_of(images))
    }
    plain = [x.tobytes() in originals for x in pixels["image"]]
    mirrored = [x[:, ::-1].tobytes() in originals for x in pixels["image"]]
    assert any(plain) and any(mirrored)
    assert all(a != b for a, b in zip(plain, mirrored))
    # What was there before is as it was: plain batches of the same latents.
    z_plain, _ = kf.datasets.Latents(tmp_path, 11, repeat=True)[2]
    np.testing.assert_array_equal(z_plain, z)


@pytest.mark.parametrize("extras", ["features", "image"])
def test_repa_trains_on_prepared_extras(extras, images, tmp_path):
    encoder = tiny_encoder()
    prepare(images, tmp_path, features=encoder, keep_images=True)
    network = kf.networks.DiT(
        (4, 4, 2), patch_size=1, width=8, depth=1, num_heads=2, num_classes=2
    )
    model = kf.REPAInterface(
        kf.SiTInterface(network, ema=None, seed=0),
        feature_dim=6,
        repa_depth=1,
        proj_dim=8,
        encoder=encoder if extras == "image" else None,
    )
    model.compile(keras.optimizers.Adam(1e-2))
    data = kf.datasets.Latents(tmp_path, 4, extras=extras)
    history = model.fit(data, epochs=6, verbose=0).history["repa_loss"]
    assert np.isfinite(history).all() and history[-1] < history[0] - 0.05


def test_extras_that_are_not_there(images, tmp_path):
    prepare(images, tmp_path / "bare")
    with pytest.raises(ValueError, match="Prepare the latents with --features"):
        kf.datasets.Latents(tmp_path / "bare", 4, extras="features")
    with pytest.raises(ValueError, match="with --keep_images"):
        kf.datasets.Latents(tmp_path / "bare", 4, extras="image")
    with pytest.raises(ValueError, match="`extras` must be.*'pixels'"):
        kf.datasets.Latents(tmp_path / "bare", 4, extras="pixels")
    with pytest.raises(ValueError, match="another way: features was None"):
        prepare(images, tmp_path / "bare", features=tiny_encoder())
    prepare(images, tmp_path / "one", features=tiny_encoder())
    with pytest.raises(ValueError, match="another way: features was"):
        prepare(images, tmp_path / "one", features=tiny_encoder(seed=1))
    # Another depth's width is told by the model, before the first step.
    network = kf.networks.DiT(
        (4, 4, 2), patch_size=1, width=8, depth=1, num_heads=2, num_classes=2
    )
    model = kf.REPAInterface(
        kf.SiTInterface(network, ema=None), feature_dim=5, repa_depth=1
    )
    model.compile("adam")
    with pytest.raises(ValueError, match=r"\(batch, 16, 5\).*\(4, 16, 6\)"):
        model.fit(
            kf.datasets.Latents(tmp_path / "one", 4, extras="features"),
            verbose=0,
        )


@pytest.fixture
def tool(monkeypatch):
    """tools/prepare_latents.py, called with flags."""
    pytest.importorskip("absl")
    root = pathlib.Path(__file__).parents[2]
    monkeypatch.syspath_prepend(str(root / "tools"))
    import prepare_latents

    def run(*flags):
        command = ["prepare_latents.py", *flags]
        monkeypatch.setattr(sys, "argv", command)
        flag_values = prepare_latents.FLAGS
        flag_values.unparse_flags()
        for name in flag_values.get_key_flags_for_module(prepare_latents):
            name.unparse()
        prepare_latents.main(flag_values(command))

    return run


def test_command_line(images, tmp_path, tool, capsys):
    vae = tiny_vae()
    vae.save(tmp_path / "vae.keras")
    (tmp_path / "preset").mkdir()
    config = keras.saving.serialize_keras_object(vae)
    (tmp_path / "preset" / "config.json").write_text(json.dumps(config))
    vae.save_weights(tmp_path / "preset" / "model.weights.h5")
    out = tmp_path / "out"
    flags = (
        f"--source={images}", "--image_size=8", "--batch_size=4",
        "--shards=2", f"--out={out}",
    )  # fmt: skip
    tool(*flags, f"--vae={tmp_path / 'vae.keras'}")
    output = capsys.readouterr()
    assert "11/11 images" in output.err
    assert "11 latents [4, 4, 2]" in output.out
    data = kf.datasets.Latents(out, 4)
    assert "--shards=2" in data.manifest["command"]
    given = kf.datasets.describe_autoencoder(vae)
    found = data.manifest["autoencoder"]
    assert {**found, "name": given["name"]} == given
    tiny_encoder().save(tmp_path / "encoder.keras")
    tool(
        *flags[:-1], f"--out={tmp_path / 'repa'}",
        f"--vae={tmp_path / 'vae.keras'}",
        f"--features={tmp_path / 'encoder.keras'}", "--keep_images",
    )  # fmt: skip
    for extras, shape in (("features", (16, 6)), ("image", (8, 8, 3))):
        data = kf.datasets.Latents(tmp_path / "repa", 4, extras=extras)
        assert data[0][2][extras].shape == (4, *shape)
    # The preset is the same autoencoder under another name.
    with pytest.raises(ValueError, match="autoencoder was.*preset") as error:
        tool(*flags, f"--vae={tmp_path / 'preset'}")
    assert str(error.value).count(found["weights_sha256"]) == 2


def test_command_line_reads_tfds_and_zips(tmp_path, tool):
    """Grey digits of tfds to colour latents, without mirrored ones."""
    pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("sklearn")
    import keras_flows.datasets.digits_builder  # noqa: F401

    tiny_vae().save(tmp_path / "vae.keras")
    tool(
        "--source=tfds:sklearn_digits", "--split=validation[:20]",
        f"--data_dir={tmp_path}", f"--vae={tmp_path / 'vae.keras'}",
        "--image_size=8", "--rgb", "--noflip", f"--out={tmp_path / 'digits'}",
    )  # fmt: skip
    data = kf.datasets.Latents(tmp_path / "digits", 20, flip=False)
    assert data.classes == 10 and data[0][0].shape == (20, 4, 4, 2)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as file:
        pixels = np.zeros((8, 8, 3), "uint8")
        Image.fromarray(pixels).save(tmp_path / "0.png")
        file.write(tmp_path / "0.png", "0.png")
    tool(
        f"--source={tmp_path / 'set.zip'}", f"--vae={tmp_path / 'vae.keras'}",
        f"--out={tmp_path / 'zip'}",
    )  # fmt: skip
    data = kf.datasets.Latents(tmp_path / "zip", 1)
    assert data.classes is None and len(data[0]) == 1
