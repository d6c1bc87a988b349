"""`kf.networks.MLP` in PyTorch."""

import numpy as np
import torch
from torch.nn import functional

FREQUENCIES = torch.tensor(np.geomspace(1.0, 8.0, 4).astype("float32"))


def velocity(weights, x, t, labels=None):
    """(B, d), (B,) -> (B, d)."""
    turned = x @ weights["fourier/directions"]
    angles = t[:, None] * FREQUENCIES
    h = torch.cat(
        [x, torch.sin(turned), torch.cos(turned),
         t[:, None], torch.sin(angles), torch.cos(angles)],
        dim=1,
    )  # fmt: skip
    depth = sum(name.endswith("kernel") for name in weights) - 1
    for i in range(depth):
        h = functional.silu(
            torch.addmm(
                weights[f"hidden_{i}/bias"], h, weights[f"hidden_{i}/kernel"]
            )
        )
    return torch.addmm(weights["output/bias"], h, weights["output/kernel"])


def loss(weights, data, labels, noise, t):
    """Mean of |velocity(x_t, t) - (noise - data)|^2 over all elements."""
    time = t[:, None]
    x = (1 - time) * data + time * noise
    error = velocity(weights, x, t) - (noise - data)
    return torch.mean(torch.square(error))
