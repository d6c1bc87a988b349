"""Terms of a loss that are beside its own: what the logs make of them.

A loss is a dict of terms of shape (B,), "loss" first, which is what the
gradient is of. Two kinds of keys are read by the logs and not logged:

- "error": the loss without a weight that depends on the error itself or is
  learned, where there is such a weight. It is what the logs call "loss"; that
  of the gradient is "weighted_loss" there.
- `share_of(term)`: how many rows of the batch the term is of, against how
  many are meant; 1 on average. A term's mean is over the rows that there were.
"""

ERROR = "error"
WEIGHTED = "weighted_loss"


def share_of(term):
    """The key of a term's share."""
    return f"{term}_share"
