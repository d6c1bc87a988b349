"""The backend's train step: one of three thin files."""

import keras

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

__all__ = ["TrainStep"]
