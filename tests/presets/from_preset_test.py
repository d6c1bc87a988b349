"""Options of from_preset; presets that are bad."""

import json
import shutil
import threading

import keras
import numpy as np
import pytest
from helpers.handles import packed
from helpers.handles import same
from helpers.handles import sha256
from helpers.handles import without_checksums

import keras_flows as kf

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("own_caches")]


# Options of from_preset.


def test_network_class_is_inferred_and_checked(tmp_path):
    network = kf.networks.MLP(2, 8, 1)
    network.save_to_preset(tmp_path / "mlp")
    same(kf.networks.MLP.from_preset(tmp_path / "mlp"), network)
    same(kf.from_preset(tmp_path / "mlp"), network)
    with pytest.raises(ValueError, match="holds a MLP, which is no DiT"):
        kf.networks.DiT.from_preset(tmp_path / "mlp")
    with pytest.raises(ValueError, match="MLP, which is no Generator"):
        kf.Interface.from_preset(tmp_path / "mlp")
    policy = kf.from_preset("mip_shelf_place")
    assert type(policy) is kf.policies.Policy


def test_fresh_weights_are_random(saved):
    """And initial values are skipped only while weights are loaded."""
    folder, model = saved
    first, second = (kf.from_preset(folder, load_weights=False) for _ in "ab")
    kernels = [m.network.layers[-1].kernel.numpy() for m in (first, second)]
    assert np.abs(kernels[0]).min() > 0 and np.abs(kernels[1]).min() > 0
    assert np.abs(kernels[0] - kernels[1]).max() > 0
    assert keras.layers.Dense(3)(np.ones((1, 2))).shape == (1, 3)
    dense = keras.layers.Dense(3)
    dense.build((None, 2))
    assert np.abs(dense.kernel.numpy()).min() > 0


def test_skipped_initializers_are_this_thread_s_only():
    from keras_flows.presets.initializers import skipped

    found = {}

    def draw(name):
        value = keras.initializers.GlorotUniform(seed=0)((4, 4))
        found[name] = np.abs(keras.ops.convert_to_numpy(value)).max()

    with skipped():
        draw("inside")
        thread = threading.Thread(target=draw, args=("other thread",))
        thread.start()
        thread.join()
    draw("after")
    assert found["inside"] == 0
    assert found["other thread"] == found["after"] > 0


def test_dtype(saved, tmp_path):
    folder, model = saved
    loaded = kf.from_preset(folder, dtype="bfloat16")
    kernel = loaded.network.layers[-1].kernel
    assert kernel.dtype == "bfloat16"
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(keras.ops.cast(kernel, "float32")),
        model.network.layers[-1].kernel.numpy(),
        rtol=2**-8,
    )
    mixed = kf.from_preset("lsd_checkerboard", dtype="mixed_bfloat16")
    assert mixed.network.layers[-1].compute_dtype == "bfloat16"
    assert mixed.network.layers[-1].kernel.dtype == "float32"
    assert mixed.emas[0].updates.dtype == "int32"
    exact = kf.from_preset("lsd_checkerboard").generate(64, num_steps=1, seed=0)
    error = np.abs(mixed.generate(64, num_steps=1, seed=0) - exact).max()
    # Eight bits in each of five layers; and not none at all.
    assert 1e-5 < error < 0.1
    # A plain functional model has its layers' types only.
    x = keras.Input((2,))
    plain = keras.Model(x, keras.layers.Dense(3)(x))
    kf.presets.save_to_preset(plain, tmp_path / "plain")
    half = kf.from_preset(tmp_path / "plain", dtype="bfloat16")
    assert half.layers[-1].kernel.dtype == "bfloat16"


