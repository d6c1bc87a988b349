"""A flow map of the checkerboard: 2-D points in one step.

    KERAS_BACKEND=jax python examples/points.py

LSD (arXiv 2505.18825) trains X_{t->r} from noise (t = 0) to data (t = 1) with
no teacher; more steps are closer. Writes points.png.
"""

import keras
import matplotlib.pyplot as plt

import keras_flows as kf

keras.utils.set_random_seed(0)
board = kf.datasets.Checkerboard()
network = kf.networks.MLP(
    2, width=128, depth=3, two_times=True, fourier_scale=4.0
)
model = kf.FlowMapInterface(network, "lsd", ema=0.99, seed=0)
rate = keras.optimizers.schedules.CosineDecay(4e-3, decay_steps=400)
model.compile(keras.optimizers.Muon(rate, weight_decay=None))
model.fit(board.sample(400 * 1024, seed=0), batch_size=1024, verbose=0)

metric = kf.metrics.HistogramKL(board)
columns = {"data": board.sample(20_000, seed=1)}
for steps in (1, 4):
    samples = model.generate(20_000, num_steps=steps, seed=0)
    columns[f"N = {steps}"] = keras.ops.convert_to_numpy(samples)
scores = [f"{name}: {metric(x):.2f}" for name, x in columns.items()]
print("KL from the checkerboard,", ", ".join(scores))

figure, axes = plt.subplots(1, len(columns), figsize=(9, 3))
for axis, (name, x) in zip(axes, columns.items(), strict=True):
    axis.hist2d(x[:, 0], x[:, 1], bins=100, cmap="magma")
    axis.set_title(name)
    axis.axis("off")
figure.savefig("points.png")
