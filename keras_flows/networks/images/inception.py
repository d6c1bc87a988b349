"""The Inception network of the FID, as a functional Keras model.

TensorFlow's inception-2015-12-05 graph (arXiv 1512.00567, 1706.08500) as
pytorch-fid and ADM's evaluator run it: 1,008 logits, average pools that leave
the padding out of their count, and a max pool in the last block.
"""

from __future__ import annotations

import typing

import keras
import numpy as np

from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from typing import Any

NUM_LOGITS = 1008
# Layers are called by the names of the published state, "." written "-".
SEPARATOR = "-"


class _Block:
    """Makes the convolutions of one block, each named `block-branch`."""

    def __init__(self, name=None):
        self.prefix = f"{name}{SEPARATOR}" if name else ""

    def conv(self, x, branch, filters, kernel, strides=1, padding="same"):
        """Convolution, batch normalisation (epsilon 0.001) and ReLU."""
        name = f"{self.prefix}{branch}{SEPARATOR}"
        x = keras.layers.Conv2D(
            filters,
            kernel,
            strides,
            padding,
            data_format="channels_last",
            use_bias=False,
            kernel_initializer="zeros",
            dtype="float32",
            name=f"{name}conv",
        )(x)
        x = keras.layers.BatchNormalization(
            epsilon=1e-3, dtype="float32", name=f"{name}bn"
        )(x)
        return keras.layers.ReLU(dtype="float32")(x)

    def chain(self, x, branch, specs, first=1):
        """Convolutions `branch_1`, `branch_2`, ... of (filters, kernel)."""
        for index, spec in enumerate(specs, first):
            x = self.conv(x, f"{branch}_{index}", *spec)
        return x

    def pool(self, x, filters, kind):
        """3 x 3 pool of stride 1, then a 1 x 1 convolution."""
        return self.conv(kind(x, 1, "same"), "branch_pool", filters, 1)


def _max_pool(x, strides, padding):
    return keras.layers.MaxPooling2D(
        3, strides, padding, data_format="channels_last", dtype="float32"
    )(x)


def _average_pool(x, strides, padding):
    return keras.layers.AveragePooling2D(
        3, strides, padding, data_format="channels_last", dtype="float32"
    )(x)


def _join(*branches):
    return keras.layers.Concatenate(axis=-1, dtype="float32")(list(branches))


def _block_a(x, name, pool):
    block = _Block(name)
    return _join(
        block.conv(x, "branch1x1", 64, 1),
        block.chain(x, "branch5x5", [(48, 1), (64, 5)]),
        block.chain(x, "branch3x3dbl", [(64, 1), (96, 3), (96, 3)]),
        block.pool(x, pool, _average_pool),
    )


def _block_b(x, name):
    block = _Block(name)
    down = (2, "valid")
    return _join(
        block.conv(x, "branch3x3", 384, 3, *down),
        block.chain(x, "branch3x3dbl", [(64, 1), (96, 3), (96, 3, *down)]),
        _max_pool(x, *down),
    )


def _block_c(x, name, c):
    block = _Block(name)
    row, column = (1, 7), (7, 1)
    return _join(
        block.conv(x, "branch1x1", 192, 1),
        block.chain(x, "branch7x7", [(c, 1), (c, row), (192, column)]),
        block.chain(
            x,
            "branch7x7dbl",
            [(c, 1), (c, column), (c, row), (c, column), (192, row)],
        ),
        block.pool(x, 192, _average_pool),
    )


def _block_d(x, name):
    block = _Block(name)
    down = (2, "valid")
    return _join(
        block.chain(x, "branch3x3", [(192, 1), (320, 3, *down)]),
        block.chain(
            x,
            "branch7x7x3",
            [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, *down)],
        ),
        _max_pool(x, *down),
    )


def _block_e(x, name, kind):
    block = _Block(name)
    row, column = (1, 3), (3, 1)
    single = block.conv(x, "branch3x3_1", 384, 1)
    double = block.chain(x, "branch3x3dbl", [(448, 1), (384, 3)])
    return _join(
        block.conv(x, "branch1x1", 320, 1),
        block.conv(single, "branch3x3_2a", 384, row),
        block.conv(single, "branch3x3_2b", 384, column),
        block.conv(double, "branch3x3dbl_3a", 384, row),
        block.conv(double, "branch3x3dbl_3b", 384, column),
        block.pool(x, 192, kind),
    )


