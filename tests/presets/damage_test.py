"""Damage: a preset loads as it was saved, or not at all.

Every file, cut off and with one bit turned. For time a few cases of each;
PRESET_DAMAGE=200 takes as many.
"""

import json
import os
import pathlib
import shutil

import h5py
import keras
import numpy as np
import pytest
from helpers.handles import same
from helpers.handles import without_checksums

import keras_flows as kf

pytestmark = pytest.mark.once
CASES = int(os.environ.get("PRESET_DAMAGE", 16))
FILES = ("model.weights.h5", "config.json", "metadata.json", "README.md")
KERNEL = "layers/mlp/layers/dense/vars/0"
AVERAGE = "emas/ema/vars/average_0"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """(folder, model) with averages that are not the live weights."""
    keras.utils.set_random_seed(1)
    model = kf.SiTInterface(kf.networks.MLP(2, 8, 1), ema=0.9, seed=0)
    model.start_averages()
    model.emas[0].updates.assign(3)
    for variable in model.network.trainable_variables:
        variable.assign(2.0 * variable + 0.1)
    folder = tmp_path_factory.mktemp("good") / "preset"
    model.save_to_preset(folder)
    return folder, model


def copied(good, tmp_path, checksums=True):
    folder = tmp_path / "copy"
    shutil.copytree(good[0], folder)
    if not checksums:
        without_checksums(folder)
    return folder


def damaged(case):
    """(file, whether it is cut off, its place as a share, the bit)."""
    rng = np.random.default_rng(case)
    place, bit = rng.random(), int(rng.integers(8))
    return FILES[case % 4], case // 4 % 4 == 3, place, bit


@pytest.mark.parametrize("case", range(CASES))
def test_damage_is_refused_or_does_not_matter(good, tmp_path, case):
    name, cut, place, bit = damaged(case)
    path = copied(good, tmp_path) / name
    content = bytearray(path.read_bytes())
    index = int(place * len(content))
    if cut:
        content = content[:index]
    else:
        content[index] ^= 1 << bit
    path.write_bytes(content)
    try:
        loaded = kf.from_preset(path.parent)
    except (ValueError, OSError) as error:
        assert name in FILES[:3]
        assert str(path.parent) in str(error)
        return
    assert name in FILES[2:]
    same(loaded, good[1])
    assert loaded.get_config() == good[1].get_config()


# Without checksums, as older presets are: what the file can tell.


def drop(place):
    def change(file):
        del file[place]

    return change


def put(place, **value):
    def change(file):
        if place in file:
            del file[place]
        file.create_dataset(place, **value)

    return change


