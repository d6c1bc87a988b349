"""Demonstrations of Meta-World as a TensorFlow Datasets builder, in RLDS.

After `import keras_flows.datasets.robots.metaworld_builder` it loads by name,
and is made by the scripted experts the first time, without TensorFlow:

```python
import tensorflow_datasets as tfds
import keras_flows.datasets.robots.metaworld_builder

source = tfds.data_source(
    "metaworld_demonstrations/shelf-place-v3",
    split="train",
    builder_kwargs={"file_format": "array_record"},
)
```

`tfds.load` needs TensorFlow and records of its own (TFRecord, its default), so
another `data_dir`. `read_rlds` turns the former into a list of episodes.

A config's name is <task>, 100 demonstrations of seed 0 without noise, or
<task>_num<n>_seed<s>_noise<x>. Each record is an episode in the layout of RLDS
(arXiv 2111.02767): "steps", a nested dataset, and "episode_metadata".

Needs `pip install 'keras_flows[data,robots]'`.
"""

import dataclasses
import re

import numpy as np
import tensorflow_datasets as tfds

from keras_flows.datasets.robots.metaworld import ACTION_DIM
from keras_flows.datasets.robots.metaworld import OBSERVATION_DIM
from keras_flows.datasets.robots.metaworld import demonstrations

NAME = re.compile(
    r"(?P<task>[a-z-]+-v3)"
    r"(?:_num(?P<num>\d+)_seed(?P<seed>\d+)_noise(?P<noise>[\d.]+))?"
)


@dataclasses.dataclass(eq=False, kw_only=True)
class MetaworldConfig(tfds.core.BuilderConfig):
    """Which demonstrations; the name follows from the rest.

    Attributes:
        task: name, "shelf-place-v3" say.
        num: number of demonstrations.
        seed: int; of the start states.
        noise: standard deviation of the noise on executed actions.
    """

    name: str = ""
    task: str = "reach-v3"
    num: int = 100
    seed: int = 0
    noise: float = 0.0

    def __post_init__(self):
        self.name = self.task
        if (self.num, self.seed, self.noise) != (100, 0, 0.0):
            self.name += (
                f"_num{self.num}_seed{self.seed}_noise{float(self.noise)}"
            )
        self.description = (
            f"{self.num} demonstrations of {self.task}, seed {self.seed}, "
            f"noise {self.noise}."
        )

    @classmethod
    def from_name(cls, name):
        """The config of a name.

        Raises:
            ValueError: if the name has another form.
        """
        match = NAME.fullmatch(name)
        if match is None:
            raise ValueError(
                f"Config {name!r} must be a task, 'reach-v3' say, or "
                "'<task>_num<n>_seed<s>_noise<x>'."
            )
        if match["num"] is None:
            return cls(task=match["task"])
        return cls(
            task=match["task"],
            num=int(match["num"]),
            seed=int(match["seed"]),
            noise=float(match["noise"]),
        )


class MetaworldDemonstrations(tfds.core.GeneratorBasedBuilder):
    """Successful episodes of Meta-World's scripted experts."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    BUILDER_CONFIGS = [MetaworldConfig()]
    builder_config_cls = MetaworldConfig

    @classmethod
    def get_builder_config(cls, name, version=None):
        """Any task's config, by the name that says what it is."""
        return super().get_builder_config(
            name, version
        ) or MetaworldConfig.from_name(name)

    def _create_builder_config(self, builder_config, version):
        # Also an equal one that the user built is welcome.
        if isinstance(builder_config, MetaworldConfig):
            return builder_config
        return super()._create_builder_config(builder_config, version)

    def _info(self):
        step = {
            "observation": tfds.features.Tensor(
                shape=(OBSERVATION_DIM,), dtype=np.float32
            ),
            "action": tfds.features.Tensor(
                shape=(ACTION_DIM,), dtype=np.float32
            ),
            "reward": tfds.features.Scalar(dtype=np.float32),
            "discount": tfds.features.Scalar(dtype=np.float32),
            "success": tfds.features.Scalar(dtype=np.bool_),
            "is_first": tfds.features.Scalar(dtype=np.bool_),
            "is_last": tfds.features.Scalar(dtype=np.bool_),
            "is_terminal": tfds.features.Scalar(dtype=np.bool_),
        }
        return self.dataset_info_from_configs(
            description=(
                "Successful episodes of the scripted experts of Meta-World "
                "v3, one task a config. Observations are [now (18), goal "
                "(3)], actions (dx, dy, dz, gripper) in [-1, 1]."
            ),
            features=tfds.features.FeaturesDict(
                {
                    "steps": tfds.features.Dataset(step),
                    "episode_metadata": {
                        "task": tfds.features.Text(),
                        "seed": tfds.features.Scalar(dtype=np.int64),
                        "success": tfds.features.Scalar(dtype=np.bool_),
                    },
                }
            ),
            homepage="https://metaworld.farama.org",
            # "train[:50]" is then the first 50, whatever the number of files.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        config = self.builder_config
        episodes = demonstrations(
            config.task, config.num, seed=config.seed, noise=config.noise
        )
        for number, episode in enumerate(episodes):
            yield number, _record(episode, config.task)


def _record(episode, task):
    """An episode as RLDS has it."""
    last = len(episode["action"]) - 1
    # Episodes end because the recording does: no state is terminal.
    steps = [
        {
            "observation": episode["observation"][i],
            "action": episode["action"][i],
            "reward": np.float32(episode["reward"][i]),
            "discount": np.float32(1.0),
            "success": bool(episode["success"][i]),
            "is_first": i == 0,
            "is_last": i == last,
            "is_terminal": False,
        }
        for i in range(last + 1)
    ]
    return {
        "steps": steps,
        "episode_metadata": {
            "task": task,
            "seed": int(episode["seed"]),
            "success": bool(np.any(episode["success"])),
        },
    }
