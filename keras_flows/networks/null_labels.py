"""The condition that stands for none, and dropping to it by example.

A null label is a number, or for a dict of conditions a dict of numbers with
the same keys. A number fills every element of every part.
"""

import numbers

from keras import ops
from keras import tree

from keras_flows.ops import bcast_right


def null_label_of(network, given=None):
    """The network's own null label, or the one given for one without.

    Raises:
        ValueError: if `given` is no number or dict of numbers, or another than
            the network's.
    """
    own = getattr(network, "null_label", None)
    parts = given.values() if isinstance(given, dict) else [given]
    if given is not None and not all(
        isinstance(part, numbers.Real) and not isinstance(part, bool)
        for part in parts
    ):
        raise ValueError(
            "`null_label` must be a number, or a dict of numbers for a "
            f"condition that is a dict. Received: {given!r}."
        )
    if own is not None and given is not None and own != given:
        raise ValueError(
            f"`null_label` must be that of `network` ('{network.name}'), "
            f"{own}, or be left out. Received: {given!r}."
        )
    return given if own is None else own


def null_like(condition, null_label):
    """The null condition, of the shapes and dtypes of `condition`.

    Raises:
        ValueError: if a `null_label` that is a dict has other keys.
    """
    if not isinstance(null_label, dict):
        return tree.map_structure(
            lambda part: ops.full_like(part, null_label), condition
        )
    if not isinstance(condition, dict) or set(condition) != set(null_label):
        keys = sorted(condition) if isinstance(condition, dict) else condition
        raise ValueError(
            "`null_label` must have the keys of the condition. Received "
            f"{sorted(null_label)} beside {keys!r}."
        )
    return {
        key: null_like(part, null_label[key]) for key, part in condition.items()
    }


def where(drop, null, condition):
    """`null` in the rows that `drop` marks, (B,) booleans."""
    return tree.map_structure(
        lambda null, part: ops.where(bcast_right(drop, part), null, part),
        null,
        condition,
    )


def dropped(condition, null_label, ratio, uniform):
    """The condition without that of a share of the examples, all their parts.

    Args:
        condition: tensor or structure with a first axis B, or None.
        null_label: None, where nothing is dropped, or as above.
        ratio, uniform: see `drawn`.
    """
    if condition is None or null_label is None or ratio == 0:
        return condition
    null = null_like(condition, null_label)
    return where(drawn(condition, ratio, uniform), null, condition)


def drawn(condition, ratio, uniform):
    """Which examples of a batch lose their whole condition, (B,) booleans.

    Args:
        condition: tensor or structure with a first axis B.
        ratio: their share.
        uniform: function of a shape to uniform draws of [0, 1).
    """
    return uniform(ops.shape(tree.flatten(condition)[0])[:1]) < ratio
