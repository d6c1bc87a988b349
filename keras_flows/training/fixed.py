"""Layers whose variables no `trainable` flag reaches."""

import keras
from keras import ops

from keras_flows.networks import clone_network


class Fixed(keras.layers.Layer):
    """A layer that is never trainable, nor is anything inside it.

    `model.trainable = True` reaches every layer of a model; here it stops.
    """

    def __init__(self, name=None):
        super().__init__(trainable=False, name=name)

    @property
    def trainable(self):
        """False."""
        return False

    @trainable.setter
    def trainable(self, value):
        pass


class Snapshot(Fixed):
    """A copy of a network, taken anew when asked.

    Args:
        network: the network to copy.
        name: of the layer and the copy's name scope.
    """

    def __init__(self, network, name):
        super().__init__(name=name)
        self.copied = clone_network(network, name)
        self.built = True

    def network(self):
        """The copy."""
        return self.copied

    def take(self, network, where):
        """Copy the network's weights where the boolean tensor is true."""
        for old, new in zip(
            self.copied.variables, network.variables, strict=True
        ):
            old.assign(ops.where(where, ops.cast(new, old.dtype), old.value))
