"""Networks of files whose data lie at t = 1, turned to have them at t = 0.

On the path x_t = t x + (1 - t) n a published network gives v = x - n; ours
has the same states at 1 - t, and n - x there:
ours(x, t) = -published(x, 1 - t).
"""

import keras
import numpy as np

from keras_flows.converters.assign import values_of
from keras_flows.converters.assign import variables_of

HIDDEN = "t_embedding/hidden/kernel"
OUT = ("final/out/kernel", "final/out/bias")


def reverse(network):
    """Weights of (x, t) -> -network(x, 1 - t), exactly; its own inverse.

    cos w(1 - t) = cos w cos wt + sin w sin wt and sin w(1 - t) =
    sin w cos wt - cos w sin wt are linear in the features of t, so the layer
    after them takes the change up; the last layer takes up the sign.

    Args:
        network: one that begins its times with a `TimestepEmbedding` and
            ends in a `FinalLayer`.

    Returns:
        dict of path to array, as `assign` takes it.
    """
    return values_of(network) | _changed(network)


def turn(network):
    """Give a network the weights of `reverse`, those that differ alone."""
    variables = variables_of(network)
    for path, value in _changed(network).items():
        variables[path].assign(value)


def _changed(network):
    """{path: array} of what differs in the reverse."""
    variables = variables_of(network)
    values = {
        path: keras.ops.convert_to_numpy(variables[path])
        for path in (HIDDEN, *OUT)
    }
    config = network.get_layer("t_embedding").get_config()
    half = config["num"] // 2
    w = config["max_period"] ** (-np.arange(half) / half)
    c, s = np.cos(w)[:, None], np.sin(w)[:, None]
    of_cos, of_sin = np.split(values[HIDDEN].astype("float64"), 2)
    values[HIDDEN] = np.concatenate(
        [c * of_cos + s * of_sin, s * of_cos - c * of_sin]
    ).astype("float32")
    return values | {path: -values[path] for path in OUT}


def reversed_call(network):
    """The function of a dict of inputs that gives -network(x, 1 - t)."""
    return lambda inputs: -network(inputs | {"t": 1.0 - inputs["t"]})