def test_sharded_weights(server, tmp_path):
    model = kf.SiTInterface(kf.networks.MLP(2, 32, 3), ema=None)
    folder = tmp_path / "shards"
    model.save_to_preset(folder, max_shard_size=9e-6)
    shards = sorted(p.name for p in folder.glob("*.weights.h5"))
    assert len(shards) >= 2 and not (folder / "model.weights.h5").exists()
    same(kf.from_preset(folder), model)
    content = packed(folder)
    server.files["a.tgz"] = content
    same(kf.from_preset(f"{server.url}/files/a.tgz#{sha256(content)}"), model)
    (folder / shards[-1]).unlink()
    with pytest.raises(ValueError, match=f"shard '{shards[-1]}'"):
        kf.from_preset(folder)
    without_checksums(folder)
    index = json.loads((folder / "model.weights.json").read_text())
    index["weight_map"]["/x/vars"] = "../../secret.weights.h5"
    (folder / "model.weights.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="secret.weights.h5"):
        kf.from_preset(folder)


# Bad input.


def copy_of(saved, tmp_path, change=None):
    folder = tmp_path / "copy"
    shutil.copytree(saved[0], folder)
    without_checksums(folder)
    if change:
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_unknown_presets(tmp_path):
    with pytest.raises(ValueError, match="'lsd_checkerboard'.* is meant"):
        kf.from_preset("lsd_chekerboard")
    with pytest.raises(ValueError, match="folder has no config.json"):
        kf.from_preset(tmp_path)
    with pytest.raises(ValueError, match="begins with hf://, kaggle://"):
        kf.from_preset("s3://bucket/preset")
    with pytest.raises(ValueError, match="not encrypted"):
        kf.from_preset(f"http://example.com/a.zip#{64 * 'a'}")
    for fragment in ("", "#", "#abc", "#md5=" + 32 * "a"):
        with pytest.raises(ValueError, match="#sha256=<64 hex digits>"):
            kf.from_preset(f"https://example.com/a.zip{fragment}")


@pytest.mark.parametrize(
    "text, message",
    [("{", "is not JSON"), ("[]", "JSON object"), ("{}", "'class_name'")],
)
def test_config_that_is_none(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        kf.from_preset(tmp_path)


def test_class_that_is_not_registered(saved, tmp_path):
    def change(config):
        config["config"]["network"].update(
            module="my_project.nets", registered_name="mine>Net"
        )

    folder = copy_of(saved, tmp_path, change)
    with pytest.raises(ValueError, match="mine>Net.*import my_project.nets"):
        kf.from_preset(folder)


def test_code_in_a_config_is_refused(saved, tmp_path):
    x = keras.Input((2,))
    model = keras.Model(x, keras.layers.Lambda(lambda v: 2 * v)(x))
    kf.presets.save_to_preset(model, tmp_path / "lambda")
    with pytest.raises(ValueError, match="Lambda|lambda|unsafe"):
        kf.from_preset(tmp_path / "lambda")

    def change(config):
        config["config"]["interpolant"] = {
            "class_name": "function", "config": "system", "module": "os",
            "registered_name": "function",
        }  # fmt: skip

    with pytest.raises((TypeError, ValueError), match="system"):
        kf.from_preset(copy_of(saved, tmp_path, change))


def test_weights_of_another_size(saved, tmp_path):
    folder = copy_of(
        saved, tmp_path, lambda c: c["config"]["network"]["config"].update(
            width=40)
    )  # fmt: skip
    with pytest.raises(
        ValueError, match=r"hidden_0/kernel has the shape \("
    ) as e:
        kf.from_preset(folder)
    assert len(str(e.value)) < 400


def test_truncated_weights(saved, tmp_path):
    folder = copy_of(saved, tmp_path)
    weights = folder / "model.weights.h5"
    weights.write_bytes(weights.read_bytes()[:-3000])
    with pytest.raises(OSError, match="model.weights.h5 cannot be read"):
        kf.from_preset(folder)


def test_save_refuses_what_is_no_preset(saved, tmp_path):
    (tmp_path / "notes.txt").write_text("keep")
    for target in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(ValueError, match="not a preset"):
            saved[1].save_to_preset(target)
    assert (tmp_path / "notes.txt").read_text() == "keep"
    assert {p.name for p in tmp_path.iterdir()} == {"notes.txt"}
