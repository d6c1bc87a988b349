"""The rendered scenes as a TensorFlow Datasets builder.

After `import keras_flows.datasets.scenes_builder` it loads by name, without
network; the config is the number of pixels a side:

```python
import tensorflow_datasets as tfds
import keras_flows.datasets.scenes_builder

source = tfds.data_source(
    "scenes/32",
    split="train",
    builder_kwargs={"file_format": "array_record"},
)
```

Needs `pip install 'keras_flows[data]'`.
"""

import numpy as np
import tensorflow_datasets as tfds

from keras_flows.datasets import scenes


class Scenes(tfds.core.GeneratorBasedBuilder):
    """Colour images of one object in a room, with all their factors."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(
            name=str(size), description=f"{size} x {size} pixels."
        )
        for size in scenes.SIZES
    ]

    def _info(self):
        size = int(self.builder_config.name)
        return self.dataset_info_from_configs(
            description=(
                "Rendered images of a ball, box, cylinder or cone in a room: "
                "10,000 to train and 2,000 to test. The labels are the hues "
                "of floor, wall and object, the object's shape and size, and "
                "the angle of view."
            ),
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(size, size, 3), dtype=np.uint8
                    ),
                    **{
                        name: tfds.features.ClassLabel(
                            names=scenes.SHAPES if name == "shape" else None,
                            num_classes=None if name == "shape" else count,
                        )
                        for name, count in scenes.FACTORS.items()
                    },
                }
            ),
            supervised_keys=("image", "shape"),
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(10_000, seed=0),
            "test": self._generate_examples(2_000, seed=1),
        }

    def _generate_examples(self, num, seed):
        source = scenes.Scenes(int(self.builder_config.name))
        rng = np.random.Generator(np.random.Philox(seed))
        for start in range(0, num, 500):
            images, labels = source.sample_labelled(min(500, num - start), rng)
            pixels = np.round((images + 1.0) * 127.5).astype("uint8")
            for i, image in enumerate(pixels):
                row = {name: int(part[i]) for name, part in labels.items()}
                yield start + i, {"image": image, **row}
