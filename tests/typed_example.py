"""What a user's type checker sees: `mypy` holds this file to the types."""

from typing import assert_type

import keras
import numpy as np

import keras_flows as kf

board = kf.datasets.Checkerboard()
x = board.sample(64, seed=0)
assert_type(x, np.ndarray)
network = kf.networks.MLP(2, width=8, depth=1, two_times=True)
model = kf.FlowMapInterface(network, "lsd", ema=0.99, seed=0)
model.compile(keras.optimizers.Adam(1e-3))
model.fit(x, batch_size=16, verbose=0)
samples = model.generate(4, num_steps=1, seed=0)
assert_type(kf.metrics.HistogramKL(board)(x), float)
assert_type(kf.presets.names(), list[str])
assert_type(kf.metrics.by_calls(model, np.std, (1, 2)), dict[int, float])
fast = kf.distil(model, x, steps=2, progress=False)
assert_type(fast, kf.FlowMapInterface)

# Each of these is an error that mypy must find: it reports the comment where
# there is none.
kf.networks.MLP(2, width="wide")  # type: ignore[arg-type]
kf.networks.MLP(2, widht=8)  # type: ignore[call-arg]
kf.metrics.HistogramKL(board, bins=1.5)  # type: ignore[arg-type]
model.generate(4, num_steps="one")  # type: ignore[arg-type]
kf.datasets.from_image_folder("photos")  # type: ignore[call-arg]
kf.distil(model, steps=None)  # type: ignore[arg-type]