@checked(size=SIZE)
def InceptionV3(size: int = 299, name: str = "inception_v3") -> Any:
    """The FID's Inception.

    Input: images (B, size, size, 3) in [-1, 1]. Output: a dict of "features"
    (B, 2048), the mean over space of the last block ("pool3"), and "logits"
    (B, 1008). float32 under any policy. It is there to be given a state
    (`load_inception_state`): its kernels are 0 until then.

    Args:
        size: height and width of the images, at least 75.
        name: name of the model.
    """
    images = keras.Input((size, size, 3), name="images", dtype="float32")
    stem = _Block()
    x = stem.conv(images, "Conv2d_1a_3x3", 32, 3, 2, "valid")
    x = stem.conv(x, "Conv2d_2a_3x3", 32, 3, 1, "valid")
    x = stem.conv(x, "Conv2d_2b_3x3", 64, 3)
    x = _max_pool(x, 2, "valid")
    x = stem.conv(x, "Conv2d_3b_1x1", 80, 1)
    x = stem.conv(x, "Conv2d_4a_3x3", 192, 3, 1, "valid")
    x = _max_pool(x, 2, "valid")
    for block, pool in (("5b", 32), ("5c", 64), ("5d", 64)):
        x = _block_a(x, f"Mixed_{block}", pool)
    x = _block_b(x, "Mixed_6a")
    for block, c in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        x = _block_c(x, f"Mixed_{block}", c)
    x = _block_d(x, "Mixed_7a")
    x = _block_e(x, "Mixed_7b", _average_pool)
    x = _block_e(x, "Mixed_7c", _max_pool)
    features = keras.layers.GlobalAveragePooling2D(
        data_format="channels_last", dtype="float32"
    )(x)
    logits = keras.layers.Dense(
        NUM_LOGITS, kernel_initializer="zeros", dtype="float32", name="fc"
    )(features)
    model = keras.Model(
        images, {"features": features, "logits": logits}, name=name
    )
    model.trainable = False
    return model


def load_inception_state(network, state):
    """Give `InceptionV3` the weights of a pytorch-fid state.

    Args:
        network: what `InceptionV3` returned.
        state: dict of name to array, as in pytorch-fid's `state_dict`
            (kernels (out, in, height, width)).

    Raises:
        ValueError: if names are missing or unknown, or a shape differs.
    """
    targets = {}
    for layer in network.layers:
        prefix = layer.name.replace(SEPARATOR, ".")
        if isinstance(layer, keras.layers.BatchNormalization):
            targets[f"{prefix}.weight"] = layer.gamma
            targets[f"{prefix}.bias"] = layer.beta
            targets[f"{prefix}.running_mean"] = layer.moving_mean
            targets[f"{prefix}.running_var"] = layer.moving_variance
        elif layer.weights:
            targets[f"{prefix}.weight"] = layer.kernel
            if layer.use_bias:
                targets[f"{prefix}.bias"] = layer.bias
    # PyTorch counts its batches; nothing is computed with that.
    given = {n for n in state if not n.endswith(".num_batches_tracked")}
    missing = sorted(set(targets) - given)
    unknown = sorted(given - set(targets))
    if missing or unknown:
        raise ValueError(
            "`state` is not that of pytorch-fid's Inception. Missing: "
            f"{len(missing)} {missing[:3]}. Unknown: {len(unknown)} "
            f"{unknown[:3]}. Take pt_inception-2015-12-05-6726825d.pth or a "
            "copy of it."
        )
    for name, variable in targets.items():
        value = np.asarray(state[name], dtype="float32")
        if value.ndim == 4:
            value = value.transpose(2, 3, 1, 0)
        elif value.ndim == 2:
            value = value.T
        if value.shape != tuple(variable.shape):
            raise ValueError(
                f"`state[{name!r}]` must have the shape "
                f"{tuple(variable.shape)} once channels are last. "
                f"Received: {value.shape}."
            )
        variable.assign(value)
