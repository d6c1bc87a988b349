"""The custom train step: one objective, three thin backends."""

from keras_flows.networks import Fixed
from keras_flows.training.alternating import AlternatingOptimizer
from keras_flows.training.compilation import compilation_cache
from keras_flows.training.ema import EMA
from keras_flows.training.ema import settle
from keras_flows.training.guard import NonFiniteError
from keras_flows.training.seeds import SeedGenerator
from keras_flows.training.seeds import spread_seeds
from keras_flows.training.sharding import FullySharded
from keras_flows.training.sharding import check_layout_map
from keras_flows.training.sharding import coverage
from keras_flows.training.sharding import fully_shard
from keras_flows.training.sharding import whole
from keras_flows.training.snapshot import Snapshot
from keras_flows.training.progress import Progress
from keras_flows.training.step import TrainStep
from keras_flows.training.trainable import Trainable

__all__ = [
    "AlternatingOptimizer",
    "compilation_cache",
    "coverage",
    "EMA",
    "fully_shard",
    "FullySharded",
    "NonFiniteError",
    "SeedGenerator",
    "whole",
]
