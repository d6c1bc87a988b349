"""Fake networks and discriminators: what judges a generator's samples."""

from keras_flows.networks import clone_network
from keras_flows.networks import contract
from keras_flows.ops import given


def check_discriminator(discriminator, teacher, student, regression_weight):
    """Refuse a discriminator that is no network of its own, or has no data."""
    if discriminator is None:
        return
    if regression_weight:
        raise ValueError(
            "`regression_weight` wants batches of the teacher's samples "
            "and `discriminator` batches of data: give one of them."
        )
    given.having("discriminator", discriminator, ("built",), "a keras.Model")
    if discriminator in (teacher.network, student.network):
        raise ValueError(
            "`discriminator` must be a network of its own, not the "
            "teacher's or the student's. A copy of the teacher's will do."
        )
    contract.check_network(
        discriminator, student.takes_r, "the student", parts=None
    )


def trainable_copy(network, name):
    """A copy of a network, frozen or not, that trains."""
    copy = clone_network(network, name)
    copy.trainable = True
    return copy


def for_steps(network, count):
    """[network and its copies], one for each of `count` steps; [] of None."""
    if network is None:
        return []
    copies = [
        trainable_copy(network, f"{network.name}_{step}")
        for step in range(1, count)
    ]
    return [network, *copies]
