"""Write what pytorch-fid's Inception gives for the weights of weights.py.

    python tests/published/inception_reference.py

Needs pytorch-fid and torchvision; see SOURCES.md.
"""

import pathlib

import numpy as np
import torch
import weights

HERE = pathlib.Path(__file__).parent


def main():
    # torchvision of PyPI beside a CPU build of PyTorch lacks its operators,
    # of which Inception uses none; importing it asks for these two.
    operators = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            operators.define(f"{name}(Tensor a, Tensor b, float c) -> Tensor")
    from pytorch_fid import inception as published

    plain = published._inception_v3(
        num_classes=1008, aux_logits=False, weights=None
    )
    shapes = {
        name: tuple(value.shape)
        for name, value in plain.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    state = {
        name: torch.from_numpy(weights.draw_inception(name, shape))
        for name, shape in shapes.items()
    }
    counters = {
        name: value
        for name, value in plain.state_dict().items()
        if name not in shapes
    }
    published.load_state_dict_from_url = lambda *_, **__: state | counters
    image = (weights.photo(299).astype("float32") - 128.0) / 128.0
    x = torch.from_numpy(image.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        logits = published.fid_inception_v3().eval()(x)
        extractor = published.InceptionV3(
            resize_input=False, normalize_input=False
        ).eval()
        features = extractor(x)[0][:, :, 0, 0]
    np.savez_compressed(
        HERE / "inception.npz",
        features=features.numpy(),
        logits=logits.numpy(),
        names=np.array(list(shapes)),
        shapes=np.array([str(s) for s in shapes.values()]),
    )
    for y in (features, logits):
        print(tuple(y.shape), float(y.abs().mean()), float(y.std()))


if __name__ == "__main__":
    main()
