"""Scikit-learn's digits as a TensorFlow Datasets builder.

After `import keras_flows.datasets.digits_builder` it loads by name, without
network:

```python
import tensorflow_datasets as tfds
import keras_flows.datasets.digits_builder

source = tfds.data_source(
    "sklearn_digits",
    split="train",
    builder_kwargs={"file_format": "array_record"},
)
```

Needs `pip install 'keras_flows[data]'`.
"""

import numpy as np
import tensorflow_datasets as tfds

from keras_flows.datasets.digits import SPLITS
from keras_flows.datasets.digits import raw_digits


class SklearnDigits(tfds.core.GeneratorBasedBuilder):
    """8 x 8 grey images of handwritten digits, values 0 to 16."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}

    def _info(self):
        return self.dataset_info_from_configs(
            description=(
                "The 1,797 handwritten digits that scikit-learn bundles (the "
                "test part of UCI's optdigits), split at random into 1,197 "
                "to train, 200 to validate and 400 to test."
            ),
            features=tfds.features.FeaturesDict(
                {
                    # Not an Image: a PNG of values up to 16 would look black.
                    "image": tfds.features.Tensor(
                        shape=(8, 8, 1), dtype=np.uint8
                    ),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split):
        for i, (image, label) in enumerate(
            zip(*raw_digits(split), strict=True)
        ):
            yield i, {"image": image, "label": int(label)}
