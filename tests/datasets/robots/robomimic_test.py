"""robomimic files."""

import numpy as np
import pytest
from helpers.robots import assert_same
from helpers.robots import episode

import keras_flows as kf

# Files and NumPy.
pytestmark = pytest.mark.once

robots = kf.datasets.robots


# robomimic


def robomimic_file(path, demos, masks=None, **changes):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, demo in demos.items():
            group = file.create_group(f"data/{name}")
            group.attrs["num_samples"] = len(demo["action"])
            for key, value in demo["observation"].items():
                # The format's own precision.
                kind = value.dtype if value.dtype == "uint8" else "float64"
                group[f"obs/{key}"] = value.astype(kind)
            group["actions"] = demo["action"].astype("float64")
            group["rewards"] = demo["reward"].astype("float64")
            group["dones"] = np.arange(len(demo["action"])) // 4
        for name, names in (masks or {}).items():
            file[f"mask/{name}"] = np.array(names, dtype="S8")
    return path


def test_robomimic_file(tmp_path):
    # Eleven, so that the alphabet's order is another.
    demos = {f"demo_{i}": episode(4 + i, i, image=True) for i in range(11)}
    path = robomimic_file(
        tmp_path / "low_dim.hdf5",
        demos,
        {"train": ["demo_10", "demo_2"], "valid": ["demo_3"]},
    )
    ours = robots.read_robomimic(path)
    assert_same(ours, list(demos.values()))
    np.testing.assert_array_equal(ours[1]["done"], [0, 0, 0, 0, 1])
    train = robots.read_robomimic(path, ["object"], filter_key="train")
    expected = robots.select_keys(
        [demos["demo_2"], demos["demo_10"]], ["object"]
    )
    assert_same(train, expected)
    (valid,) = robots.read_robomimic(path, "view", filter_key="valid")
    np.testing.assert_array_equal(
        valid["observation"], demos["demo_3"]["observation"]["view"]
    )
    assert valid["observation"].dtype == np.uint8


@pytest.mark.parametrize("arms", [1, 2])
def test_robomimic_absolute_actions(tmp_path, arms, rng):
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    demo = episode(6)
    actions = rng.normal(size=(6, arms, 7))
    turns = rotation.random(6 * arms, random_state=0)
    actions[..., 3:6] = turns.as_rotvec().reshape(6, arms, 3)
    demo["action"] = actions.reshape(6, -1)
    path = robomimic_file(tmp_path / "abs.hdf5", {"demo_0": demo})
    (ours,) = robots.read_robomimic(path, rotation_6d=True)
    assert ours["action"].shape == (6, 10 * arms)
    split = ours["action"].reshape(6, arms, 10)
    np.testing.assert_array_equal(
        split[..., [0, 1, 2, 9]], actions[..., [0, 1, 2, 6]].astype("float32")
    )
    matrices = turns.as_matrix().reshape(6, arms, 3, 3)
    np.testing.assert_allclose(split[..., 3:6], matrices[..., 0], atol=1e-6)
    np.testing.assert_allclose(split[..., 6:9], matrices[..., 1], atol=1e-6)
    back = robots.from_rotation_6d(ours["action"])
    np.testing.assert_allclose(back, demo["action"], atol=1e-5)


def test_robomimic_files_that_are_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = robomimic_file(
        tmp_path / "a.hdf5", {"demo_0": episode(4)}, {"train": ["demo_7"]}
    )
    with pytest.raises(ValueError, match="`path` .*nowhere.hdf5' is no file"):
        robots.read_robomimic(tmp_path / "nowhere.hdf5")
    with pytest.raises(ValueError, match=r"`keys` \['hand'\].*\['eef_pos', "):
        robots.read_robomimic(path, ["hand"])
    with pytest.raises(ValueError, match=r"`filter_key` 'all'.*\['train'\]"):
        robots.read_robomimic(path, filter_key="all")
    with pytest.raises(ValueError, match="'train'.*names 'demo_7'"):
        robots.read_robomimic(path, filter_key="train")
    with pytest.raises(ValueError, match="`action_key` 'actions_abs'.*dones"):
        robots.read_robomimic(path, action_key="actions_abs")
    (tmp_path / "half.hdf5").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="half.hdf5' is no HDF5 file, or only"):
        robots.read_robomimic(tmp_path / "half.hdf5")
    with h5py.File(path, "a") as file:
        file["data/demo_0/obs/eef_pos"][2] = np.nan
    with pytest.raises(ValueError, match="`a.hdf5`.*eef_pos' holds NaN at ste"):
        robots.read_robomimic(path)
    with h5py.File(path, "a") as file:
        del file["data/demo_0/obs"]
    with pytest.raises(ValueError, match="'demo_0' has no observations"):
        robots.read_robomimic(path)
    with h5py.File(path, "a") as file:
        del file["data/demo_0"]
    with pytest.raises(ValueError, match="`a.hdf5` holds no demonstration"):
        robots.read_robomimic(path)
    with h5py.File(path, "a") as file:
        del file["data"]
    with pytest.raises(ValueError, match=r"no group 'data'.*\['mask'\]"):
        robots.read_robomimic(path)
