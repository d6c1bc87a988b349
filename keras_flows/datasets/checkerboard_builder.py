"""The checkerboard as a TensorFlow Datasets builder.

After `import keras_flows.datasets.checkerboard_builder` it loads by name,
without network and without TensorFlow:

```python
import tensorflow_datasets as tfds
import keras_flows.datasets.checkerboard_builder

source = tfds.data_source(
    "checkerboard",
    split="train",
    builder_kwargs={"file_format": "array_record"},
)
```

Needs `pip install 'keras_flows[data]'`.
"""

import numpy as np
import tensorflow_datasets as tfds

from keras_flows.datasets.checkerboard import Checkerboard as Board


class Checkerboard(tfds.core.GeneratorBasedBuilder):
    """Points uniform on every other cell of a 4 x 4 board on [-2, 2]^2."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}

    def _info(self):
        return self.dataset_info_from_configs(
            description=(
                "Points (x, y) uniform on the cells (i + j even) of a 4 x 4 "
                "board on [-2, 2]^2, with the number of the cell as label."
            ),
            features=tfds.features.FeaturesDict(
                {
                    "x": tfds.features.Tensor(shape=(2,), dtype=np.float32),
                    "label": tfds.features.ClassLabel(num_classes=8),
                }
            ),
            supervised_keys=("x", "label"),
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(20_000, seed=0),
            "test": self._generate_examples(5_000, seed=1),
        }

    def _generate_examples(self, num, seed):
        points, labels = Board().sample_labelled(num, seed)
        for i, (x, label) in enumerate(zip(points, labels, strict=True)):
            yield i, {"x": x, "label": int(label)}
