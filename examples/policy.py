"""A policy from demonstrations that go two ways around an obstacle.

    KERAS_BACKEND=jax python examples/policy.py

Their mean leads into the obstacle; a flow policy takes one of the ways.
Writes policy.png, its paths.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np

import keras_flows as kf
from keras_flows.datasets import robots

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
episodes = []
for i in range(200):
    # From (-1, about 0) to (1, 0), above or below a disc at the origin.
    x = np.linspace(-1.0, 1.0, 21)
    y = (-1) ** i * 0.7 * np.cos(np.pi * x / 2) + rng.normal(0, 0.05) * (1 - x)
    path = np.stack([x, y], axis=1).astype("float32")
    episodes.append({"observation": path[:-1], "action": np.diff(path, axis=0)})
windows = robots.Windows(
    episodes, horizon=8, obs_steps=1, act_steps=4, batch_size=256
)
network = kf.networks.ChunkMLP(2, 8, (1, 64), width=128, depth=2, dropout=0.0)
policy = kf.policies.Policy(
    kf.FlowMapInterface(network, "flow", ema=0.99, seed=0),
    kf.networks.MLPEncoder((1, 2), width=64),
    act_steps=4,
)
policy.adapt(windows)
policy.compile(keras.optimizers.AdamW(2e-3))
policy.fit(windows, epochs=30, verbose=0)

places = [np.array([[-1.0, y] for y in np.linspace(-0.1, 0.1, 10)], "float32")]
policy.reset(seed=0)
for _ in range(20):
    places.append(places[-1] + policy.select_action(places[-1]))
paths = np.stack(places)  # (steps, 10, 2)
clear = (np.linalg.norm(paths, axis=-1).min(0) > 0.3).sum()
arrived = (np.linalg.norm(paths[-1] - [1.0, 0.0], axis=-1) < 0.2).sum()
print(f"{clear} of 10 paths are clear of the obstacle, {arrived} arrive")
plt.gca().add_patch(plt.Circle((0, 0), 0.3, color="0.7"))
plt.plot(paths[..., 0], paths[..., 1])
plt.savefig("policy.png")
