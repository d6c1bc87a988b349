"""Sets of TensorFlow Datasets: Meta-World's builder, RLDS."""

import numpy as np
import pytest
from helpers.robots import assert_same

import keras_flows as kf

# Files and NumPy.
pytestmark = pytest.mark.once

robots = kf.datasets.robots


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("metaworld")
    import keras_flows.datasets.robots.metaworld_builder  # noqa: F401

    return tmp_path_factory.mktemp("tfds")


@pytest.mark.filterwarnings("ignore")
def test_metaworld_builder(tfds_dir):
    import tensorflow_datasets as tfds

    from keras_flows.datasets.robots import metaworld_builder as builder

    expected = robots.demonstrations("reach-v3", 3, seed=1, noise=0.1)
    config = builder.MetaworldConfig(task="reach-v3", num=3, seed=1, noise=0.1)
    assert config.name == "reach-v3_num3_seed1_noise0.1"
    source = tfds.data_source(
        "metaworld_demonstrations",
        split="train",
        data_dir=str(tfds_dir),
        builder_kwargs={"config": config, "file_format": "array_record"},
    )
    assert len(source) == 3
    record = source[0]
    assert record["episode_metadata"]["task"] == b"reach-v3"
    flags = {
        key: [bool(step[key]) for step in record["steps"]]
        for key in ("is_first", "is_last", "is_terminal")
    }
    steps = len(expected[0]["action"])
    assert flags["is_first"] == [True] + [False] * (steps - 1)
    assert flags["is_last"] == [False] * (steps - 1) + [True]
    assert not any(flags["is_terminal"])
    # By name alone, whoever made it.
    ours = robots.read_rlds(
        "metaworld_demonstrations/reach-v3_num3_seed1_noise0.1",
        data_dir=tfds_dir,
    )
    assert [one["task"] for one in ours] == ["reach-v3"] * 3
    for one, other in zip(ours, expected):
        # The episode's own success is another thing than the steps'.
        assert one["success"].shape == other["success"].shape
    assert_same(ours, expected)
    part = robots.read_rlds(
        "metaworld_demonstrations/reach-v3_num3_seed1_noise0.1",
        split="train[1:]",
        data_dir=tfds_dir,
        drop_last=True,
    )
    assert len(part[0]["action"]) == len(expected[1]["action"]) - 1


@pytest.mark.filterwarnings("ignore")
def test_rlds_set_of_others(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("array_record")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 3, 8, 8, 3), "uint8")
    states = rng.normal(size=(2, 3, 4)).astype("float32")

    class OthersRobot(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = tfds.core.Path(tmp_path)

        def _info(self):
            features = tfds.features
            return self.dataset_info_from_configs(
                disable_shuffling=True,
                features=features.FeaturesDict(
                    {
                        "steps": features.Dataset(
                            {
                                "observation": {
                                    "image": features.Image(shape=(8, 8, 3)),
                                    "state": features.Tensor(
                                        shape=(4,), dtype=np.float32
                                    ),
                                    "instruction": features.Text(),
                                },
                                "action": {
                                    "move": features.Tensor(
                                        shape=(2,), dtype=np.float32
                                    ),
                                    "open": features.Scalar(dtype=np.float32),
                                },
                                "reward": features.Scalar(dtype=np.float32),
                            }
                        ),
                    }
                ),
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(2):
                yield (
                    i,
                    {
                        "steps": [
                            {
                                "observation": {
                                    "image": images[i, t],
                                    "state": states[i, t],
                                    "instruction": "push",
                                },
                                "action": {
                                    "move": states[i, t, :2],
                                    "open": states[i, t, 3],
                                },
                                "reward": t,
                            }
                            for t in range(3)
                        ]
                    },
                )

    ours = robots.read_rlds("others_robot", data_dir=tmp_path)
    expected = [
        {
            "observation": {"image": images[i], "state": states[i]},
            "action": states[i][:, [0, 1, 3]],
            "reward": np.arange(3, dtype="float32"),
        }
        for i in range(2)
    ]
    assert_same(ours, expected)
    assert_same(
        robots.read_rlds("others_robot", data_dir=tmp_path, keys="state"),
        robots.select_keys(expected, "state"),
    )
    with pytest.raises(ValueError, match=r"`keys` \['hand'\].*'state'"):
        robots.read_rlds("others_robot", data_dir=tmp_path, keys=["hand"])


@pytest.mark.filterwarnings("ignore")
def test_rlds_sets_that_are_refused(tfds_dir):
    pytest.importorskip("sklearn")
    import keras_flows.datasets.digits_builder  # noqa: F401
    from keras_flows.datasets.robots import metaworld_builder as builder

    with pytest.raises(ValueError, match="not in the layout of RLDS.*'image'"):
        robots.read_rlds("sklearn_digits", data_dir=tfds_dir)
    with pytest.raises(ValueError, match="must be a task.*<task>_num<n>"):
        builder.MetaworldConfig.from_name("reach")
    assert builder.MetaworldConfig.from_name("reach-v3").num == 100
