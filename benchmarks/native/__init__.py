"""Flow matching by hand, in the backend's own words.

One module for a backend and a network, `jax_mlp` or `tensorflow_dit`, each
with `loss(weights, data, labels, noise, t)`, the mean loss, of {path: array},
and `velocity(weights, x, t, labels)`; one for a backend's training loop,
`jax_training`, with `trainer`. tests/benchmarks_test.py holds their numbers
against the library's.
"""

import importlib

import keras
import numpy as np


def module(what):
    """The peer of the present backend: "mlp", "dit" or "training".

    Raises:
        ImportError: if it was not written for this backend.
    """
    return importlib.import_module(
        f"benchmarks.native.{keras.backend.backend()}_{what}"
    )


def weights_of(network):
    """{path: array} of a Keras network."""
    return {
        v.path.removeprefix(f"{network.name}/"): np.array(v)
        for v in network.weights
    }


def trained(network):
    """The paths of the weights that are trained."""
    return [
        v.path.removeprefix(f"{network.name}/")
        for v in network.trainable_weights
    ]
