"""The custom train step: one objective, three thin backends."""

import keras

from keras_flows.training.alternating import AlternatingOptimizer
from keras_flows.training.ema import EMA
from keras_flows.training.ema import settle
from keras_flows.training.fixed import Fixed
from keras_flows.training.guard import NonFiniteError
from keras_flows.training.seeds import SeedGenerator
from keras_flows.training.seeds import spread_seeds
from keras_flows.training.sharding import FullySharded
from keras_flows.training.sharding import check_layout_map
from keras_flows.training.sharding import coverage

_BACKEND = keras.backend.backend()
if _BACKEND == "jax":
    from keras_flows.training.jax import TrainStep
elif _BACKEND == "tensorflow":
    from keras_flows.training.tensorflow import TrainStep
elif _BACKEND == "torch":
    from keras_flows.training.torch import TrainStep
else:
    raise ImportError(
        "keras_flows trains on the backends jax, tensorflow and torch. "
        f"KERAS_BACKEND is {_BACKEND!r}."
    )
