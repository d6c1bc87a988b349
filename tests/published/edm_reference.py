"""Write what EDM's U-Nets give for the weights of weights.py.

    python tests/published/edm_reference.py FOLDER_OF_NVLABS_EDM

Small versions of the three published architectures; see SOURCES.md.
"""

import pathlib
import sys

import numpy as np
import torch
import weights

HERE = pathlib.Path(__file__).parent
CLASSES = 10
NETWORKS = {
    "ddpmpp": ("SongUNet", {"channel_mult": [1, 2], "attn_resolutions": [8]}),
    "ncsnpp": (
        "SongUNet",
        {
            "channel_mult": [1, 2],
            "attn_resolutions": [8],
            "embedding_type": "fourier",
            "encoder_type": "residual",
            "channel_mult_noise": 2,
            "resample_filter": [1, 3, 3, 1],
        },
    ),
    "adm": ("DhariwalUNet", {"channel_mult": [1, 4], "attn_resolutions": [8]}),
}


def main(folder):
    sys.path.insert(0, folder)
    from training import networks

    x, t, _, labels = weights.inputs((16, 16, 3), CLASSES)
    one_hot = np.eye(CLASSES + 1, dtype="float32")[labels][:, :-1]
    for name, (kind, options) in NETWORKS.items():
        network = getattr(networks, kind)(
            16, 3, 3, label_dim=CLASSES, model_channels=32, num_blocks=1,
            **options,
        ).eval()  # fmt: skip
        shapes = {}
        with torch.no_grad():
            for key, value in network.state_dict().items():
                if "resample_filter" not in key:
                    shapes[key] = tuple(value.shape)
                    drawn = weights.draw(key, value.shape)
                    value.copy_(torch.from_numpy(drawn))
            y = network(
                torch.from_numpy(x.transpose(0, 3, 1, 2).copy()),
                torch.from_numpy(t.copy()),
                torch.from_numpy(one_hot),
            )
        y = y.numpy().transpose(0, 2, 3, 1)
        np.savez_compressed(
            HERE / f"{name}.npz",
            output=y,
            names=np.array(list(shapes)),
            shapes=np.array([str(s) for s in shapes.values()]),
        )
        print(name, y.shape, float(np.abs(y).mean()), len(shapes))


if __name__ == "__main__":
    main(*sys.argv[1:])
