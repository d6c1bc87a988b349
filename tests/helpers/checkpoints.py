"""Checkpoints written as training code writes them."""

import pathlib

import numpy as np
from published import weights

HERE = pathlib.Path(__file__).parents[1]


def published(name, draw=weights.draw):
    """(names and weights, output) of a file of expected numbers."""
    file = np.load(HERE / "published" / f"{name}.npz")
    return weights.state(file, draw), file["output"]


def save_torch(path, state, training=None):
    """As train.py of DiT, SiT and REPA saves, or the released file."""
    import torch

    tensors = {k: torch.from_numpy(v.copy()) for k, v in state.items()}
    if training is None:
        tree = tensors
    else:
        tree = {
            "model": {k: 2.0 * v for k, v in tensors.items()},
            "ema": tensors,
            "opt": {"state": {0: {"step": torch.ones(())}}, "param_groups": []},
            **training,
        }
    torch.save(tree, path)
    return path


def save_safetensors(path, state):
    """By the format's own package; ours reads without it."""
    from safetensors.numpy import save_file

    save_file({k: np.ascontiguousarray(v) for k, v in state.items()}, path)
    return path
