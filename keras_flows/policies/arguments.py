"""Arguments of a policy: bounds of actions, the name of a representation."""

from keras_flows.datasets.robots.actions import REPRESENTATIONS
from keras_flows.ops import given


def kind(representation):
    """The name of a representation."""
    names = {kind: name for name, kind in REPRESENTATIONS.items()}
    return names[type(representation)]


def bound(value, dim, argument):
    """A bound of actions as an array, or None."""
    if value is None:
        return None
    found = given.array(argument, value).astype("float32")
    if found.shape not in ((), (dim,)):
        raise ValueError(
            f"`{argument}` must be a number or {dim} of them. Received "
            f"shape: {found.shape}."
        )
    return found


def plain(bound):
    """A bound as JSON has it."""
    return None if bound is None else bound.tolist()
