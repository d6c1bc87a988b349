"""Networks that are exact on Gaussian data, for any interface and path.

Data N(m, s^2), noise N(n_mu, n_sigma^2). Whatever a network has to return is
then affine in what it sees, x: out = gain(t, r) x + offset(t, r). `Exact`
holds these two in closed form; a network is a functional Keras model around
it, so that holders can copy, tap and save it like any other.

While calls are recorded (`recording`), times are read on the host and the two
coefficients are computed in float64; elsewhere in `keras.ops`.
"""

import contextlib
import dataclasses
import math

import keras
import numpy as np
from keras import ops
from laws import MEAN
from laws import NULL_LABEL
from laws import NULL_MEAN
from laws import PATHS
from laws import START_MEAN
from laws import START_STD
from laws import STD

# Calls.


@dataclasses.dataclass
class Call:
    """One call of a network: its layer, its times, and the batch's rows."""

    layer: object
    t: np.ndarray
    r: np.ndarray | None
    rows: int


# An adaptive solver may go astray.
MOST_CALLS = 1000
_RECORD = {"calls": None, "host": False}


@contextlib.contextmanager
def eagerly():
    """Run what would be compiled op by op, so that times can be read."""
    backend = keras.backend.backend()
    with contextlib.ExitStack() as stack:
        if backend == "jax":
            import jax

            stack.enter_context(jax.disable_jit())
        elif backend == "tensorflow":
            import tensorflow as tf

            tf.config.run_functions_eagerly(True)
            stack.callback(tf.config.run_functions_eagerly, False)
        yield


@contextlib.contextmanager
def recording(host=True):
    """The list of `Call`s made inside.

    Args:
        host: whether coefficients are computed on the host, for what takes no
            derivative by time. Otherwise calls inside such a derivative, of
            which nothing can be read, are left out.
    """
    _RECORD.update(calls=[], host=host)
    try:
        with eagerly():
            yield _RECORD["calls"]
    finally:
        _RECORD.update(calls=None, host=False)


def _host(x):
    """A NumPy copy in float64, or None where there is no number."""
    if x is None:
        return None
    try:
        return np.asarray(ops.convert_to_numpy(x), dtype="float64")
    except Exception:  # whatever a backend says of a tracer
        return None


# Networks.


@dataclasses.dataclass
class Affine:
    """gain x + offset, of anything that adds and multiplies."""

    gain: object
    offset: object

    def __add__(self, other):
        if not isinstance(other, Affine):
            other = Affine(0.0, other)
        return Affine(self.gain + other.gain, self.offset + other.offset)

    def __mul__(self, factor):
        return Affine(self.gain * factor, self.offset * factor)

    def __sub__(self, other):
        return self + other * -1.0

    def __truediv__(self, divisor):
        return self * (1.0 / divisor)


