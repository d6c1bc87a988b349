"""
Title: One-step generation with flow maps
Author: [The keras_flows authors](https://keras.io)
Date created: 2026/11/29
Last modified: 2026/11/29
Description: Train a generative model that draws a sample in a single network call.
Accelerator: None
"""

"""
## Introduction

A diffusion or flow-matching model learns a velocity field. To draw one sample, it
follows that field from noise to data, which takes 30 to 250 network calls.

A **flow map** learns where the field leads: $X_{t \\to r}(x)$ maps a point at time $t$
to the point at time $r$. One call of $X_{0 \\to 1}$ turns noise into a sample, and more
calls make it more exact. We write the map with a network $u$ as

$$X_{t \\to r}(x) = x + (r - t) \\, u(x, t, r).$$

On the diagonal, $u(x, t, t)$ is the velocity, which ordinary flow matching trains. Off
the diagonal, *Lagrangian self-distillation* (LSD,
[arXiv 2505.18825](https://arxiv.org/abs/2505.18825)) asks that the map moves with the
velocity at the place where it arrives:

$$\\partial_r X_{t \\to r}(x) = u(X_{t \\to r}(x), r, r).$$

The derivative by $r$ is a forward-mode derivative (JVP) of the network. `keras_flows`
computes it on JAX, TensorFlow and PyTorch from the same source.

## Setup
"""

import os

os.environ["KERAS_BACKEND"] = "jax"  # or "tensorflow", or "torch"

import keras
import matplotlib.pyplot as plt
from keras import ops

import keras_flows as kf

keras.utils.set_random_seed(0)

"""
## Data

The checkerboard is a hard test for two dimensions: its density jumps at every edge, and
between the squares there is nothing.
"""

board = kf.datasets.Checkerboard()
batch_size, steps = 512, 2000
points = board.sample(batch_size * steps, seed=0)
print(points.shape, points.min(), points.max())

"""
## Network

Any Keras model will do that takes a dict with `x`, `t` and `r` and returns a tensor of
the shape of `x`. Features of the times should be slow: the loss contains derivatives by
them.
"""


def make_network(width=128, depth=3):
    x = keras.Input((2,), name="x")
    t = keras.Input((), name="t")
    r = keras.Input((), name="r")
    times = kf.networks.TimeFeatures(8)
    h = keras.layers.Concatenate()(
        [x, kf.networks.FourierFeatures(32)(x), times(t), times(r)]
    )
    for _ in range(depth):
        h = keras.layers.Dense(width, activation="gelu")(h)
    return keras.Model({"x": x, "t": t, "r": r}, keras.layers.Dense(2)(h))


network = make_network()
network.summary()

"""
## Training

`FlowMapInterface` is a `keras.Model`: compile it, fit it. `stable_target` averages the
regression target over the batch, which removes most of its noise in two dimensions.
"""

model = kf.FlowMapInterface(
    network, "lsd", stable_target=True, ema=0.99, seed=0
)
rate = keras.optimizers.schedules.CosineDecay(5e-3, steps)
model.compile(keras.optimizers.Adam(rate))
model.fit(points, batch_size=batch_size, verbose=0)

"""
## One call, or more

The Kullback-Leibler divergence from the data is about 1.5 for an untrained model.
"""

metric = kf.metrics.HistogramKL(board)
columns = {"data": board.sample(50_000, seed=1)}
for calls in (1, 4):
    samples = model.generate(50_000, num_steps=calls, seed=0)
    columns[f"{calls} call(s)"] = ops.convert_to_numpy(samples)
    print(f"KL with {calls} call(s): {metric(samples):.3f}")

figure, axes = plt.subplots(1, len(columns), figsize=(9, 3))
for axis, (name, each) in zip(axes, columns.items()):
    axis.hist2d(each[:, 0], each[:, 1], bins=100, cmap="magma")
    axis.set_title(name)
    axis.axis("off")
plt.tight_layout()
plt.show()

"""
## Saving

A preset is loaded on any backend, with the same samples for the same seed.
"""

model.save_to_preset("one_step_board")
again = kf.from_preset("one_step_board")
print(again.generate(3, num_steps=1, seed=0))

"""
## Where to go from here

- Images: replace the network by `kf.networks.DiT` and the data by a `tf.data` pipeline.
- A teacher: with a trained flow model, `"lmd"` is cheaper than LSD.
- Robots: the same objectives train policies, `kf.policies.Policy`.
"""
