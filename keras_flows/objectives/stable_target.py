"""Stable targets (arXiv 2302.00670): what x_t says about data and noise."""

import keras
from keras import ops

from keras_flows.ops import bcast_right
from keras_flows.ops import exact_matmul
from keras_flows.ops import sum_flat

# Above this the exponents would lose their digits in float32; the noise is
# then far below the spread of the data, and each example stands for itself.
# The test may look at t and the whole batch, but not at the row's own example,
# or the mean would change.
_MAX_EXPONENT = 1e5


def stable_endpoints(model, x, n, t, condition=None):
    """(E[x | x_t], E[n | x_t]) where x is one of the batch, each (B, ...).

    Which example of the batch an x_t was made from is forgotten and inferred,

        w_ij ~ exp(-|x_t_i - alpha x_j - sigma n_mu|^2
                   / (2 sigma^2 n_sigma^2)),   E[x | x_t_i] = sum_j w_ij x_j,

    and E[n | x_t] follows from x_t = alpha x + sigma n. Examples of a batch
    being exchangeable, that is a conditional mean given x_t and the batch
    (Rao-Blackwell): every target that is linear in (x, n) keeps its mean
    given x_t, exactly at any B, since the row's own example is among the
    candidates. The target's variance falls, much in few dimensions, hardly in
    many, where one weight is 1 but next to pure noise; what remains is the
    sampling of examples. The cost is two products of B x B by B x elements, in
    float64 on TensorFlow and PyTorch: leave it off for images.

    Args:
        model: the interface, for its interpolant and its noise.
        x, n: data and noise, (B, ...).
        t: (B,).
        condition: None, or integer labels (B,): only examples of the same
            label are taken for one another.

    Raises:
        ValueError: if the condition is anything else.
    """
    path = model.interpolant
    rows = ops.reshape(x, (ops.shape(x)[0], -1))
    rows = rows - ops.mean(rows, axis=0, keepdims=True)
    noise = ops.reshape(n, ops.shape(rows)) - model.n_mu
    # In units of the noise: |noise + ratio (x_i - x_j)|^2 / (2 n_sigma^2).
    sigma = ops.maximum(path.sigma(t), keras.config.epsilon())
    ratio = path.alpha(t) / sigma
    size = sum_flat(ops.square(rows))
    apart = ops.square(ratio / model.n_sigma) * ops.max(size) > _MAX_EXPONENT
    ratio = ops.where(apart, 0.0, ratio)
    scale = ops.expand_dims(ratio, 1)
    exponent = (
        scale * exact_matmul(noise + scale * rows, ops.transpose(rows))
        - 0.5 * ops.square(scale) * ops.expand_dims(size, 0)
    ) / model.n_sigma**2
    same = _same_label(condition)
    if same is not None:
        exponent = ops.where(same, exponent, -1e30)
    shift = exact_matmul(ops.softmax(exponent, axis=-1), rows) - rows
    shift = ops.where(ops.expand_dims(apart, 1), 0.0, shift)
    shift = ops.reshape(shift, ops.shape(x))
    return x + shift, n - bcast_right(ratio, x) * shift


def _same_label(condition):
    """(B, B), whether two rows have the same label; None without labels."""
    if condition is None:
        return None
    shape = getattr(condition, "shape", ())
    if len(shape) != 1 or "int" not in str(condition.dtype):
        raise ValueError(
            "`stable_target=True` needs data without a condition, or with "
            f"integer labels of shape (B,). Received: {condition!r}."
        )
    return ops.equal(
        ops.expand_dims(condition, 1), ops.expand_dims(condition, 0)
    )
