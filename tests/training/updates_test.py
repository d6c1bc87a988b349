"""One pass over all weights moves them as Keras's own step does."""

import contextlib

import keras
import numpy as np
import pytest
from keras import layers

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="PyTorch's kernels"
)

NETWORKS = {
    "dense": lambda x: layers.Dense(4)(layers.Dense(8, "tanh")(x)),
    "conv": lambda x: layers.Conv2D(4, 3)(layers.Conv2D(8, 3, 2, "same")(x)),
    "depthwise": lambda x: layers.SeparableConv2D(4, 3)(x),
    "transposed": lambda x: layers.Conv2DTranspose(4, 3, 2)(x),
    "recurrent": lambda x: layers.LSTM(4)(layers.Reshape((64, 3))(x)),
    "normalized": lambda x: layers.LayerNormalization()(layers.Dense(6)(x)),
}
OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(1e-2, epsilon=1e-3),
    "adamw": lambda: keras.optimizers.AdamW(1e-2, weight_decay=0.1),
    "amsgrad": lambda: keras.optimizers.Adam(1e-2, amsgrad=True),
}


def trained(network, optimizer, context):
    """Weights after five steps of Keras's optimizer within a context."""
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 3))
    model = keras.Model(x, NETWORKS[network](x))
    optimizer = OPTIMIZERS[optimizer]()
    optimizer.build(model.trainable_variables)
    data = torch.tensor(
        np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    )
    values = [v.value for v in model.trainable_variables]
    for _ in range(5):
        loss = torch.mean((model(data) - 1.0) ** 2)
        gradients = torch.autograd.grad(loss, values)
        with torch.no_grad(), context(optimizer):
            optimizer.apply(list(gradients))
    return [v.detach().numpy().copy() for v in values]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_one_pass_is_keras_step(network, optimizer):
    from keras_flows.training.torch_updates import fused

    found = trained(network, optimizer, fused)
    expected = trained(
        network, optimizer, lambda optimizer: contextlib.nullcontext()
    )
    # An element that is moved by the gradient of another is off by the
    # learning rate, 1e-2.
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
