"""A network as it was at some step."""

from keras import ops

from keras_flows.networks import Fixed
from keras_flows.networks import OtherValues
from keras_flows.networks import can_take_values
from keras_flows.networks import clone_network


class Snapshot(Fixed):
    """A copy of a network, taken anew when asked; saved with the model.

    Args:
        network: the network to copy.
        name: of the layer and of the copy's name scope.
    """

    def __init__(self, network, name):
        super().__init__(name=name)
        if can_take_values(network):
            self.copied = OtherValues(network, name)
            self.values = list(self.copied.variables)
        else:
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
