"""A network in closed form, for DDPM's published code and for ours.

Its output is small and smooth, so that two samplers that differ by rounding
stay together for hundreds of steps.
"""

import numpy as np

try:
    from . import weights
except ImportError:  # as a script
    import weights

SHAPE, CLASSES, BATCH = (2, 2, 4), 3, 2
STEPS = (1, 2, 3, 21, 50, 91, 163, 250, 999, 1000)
# name: (prediction, learn_sigma, schedule, sampler, steps, options)
WALKS = {
    "learned": ("eps", True, "linear", "ddpm", 250, {}),
    "large": ("eps", False, "linear", "ddpm", 50, {"variance": "large"}),
    "small": ("x0", False, "cosine", "ddpm", 50, {"variance": "small"}),
    "clipped": (
        "eps", False, "linear", "ddpm", 50,
        {"variance": "small", "clip": 1.0},
    ),
    "ddim": ("eps", False, "linear", "ddim", 50, {}),
    "ddim_cosine": ("x0", False, "cosine", "ddim", 250, {"eta": 0.7}),
}  # fmt: skip
# The walk "learned" is guided as DiT samples are: three channels of four.
SCALE, CHANNELS = 4.0, 3


def output(xp, x, t, labels, prediction, learn_sigma):
    """(B, H, W, C or 2C) by `xp`, NumPy or keras.ops; float32."""
    c = SHAPE[-1]
    mix = weights.draw("ddpm.mix", (c, 2 * c))
    label = weights.draw("ddpm.label", (CLASSES + 1, 2 * c))
    rows = xp.take(label, labels, axis=0)
    rows = rows + xp.reshape(xp.sin(t / 50.0), (-1, 1))
    h = xp.tanh(xp.matmul(x, mix) + xp.reshape(rows, (-1, 1, 1, 2 * c)))
    mean = 0.5 * h[..., :c]
    if prediction == "eps":
        mean = 0.9 * x + 0.2 * h[..., :c]
    if not learn_sigma:
        return mean
    return xp.concatenate([mean, 1.2 * h[..., c:]], axis=-1)


def noises(steps):
    """The start and each step's noise, as `generate(seed=0)` draws them."""
    rng = np.random.Generator(np.random.Philox(0))
    shape = (BATCH, *SHAPE)
    return [rng.standard_normal(shape, "float32") for _ in range(steps + 1)]


def batch():
    """(x, n, k, labels) with pixels at the ends and k = 0 among the rows."""
    rng = np.random.default_rng(1)
    k = np.array([0, 0, 1, 7, 100, 500, 900, 999])
    x = rng.uniform(-1.2, 1.2, (len(k), *SHAPE)).clip(-1, 1)
    n = rng.standard_normal(x.shape)
    return (
        x.astype("float32"),
        n.astype("float32"),
        k,
        rng.integers(0, CLASSES, len(k)).astype("int32"),
    )


def labels():
    return np.array([0, 2], dtype="int32")
