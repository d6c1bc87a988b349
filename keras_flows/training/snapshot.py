"""A network as it was at some step."""

from keras import ops

from keras_flows.networks import Fixed
from keras_flows.networks import OtherValues
from keras_flows.networks import fixed_copy


class Snapshot(Fixed):
    """A copy of a network, taken anew when asked; saved with the model.

    Args:
        network: the network to copy.
        name: of the layer and of the copy's name scope.
    """

    def __init__(self, network, name):
        super().__init__(name=name)
        self.copied = fixed_copy(network, name)
        if isinstance(self.copied, OtherValues):
            # It is no layer, whose variables would be among these.
            self.values = list(self.copied.variables)
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