@keras.saving.register_keras_serializable("matrix")
class Exact(keras.layers.Layer):
    """What a network returns on Gaussian data.

    Args:
        path: key of `PATHS`, or a base and gamma of a bridge.
        predicts: of the data at x_t

            - "mean": E[x | x_t], of denoisers and velocities;
            - "end": where the flow ends, of consistency models and
              generators;
            - "step": what makes one DDIM step to the next time of `grid`
              exact, of progressive students;

            or "map", the average velocity from t to r; or, of a bridge,
            "bridge_velocity" and "bridge_noise".
        form: what the network makes of it and how its inputs are scaled:
            "velocity", "data", "edm", "eps", "x0", "v", "boundary" (of
            consistency models) or "trig" (of sCM).
        x_sigma: the interface's.
        grid: times from noise to data, of "step".
        noise: (n_mu, n_sigma).
    """

    def __init__(self, path, predicts="mean", form="velocity", x_sigma=0.5,
                 grid=None, noise=(0.0, 1.0), **kwargs):  # fmt: skip
        super().__init__(**kwargs)
        self.on, self.predicts, self.form = path, predicts, form
        self.x_sigma, self.grid, self.noise = x_sigma, grid, tuple(noise)
        if path in PATHS:
            self.known = PATHS[path].path
        self.built = True

    def get_config(self):
        return {
            **super().get_config(),
            "path": self.on,
            "predicts": self.predicts,
            "form": self.form,
            "x_sigma": self.x_sigma,
            "grid": self.grid,
            "noise": self.noise,
        }

    def compute_output_shape(self, inputs):
        return inputs["x"]

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs["x"].shape, dtype=inputs["x"].dtype)

    def call(self, inputs):
        x, t, r = inputs["x"], inputs["t"], inputs.get("r")
        label, guidance = inputs.get("condition"), inputs.get("guidance")
        calls, xp = _RECORD["calls"], ops
        if calls is not None:
            if _RECORD["host"]:
                xp = np
            times = [_host(v) for v in (t, r)]
            if times[0] is not None:
                seen = [v if v is None else self._time(v, np) for v in times]
                calls.append(Call(self, *seen, x.shape[0]))
                if len(calls) > MOST_CALLS:
                    raise AssertionError(f"more than {MOST_CALLS} calls")
            if xp is np:
                # A sampler's times are the same for all rows.
                t, r = (
                    v if v is None or np.ptp(v) > 0 else v[:1] for v in times
                )
                label, guidance = _host(label), _host(guidance)
        rank = len(x.shape) - 1

        def column(v):
            return v if v is None else xp.reshape(v, (-1, *(1,) * rank))

        t, r = (v if v is None else column(self._time(v, xp)) for v in (t, r))
        mean = self._mean(column(label), column(guidance), xp)
        out = self._output(t, r, mean, xp)
        gain, offset = out.gain, out.offset
        if xp is np:
            gain, offset = (
                ops.convert_to_tensor(np.asarray(v, "float32"))
                for v in (gain, offset)
            )
        y = gain * x + offset
        if "features" in inputs:
            # So that the layers before are part of the network.
            y = y + 0.0 * ops.mean(inputs["features"])
        return y

    def _constant(self, value, xp):
        value = np.asarray(value, "float64")
        return value if xp is np else ops.convert_to_tensor(value, "float32")

    def _mean(self, label, guidance, xp):
        """The mean of the data, under a label and a scale of guidance."""
        mean, null = (self._constant(v, xp) for v in (MEAN, NULL_MEAN))
        if label is None:
            return mean
        if xp is ops:
            label = ops.cast(label, "float32")
        null_share = label / float(NULL_LABEL)
        scale = 1.0 if guidance is None else guidance
        return null + (1.0 - null_share) * scale * (mean - null)

    def _time(self, seen, xp):
        """The time from what the network sees of it."""
        if self.form == "edm" or (self.form == "boundary" and self.on == "ve"):
            return xp.exp(4.0 * seen)
        if self.form in ("eps", "x0", "v"):
            return (seen + 1.0) / PATHS[self.on].chain
        return seen

    def _moments(self, t, mean, xp):
        """alpha, sigma, mean and variance at t."""
        a, s = self.known.alpha(t, xp), self.known.sigma(t, xp)
        std, (n_mu, n_sigma) = self._constant(STD, xp), self.noise
        var = (a * std) ** 2 + (s * n_sigma) ** 2
        return a, s, a * mean + s * n_mu, var

    def _rates(self, t, xp):
        if xp is np:
            return self.known.alpha_dot(t), self.known.sigma_dot(t)
        return self.known.slopes(t, t)

    def _output(self, t, r, mean, xp):
        if self.predicts.startswith("bridge"):
            return self._bridge(t, mean, xp)
        if self.predicts == "map":
            return self._average(t, t if r is None else r, mean, xp)
        a, s, mu, var = self._moments(t, mean, xp)
        x_t = Affine(1.0, 0.0)
        data, noise = self._predicted(x_t, t, a, s, mu, var, mean, xp)
        return self._in_form(x_t, data, noise, t, a, s, xp)

    def _predicted(self, x_t, t, a, s, mu, var, mean, xp):
        """(data, noise) as `predicts` says, alpha data + sigma noise = x_t."""
        away = x_t - mu
        if self.predicts == "mean":
            std, (n_mu, n_sigma) = self._constant(STD, xp), self.noise
            data = away * (a * std**2 / var) + mean
            return data, away * (s * n_sigma**2 / var) + n_mu
        if self.predicts == "end":
            end = PATHS[self.on].t_last
            a_r, _, mu_r, var_r = self._moments(
                self._constant(end, xp), mean, xp
            )
            data = (away * xp.sqrt(var_r / var) + mu_r) / a_r
        else:
            grid = self._constant(self.grid, xp)
            index = xp.argmin(
                xp.abs(xp.expand_dims(grid[:-1], 0) - xp.reshape(t, (-1, 1))),
                axis=1,
            )
            r = xp.reshape(xp.take(grid, index + 1), t.shape)
            a_r, s_r, mu_r, var_r = self._moments(r, mean, xp)
            x_r = away * xp.sqrt(var_r / var) + mu_r
            kept = s_r / s
            data = (x_r - x_t * kept) / (a_r - a * kept)
        least = 1e-12 if xp is np else 1e-7
        return data, (x_t - data * a) / xp.maximum(s, least)

    def _in_form(self, x_t, data, noise, t, a, s, xp):
        """The output, as an affine function of what the network sees."""
        sd = self.x_sigma
        least = 1e-12 if xp is np else 1e-7
        if self.form in ("data", "x0"):
            return data
        if self.form == "eps":
            return noise
        if self.form == "v":
            return noise * a - data * s
        if self.form == "velocity":
            a_dot, s_dot = self._rates(t, xp)
            return data * a_dot + noise * s_dot
        if self.form == "trig":
            sin, cos = xp.maximum(xp.sin(t), least), xp.cos(t)
            out, c_in = (x_t * cos - data) / (sin * sd), 1.0 / sd
        elif self.form == "edm":
            total = t**2 + sd**2
            c_in = 1.0 / xp.sqrt(total)
            out = (data - x_t * (sd**2 / total)) / (t * sd * c_in)
        else:
            last = self._constant(PATHS[self.on].t_last, xp)
            end = self.known.sigma(last, xp) / self.known.alpha(last, xp)
            m = xp.maximum(s - a * end, least)
            c_in = 1.0 / xp.sqrt((a * sd) ** 2 + s**2)
            c_skip = a * sd**2 / (m**2 + (a * sd) ** 2)
            out = (data - x_t * c_skip) / (sd * m * c_in)
        return Affine(out.gain / c_in, out.offset)

    def _average(self, t, r, mean, xp):
        """(X_{t->r}(x) - x) / (r - t), the velocity where r = t."""
        a_t, s_t, mu, var_t = self._moments(t, mean, xp)
        a_r, s_r, _, var_r = self._moments(r, mean, xp)
        if xp is np:
            gap = np.where(r == t, 1.0, r - t)
            rates = self._rates(t, np)
            a_slope, s_slope = (
                np.where(r == t, rate, (end - start) / gap)
                for rate, start, end in zip(rates, (a_t, s_t), (a_r, s_r))
            )
        else:
            a_slope, s_slope = self.known.slopes(t, r)
        std, (n_mu, n_sigma) = self._constant(STD, xp), self.noise
        # Slopes of the mean and of the variance, which do not cancel.
        mean_slope = a_slope * mean + s_slope * n_mu
        var_slope = (a_r + a_t) * a_slope * std**2 + (
            s_r + s_t
        ) * s_slope * n_sigma**2
        root_t, root_r = xp.sqrt(var_t), xp.sqrt(var_r)
        stretch = var_slope / ((root_r + root_t) * root_t)
        return (Affine(1.0, 0.0) - mu) * stretch + mean_slope

    def _bridge(self, t, mean, xp):
        """E[alpha' x_1 + sigma' x_0 | x_t] or E[z | x_t]; linear base."""
        gamma = {
            "none": 0.0 * t,
            "sine": xp.sin(math.pi * t) ** 2,
            "brownian": xp.sqrt(t * (1.0 - t)),
        }[self.on]
        std, m_0, s_0 = (
            self._constant(v, xp) for v in (STD, START_MEAN, START_STD)
        )
        var = (t * std) ** 2 + ((1.0 - t) * s_0) ** 2 + gamma**2
        away = Affine(1.0, 0.0) - (t * mean + (1.0 - t) * m_0)
        if self.predicts == "bridge_noise":
            return away * (gamma / var)
        x_1 = away * (t * std**2 / var) + mean
        x_0 = away * ((1.0 - t) * s_0**2 / var) + m_0
        return x_1 - x_0


