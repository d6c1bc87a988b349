"""Directional derivatives inside an objective, by JVP or by differences."""

import keras
from keras import ops

from keras_flows.ops import bcast_right
from keras_flows.ops import given
from keras_flows.ops import jvp
from keras_flows.ops import mean_flat

DERIVATIVES = ("jvp", "finite_difference")


def normalized_tangent(g, c):
    """g / (|g| + c), (B, ...): large tangents lose their variance.

    |g| is the root mean square of an example's elements, so that c means the
    same for data of any size. Source: arXiv 2410.11081, with c = 0.1.
    """
    size = ops.sqrt(mean_flat(ops.square(g)))
    return g / bcast_right(size + c, g)


def check_derivative(derivative):
    """Refuse what is not one of `DERIVATIVES`."""
    given.choice("derivative", derivative, DERIVATIVES)


def directional(fun, primals, tangents, derivative="jvp"):
    """(fun(primals), derivative of fun at primals along tangents).

    `derivative="finite_difference"` costs two calls more and is for
    networks whose kernels have no forward derivative:
    (f(p + h v) - f(p - h v)) / (2 h), h = 1e-3 in float32 and 1e-5 in
    float64 (arXiv 2410.11081 discusses the loss of accuracy).
    """
    if derivative == "jvp":
        return jvp(fun, primals, tangents)
    check_derivative(derivative)
    h = 1e-5 if keras.config.floatx() == "float64" else 1e-3
    pairs = list(zip(primals, tangents, strict=True))
    output = fun(*primals)
    ahead = fun(*(p + h * v for p, v in pairs))
    behind = fun(*(p - h * v for p, v in pairs))
    return output, (ahead - behind) / (2.0 * h)
