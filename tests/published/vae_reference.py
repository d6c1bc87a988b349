"""Write what diffusers' AutoencoderKL gives for the weights of weights.py.

    python tests/published/vae_reference.py

Needs diffusers; see SOURCES.md.
"""

import pathlib

import numpy as np
import torch
import weights
from diffusers import AutoencoderKL

HERE = pathlib.Path(__file__).parent


def main():
    network = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=32,
    ).eval()
    shapes = {k: tuple(v.shape) for k, v in network.state_dict().items()}
    network.load_state_dict(
        {k: torch.from_numpy(weights.draw(k, s)) for k, s in shapes.items()}
    )
    images = weights.inputs((32, 16, 3), 1)[0]
    latents = weights.inputs((16, 8, 4), 1, seed=1)[0]
    with torch.no_grad():
        moments = network.encode(
            torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        ).latent_dist
        decoded = network.decode(
            torch.from_numpy(latents.transpose(0, 3, 1, 2).copy())
        ).sample
    arrays = {
        "mean": moments.mean,
        "logvar": moments.logvar,
        "decoded": decoded,
    }
    arrays = {k: v.numpy().transpose(0, 2, 3, 1) for k, v in arrays.items()}
    np.savez_compressed(
        HERE / "vae.npz",
        **arrays,
        names=np.array(list(shapes)),
        shapes=np.array([str(s) for s in shapes.values()]),
    )
    for name, value in arrays.items():
        print(name, value.shape, float(value.min()), float(value.max()))


if __name__ == "__main__":
    main()
