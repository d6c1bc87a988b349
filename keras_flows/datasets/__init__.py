"""Data sets and pipelines; see docs/data.md."""

from keras_flows.datasets import robots
from keras_flows.datasets.batches import Batches
from keras_flows.datasets.checkerboard import Checkerboard
from keras_flows.datasets.checkerboard import Endless
from keras_flows.datasets.digits import digits
from keras_flows.datasets.images import center_crop
from keras_flows.datasets.images import from_edm_zip
from keras_flows.datasets.images import from_image_folder
from keras_flows.datasets.images import from_tfds
from keras_flows.datasets.latents import Latents
from keras_flows.datasets.mnist import mnist
from keras_flows.datasets.prepare import describe_autoencoder
from keras_flows.datasets.prepare import prepare_latents
from keras_flows.datasets.rings import Rings
from keras_flows.datasets.rows import Rows
from keras_flows.datasets.scenes import Scenes
from keras_flows.datasets.sources import EdmSource
from keras_flows.datasets.sources import FolderSource
from keras_flows.datasets.sources import TfdsSource

__all__ = [
    "Batches",
    "center_crop",
    "Checkerboard",
    "describe_autoencoder",
    "EdmSource",
    "Endless",
    "FolderSource",
    "from_edm_zip",
    "from_image_folder",
    "from_tfds",
    "Latents",
    "mnist",
    "prepare_latents",
    "Rings",
    "robots",
    "Rows",
    "Scenes",
    "TfdsSource",
]