WEIGHTS = {
    "no average": (drop(AVERAGE), "is not in the file"),
    "no averages": (drop("emas/ema"), "is not in the file"),
    "no updates": (drop("emas/ema/vars/updates"), "is not in the file"),
    "no layer": (drop("layers/mlp/layers/dense"), "is not in the file"),
    "no seed": (drop("vars/seed_generator"), "is not in the file"),
    "surplus": (
        put("layers/mlp/vars/9", data=np.zeros(3, "float32")),
        "no such weight",
    ),
    "average of a shape": (
        put(AVERAGE, data=np.zeros((3, 3), "float32")),
        r"has the shape .* holds \(3, 3\)",
    ),
    "transposed": (
        put(KERNEL, data=np.zeros((8, 43), "float32")),
        r"hidden_0/kernel has the shape \(43, 8\), and the file holds \(8, 43",
    ),
    "scalar": (put(KERNEL, data=np.float32(1)), r"file holds \(\)"),
    "integers": (
        put(KERNEL, data=np.zeros((43, 8), "int32")),
        "is of float32, and the file holds int32",
    ),
    "wider": (
        put(KERNEL, data=np.full((43, 8), 1e300)),
        "is of float32, and the file holds float64",
    ),
    "words": (
        put(KERNEL, shape=(43, 8), dtype=h5py.string_dtype()),
        "is no numbers",
    ),
    "complex": (
        put(KERNEL, data=np.zeros((43, 8), "complex64")),
        "is no numbers",
    ),
    "not stored": (
        put(KERNEL, shape=(43, 8), dtype="float32", chunks=(43, 8)),
        "of which 0 are stored",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WEIGHTS)
def test_weights_that_are_not_the_model_s(good, tmp_path, case):
    change, message = WEIGHTS[case]
    folder = copied(good, tmp_path, checksums=False)
    same(kf.from_preset(folder), good[1])
    with h5py.File(folder / "model.weights.h5", "a") as file:
        change(file)
    with pytest.raises(ValueError, match=message) as caught:
        kf.from_preset(folder)
    assert len(str(caught.value)) < 500


def test_an_error_in_reading_an_average_is_not_dropped(
    good, tmp_path, monkeypatch
):
    """Keras's `load_weights` goes on where a layer is reached twice."""
    folder = copied(good, tmp_path, checksums=False)

    def broken(self, store):
        raise OSError("sector 7 is gone")

    monkeypatch.setattr(kf.EMA, "load_own_variables", broken)
    with pytest.raises(OSError, match="cannot be read: sector 7 is gone"):
        kf.from_preset(folder)


def test_half_and_other_dtypes_still_load(good, tmp_path):
    good[1].save_to_preset(tmp_path / "half", weights_dtype="float16")
    kf.from_preset(tmp_path / "half")
    small = kf.from_preset(good[0], dtype="float16")
    assert small.network.layers[-1].kernel.dtype == "float16"
    # Anything that a compiled model saves beside its own.
    good[1].compile("adam")
    good[1].optimizer.build(good[1].trainable_variables)
    good[1].save_to_preset(tmp_path / "compiled")
    same(kf.from_preset(tmp_path / "compiled"), kf.from_preset(good[0]))


# metadata.json.


@pytest.mark.parametrize(
    "change, message",
    [
        ({"parameter_count": 7}, "'parameter_count' of 7, and the SiT"),
        ({"parameter_count": "7"}, "'parameter_count' must be of type int"),
        ({"parameter_count": True}, "'parameter_count' must be of type int"),
        ({"parameter_count": -1}, "must be at least 0"),
        ({"keras_version": 3}, "'keras_version' must be of type str"),
        ({"keras_flows_version": None}, "must be of type str"),
        ({"date_saved": []}, "'date_saved' must be of type str"),
        ({"card": "mit"}, "'card' must be of type dict"),
        ({"sha256": []}, "'sha256' must be of type dict"),
        ({"sha256": {}}, "has the checksums of"),
        ({"sha256": {"config.json": 3}}, "has the checksums of"),
    ],
)
def test_metadata_that_is_wrong(good, tmp_path, change, message):
    folder = copied(good, tmp_path, checksums=False)
    path = folder / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        kf.from_preset(folder)


def test_checksums_are_of_what_is_loaded(good, tmp_path):
    folder = copied(good, tmp_path)
    saved = json.loads((folder / "metadata.json").read_text())["sha256"]
    assert set(saved) == {"config.json", "model.weights.h5"}
    # A reader's note in the card is no damage, nor is its own metadata.
    (folder / "README.md").write_text("mine")
    same(kf.from_preset(folder), good[1])
    (folder / "model.weights.h5").unlink()
    assert kf.from_preset(folder, load_weights=False).built
    (folder / "config.json").write_text(
        (folder / "config.json").read_text() + " "
    )
    with pytest.raises(ValueError, match="config.json is damaged, or was"):
        kf.from_preset(folder, load_weights=False)
    with pytest.raises(ValueError, match="`metadata` must not have .* sha256"):
        good[1].save_to_preset(folder, {"sha256": {}})


def test_shipped_presets_have_checksums():
    builtin = pathlib.Path(kf.presets.__file__).parent / "builtin"
    folders = [path.parent for path in builtin.glob("*/config.json")]
    assert {folder.name for folder in folders} == set(kf.presets.names())
    for folder in folders:
        metadata = json.loads((folder / "metadata.json").read_text())
        assert len(metadata["sha256"]) == 2
        kf.presets.files.check_files(folder)


def test_a_swapped_file_is_refused_by_the_service_too(good, tmp_path):
    """Of another training of the same network: no shape tells it."""
    folder = copied(good, tmp_path)
    other = kf.SiTInterface(kf.networks.MLP(2, 8, 1), ema=0.9, seed=0)
    other.save_to_preset(tmp_path / "other")
    weights = folder / "model.weights.h5"
    shutil.copy(tmp_path / "other" / weights.name, weights)
    with pytest.raises(ValueError, match="weights.h5 is damaged, or was"):
        kf.serving.from_preset(folder)
