"""Arguments of a policy: bounds of actions, the name of a representation."""

from keras_flows.datasets.robots.actions import REPRESENTATIONS
from keras_flows.datasets.robots.actions import ActionRepresentation
from keras_flows.datasets.robots.actions import action_representation
from keras_flows.ops import given


def kind(representation):
    """The name of a representation."""
    names = {kind: name for name, kind in REPRESENTATIONS.items()}
    return names[type(representation)]


def represented(value):
    """The `ActionRepresentation` of a name, of a config, or as it is."""
    if isinstance(value, dict):
        return action_representation(**value)
    if not isinstance(value, ActionRepresentation):
        given.choice("representation", value, sorted(REPRESENTATIONS))
    return action_representation(value)


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
