"""Sample grids and metrics during `fit`."""

import json
import struct

import keras
import numpy as np
import pytest

import keras_flows as kf


def model():
    network = kf.networks.MLP((4, 4, 1), width=8, depth=1, num_classes=2)
    model = kf.SiTInterface(network, ema=0.5, seed=0)
    model.compile(keras.optimizers.SGD(0.1))
    return model


def data():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((24, 4, 4, 1)).astype("float32")
    return x, (np.arange(24) % 2).astype("int32")


def test_image_grid_places_every_image():
    images = np.linspace(-1, 1, 3)[:, None, None, None] * np.ones((3, 2, 2, 1))
    grid = kf.callbacks.image_grid(images, columns=2, scale=2, border=1)
    assert grid.shape == (11, 11, 1) and grid.dtype == np.uint8
    assert (grid[1:5, 1:5] == 0).all()
    assert (grid[1:5, 6:10] == 128).all()
    assert (grid[6:10, 1:5] == 255).all() and (grid[6:10, 6:10] == 255).all()
    # One white line between two images.
    assert (grid[:, 5] == 255).all()
    with pytest.raises(ValueError, match="decode latents"):
        kf.callbacks.image_grid(np.zeros((1, 2, 2, 4)))


def test_grids_are_of_the_averaged_weights_at_each_step(tmp_path):
    m = model()
    labels = np.array([0, 1], "int32")
    options = {"condition": labels, "num_steps": 2, "seed": 3}
    seen = {}

    class Keep(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if hasattr(self.model, "jax_state_sync"):
                self.model.jax_state_sync()
            seen[len(seen) + 1] = keras.ops.convert_to_numpy(
                self.model.generate(**options)
            )

    m.fit(
        *data(),
        batch_size=8,
        epochs=2,
        verbose=0,
        callbacks=[
            kf.callbacks.SampleGrid(
                tmp_path / "grids", 2, tensorboard=tmp_path / "log", **options
            ),
            Keep(),
        ],
    )
    names = sorted(p.name for p in (tmp_path / "grids").iterdir())
    assert names == [f"samples_{step:08d}.png" for step in (2, 4, 6)]
    for step in (2, 6):
        written = keras.utils.img_to_array(
            keras.utils.load_img(
                tmp_path / "grids" / f"samples_{step:08d}.png",
                color_mode="grayscale",
            )
        )
        expected = kf.callbacks.image_grid(seen[step])
        np.testing.assert_array_equal(written, expected)
    assert np.abs(seen[2] - seen[6]).max() > 0
    (log,) = (tmp_path / "log").iterdir()
    content = log.read_bytes()
    assert content.count(b"samples") == 3 and b"\x89PNG" in content
    (length,) = struct.unpack("<Q", content[:8])
    assert 0 < length < len(content)


def test_metric_reaches_logs_and_file(tmp_path):
    m = model()
    callback = kf.callbacks.SampleMetric(
        lambda samples: samples.mean(),
        3,
        name="mean",
        file=tmp_path / "metric.jsonl",
        condition=np.zeros(4, "int32"),
        num_steps=1,
    )
    history = m.fit(
        *data(), batch_size=8, epochs=2, verbose=0, callbacks=[callback]
    )
    lines = [
        json.loads(line)
        for line in (tmp_path / "metric.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in lines] == [3, 6]
    assert history.history["mean"] == [line["mean"] for line in lines]
    now = m.generate(condition=np.zeros(4, "int32"), num_steps=1, seed=0)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(now).mean(), lines[-1]["mean"], atol=1e-6
    )
    # A second fit counts on.
    m.fit(*data(), batch_size=8, verbose=0, callbacks=[callback])
    assert [step for step, _ in callback.values] == [3, 6, 9]


def test_bad_every_is_named():
    with pytest.raises(ValueError, match="`every`"):
        kf.callbacks.SampleGrid("x", 0)
