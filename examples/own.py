"""A network and an objective of your own.

    KERAS_BACKEND=jax python examples/own.py

Any Keras network of (x, t) will do. The objective is flow matching with the
pseudo-Huber loss, which a few far points disturb less than the square.
Writes own.png.
"""

import keras
import matplotlib.pyplot as plt
from keras import ops

import keras_flows as kf

keras.utils.set_random_seed(0)


def network(width=128):
    x, t = keras.Input((2,), name="x"), keras.Input((), name="t")
    h = keras.layers.Concatenate()(
        [kf.networks.FourierFeatures(16)(x), kf.networks.TimeFeatures(8)(t)]
    )
    for _ in range(3):
        h = keras.layers.Dense(width, activation="silu")(h)
    return keras.Model({"x": x, "t": t}, keras.layers.Dense(2)(h))


@keras.saving.register_keras_serializable("examples")
def pseudo_huber(model, batch):
    """|v - u(x_t, t)| in pseudo-Huber's norm, (B,), x_t = t x + (1 - t) n."""
    n = model.sample_n(ops.shape(batch.x))
    t = model.sample_t(ops.shape(batch.x)[:1])
    x_t = model.sample_x_t(batch.x, n, t)
    v = model.target(batch.x, n, t)
    error = ops.sum((v - model.pred(x_t, t)) ** 2, axis=-1)
    return {"loss": ops.sqrt(error + 0.01) - 0.1}


board = kf.datasets.Checkerboard()
model = kf.FlowMapInterface(network(), pseudo_huber, ema=0.99, seed=0)
model.compile(keras.optimizers.AdamW(2e-3))
model.fit(board.sample(400_000, seed=0), batch_size=512, verbose=0)

x = ops.convert_to_numpy(model.generate(20_000, num_steps=20, seed=0))
print(f"KL from the checkerboard: {kf.metrics.HistogramKL(board)(x):.2f}")
plt.hist2d(x[:, 0], x[:, 1], bins=100, cmap="magma")
plt.axis("equal")
plt.savefig("own.png")
