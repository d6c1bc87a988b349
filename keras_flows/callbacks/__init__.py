"""Callbacks of `fit`: pictures and figures from the averaged weights."""

from keras_flows.training.bar import ProgressBar
from keras_flows.callbacks.sample_grid import SampleGrid
from keras_flows.callbacks.sample_metric import SampleMetric
from keras_flows.ops.pictures import image_grid
from keras_flows.ops.pictures import write_image
from keras_flows.training.resume import Checkpoint
from keras_flows.training.resume import load_checkpoint

__all__ = [
    "Checkpoint",
    "image_grid",
    "load_checkpoint",
    "ProgressBar",
    "SampleGrid",
    "SampleMetric",
    "write_image",
]
