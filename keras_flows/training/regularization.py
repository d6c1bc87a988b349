"""What regularisers and `add_loss` of the trained networks give."""

from keras import ops

from keras_flows.ops import float_dtype
from keras_flows.ops import mean_losses


def regularization(variables, notes):
    """What is added to the loss of a batch, a scalar; None where nothing is.

    Args:
        variables: those that train, each with its regulariser once. Teachers
            and averages have none among them.
        notes: of `gather("losses")`, from the networks' calls.
    """
    terms = [
        v.regularizer(ops.cast(v, float_dtype()))
        for v in variables
        if v.regularizer is not None
    ]
    called = mean_losses(notes)
    if called is not None:
        terms.append(called)
    return ops.cast(sum(terms), float_dtype()) if terms else None