def network(path, predicts="mean", form="velocity", *, shape=(2,), labels=False,
            guidance=False, observations=None, tokens=False, name=None,
            **options):  # fmt: skip
    """A functional network around `Exact`.

    Args:
        path, predicts, form, **options: see `Exact`.
        shape: of an example; the law is that of its last axis, of two.
        labels: whether it takes labels; 1 is the null label.
        guidance: whether it takes the scale of guidance.
        observations: shape of a condition that changes nothing, or None.
        tokens: whether it has layers "block_0" and "block_1" of features.
    """
    inputs = {"x": keras.Input(shape, name="x"), "t": keras.Input((), name="t")}
    if predicts == "map":
        inputs["r"] = keras.Input((), name="r")
    if labels:
        inputs["condition"] = keras.Input((), dtype="int32", name="condition")
    if guidance:
        inputs["guidance"] = keras.Input((), name="guidance")
    given = dict(inputs)
    features = inputs["x"]
    if observations is not None:
        inputs["condition"] = keras.Input(observations, name="condition")
        features = keras.layers.Flatten()(inputs["condition"])
    if tokens:
        features = keras.layers.Reshape((2, -1), name="tokens")(features)
        for i in range(2):
            features = keras.layers.Dense(4, "tanh", name=f"block_{i}")(
                features
            )
    if tokens or observations is not None:
        given["features"] = features
    layer = Exact(path, predicts, form, **options, name="exact")
    model = keras.Model(inputs, layer(given), name=name)
    if labels:
        model.null_label = NULL_LABEL
    return model


def exact_layer(model):
    """The `Exact` of a network."""
    return model.get_layer("exact")
