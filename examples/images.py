"""Handwritten digits by their labels, with classifier-free guidance.

    KERAS_BACKEND=jax python examples/images.py

SiT (arXiv 2401.08740) on scikit-learn's 8 x 8 digits. Writes images.png, a row
for each label.
"""

import keras
import numpy as np

import keras_flows as kf
from keras_flows.callbacks import image_grid
from keras_flows.callbacks import write_image

keras.utils.set_random_seed(0)
images, labels = kf.datasets.digits("train")
network = kf.networks.DiT(
    (8, 8, 1), patch_size=2, width=48, depth=2, num_heads=4, num_classes=10
)
# A tenth of the labels is dropped, so that guidance has what to lead away from.
model = kf.SiTInterface(network, cond_drop_ratio=0.1, ema=0.99, seed=0)
model.compile(keras.optimizers.AdamW(2e-3))
model.fit(images, labels, batch_size=128, epochs=60, verbose=0)

wanted = np.repeat(np.arange(10), 10)
right = {}
for scale in (1.0, 2.0):
    samples = keras.ops.convert_to_numpy(
        model.generate(
            condition=wanted, guidance_scale=scale, num_steps=10, seed=0
        )
    )
    # The label of the nearest real image.
    apart = samples.reshape(100, 1, 64) - images.reshape(1, -1, 64)
    nearest = labels[np.argmin((apart**2).sum(-1), axis=1)]
    right[scale] = np.mean(nearest == wanted)
    write_image("images.png", image_grid(samples, columns=10, scale=4))
print(
    "Samples that look like their label:",
    ", ".join(f"{100 * r:.0f} % at guidance {s}" for s, r in right.items()),
)
