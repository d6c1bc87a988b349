"""`generate`: guidance, seeds, EMA weights, one compilation."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_flows as kf


def numpy(x):
    return ops.convert_to_numpy(x)


@keras.saving.register_keras_serializable(package="tests")
class Constant(keras.layers.Layer):
    """x -> label value, so that guidance has a known answer."""

    def call(self, x, label):
        label = ops.cast(label, x.dtype)
        return ops.zeros_like(x) + ops.reshape(label, (-1, 1))


def labelled():
    """A network whose velocity is its label; the null label is 3."""
    inputs = {
        "x": keras.Input((2,), name="x"),
        "t": keras.Input((), name="t"),
        "condition": keras.Input((), dtype="int32", name="condition"),
    }
    # A trainable weight, so that the model is like any other.
    x = keras.layers.Dense(2, kernel_initializer="zeros")(inputs["x"])
    y = Constant()(x, inputs["condition"])
    network = keras.Model(inputs, y)
    network.null_label = 3
    return network


def test_guidance_extrapolates_from_the_null_label():
    model = kf.SiTInterface(labelled(), ema=None)
    noise = np.zeros((4, 2), dtype="float32")
    labels = np.array([0, 1, 2, 1])
    for scale in (1.0, 2.5):
        found = numpy(
            model.generate(
                condition=labels,
                noise=noise,
                num_steps=4,
                guidance_scale=scale,
                sampler="euler",
            )  # fmt: skip
        )
        # dx/dt = 3 + scale (label - 3), from t = 1 to 0.
        expected = -(3.0 + scale * (labels - 3.0))
        np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)


def test_guidance_interval_and_negative_condition():
    model = kf.SiTInterface(labelled(), ema=None)
    noise = np.zeros((1, 2), dtype="float32")
    found = numpy(
        model.generate(
            condition=[1],
            negative_condition=[0],
            noise=noise,
            num_steps=4,
            guidance_scale=3.0,
            guidance_interval=(0.4, 0.8),
            sampler="euler",
        )  # fmt: skip
    )
    # Steps start at f = 1, .75, .5, .25: two are guided, to 0 + 3 (1 - 0).
    np.testing.assert_allclose(found, -(2 * 1.0 + 2 * 3.0) / 4, rtol=1e-5)


def test_same_seed_same_sample_and_batches_join():
    network = kf.networks.MLP(2, width=8, depth=1, two_times=True)
    model = kf.FlowMapInterface(network, "lsd", ema=None)
    one = numpy(model.generate(10, seed=5, num_steps=2))
    np.testing.assert_array_equal(
        one, numpy(model.generate(10, seed=5, num_steps=2))
    )
    assert np.abs(one - numpy(model.generate(10, seed=6, num_steps=2))).max()
    parts = numpy(model.generate(10, seed=5, num_steps=2, batch_size=4))
    np.testing.assert_allclose(parts, one, rtol=1e-5, atol=1e-6)
    noise = np.random.Generator(np.random.Philox(5)).standard_normal(
        (10, 2), dtype="float32"
    )
    np.testing.assert_array_equal(
        one, numpy(model.generate(noise=noise, num_steps=2))
    )


def test_new_weights_need_no_new_compilation():
    network = kf.networks.MLP(2, width=8, depth=1, two_times=True)
    calls = []

    class Counting(kf.samplers.FlowMapJump):
        def step(self, *args):
            calls.append(1)
            return super().step(*args)

    model = kf.FlowMapInterface(network, "lsd", ema=0.5, seed=0)
    model.compile("adam")
    sampler = Counting()
    before = numpy(model.generate(8, seed=0, sampler=sampler, num_steps=1))
    model.fit(
        np.ones((64, 2), dtype="float32"), batch_size=8, verbose=0, epochs=3
    )
    traced = len(calls)
    after = numpy(model.generate(8, seed=0, sampler=sampler, num_steps=1))
    assert np.abs(after - before).max() > 1e-4
    live = numpy(model.generate(8, seed=0, num_steps=1, use_ema=False))
    assert np.abs(after - live).max() > 1e-6
    if keras.backend.backend() != "torch":
        assert len(calls) == traced


def test_two_step_policies_act_as_they_were_trained():
    """With pi = the label-free constant a, mip and tsd return a."""
    network = kf.networks.MLP(3, width=8, depth=1, condition_dim=2)
    output = network.get_layer("output")
    output.kernel.assign(ops.zeros(output.kernel.shape))
    output.bias.assign([1.0, 2.0, 3.0])
    o = np.zeros((5, 2), dtype="float32")
    for objective in ("regression", "straight_flow", "mip", "tsd"):
        model = kf.FlowMapInterface(network, objective, ema=None)
        action = numpy(model.generate(condition=o, seed=0))
        np.testing.assert_allclose(
            action, np.tile([1.0, 2.0, 3.0], (5, 1)), rtol=1e-6
        )


def test_mip_second_call_sees_t_fix_times_the_first():
    """pi(x, t) = x + t: a = t_fix (0 + 0) + t_fix, in both forms."""

    @keras.saving.register_keras_serializable(package="tests")
    class Sum(keras.layers.Layer):
        def call(self, x, t):
            return x + 1.0 + ops.reshape(t, (-1, 1))

    inputs = {
        "x": keras.Input((1,), name="x"),
        "t": keras.Input((), name="t"),
    }
    network = keras.Model(inputs, Sum()(inputs["x"], inputs["t"]))
    for form, expected in (("paper", 0.9 + 1.9), ("public", 1.0 + 1.9)):
        model = kf.FlowMapInterface(
            network, kf.objectives.MIP(form=form), ema=None
        )
        np.testing.assert_allclose(
            numpy(model.generate(2, seed=0)), expected, rtol=1e-6
        )


def test_mean_flow_guidance_formula():
    """omega v + (1 - omega - kappa) u_null + kappa u_cond, inside only."""
    network = labelled()
    two = {
        **network.input,
        "r": keras.Input((), name="r"),
    }
    network = keras.Model(two, network.output)
    network.null_label = 3
    model = kf.MeanFlowInterface(
        network,
        guidance_scale=1.5,
        guidance_mixture_ratio=0.25,
        guidance_t_max=0.5,
        cond_drop_ratio=0.0,
        ema=None,
    )
    x = ops.ones((2, 2))
    n = 3.0 * ops.ones((2, 2))
    v, _, _ = model.insta_velocity(
        x, n, ops.convert_to_tensor([0.25, 0.75]),
        y=ops.convert_to_tensor([1, 1]),
    )  # fmt: skip
    guided = 1.5 * 2.0 + (1 - 1.5 - 0.25) * 3.0 + 0.25 * 1.0
    np.testing.assert_allclose(numpy(v)[:, 0], [guided, 2.0], rtol=1e-6)


class StoppedNormalization(keras.layers.Layer):
    """Stops the gradient of the mean in the variance, as `tf.nn.moments`.

    It is 0 there, but its derivative is not.
    """

    def call(self, x):
        mean = ops.mean(x, axis=-1, keepdims=True)
        square = ops.square(x - ops.stop_gradient(mean))
        variance = ops.mean(square, axis=-1, keepdims=True)
        return (x - mean) * ops.rsqrt(variance + 1e-3)


def test_check_jvp_accepts_layers_and_names_the_one_at_fault():
    inputs = {
        "x": keras.Input((4, 8), name="x"),
        "t": keras.Input((), name="t"),
        "r": keras.Input((), name="r"),
    }

    def network(norm):
        h = keras.layers.Dense(8)(inputs["x"])
        for time in ("t", "r"):
            f = kf.networks.TimeFeatures(2, 3.0)(inputs[time])
            h = h + keras.layers.Reshape((1, 8))(keras.layers.Dense(8)(f))
        h = norm(h)
        h = h + kf.networks.SelfAttention(2)(h)
        return keras.Model(inputs, keras.layers.Dense(8)(h))

    x = np.random.default_rng(0).standard_normal((4, 4, 8)).astype("float32")
    good = kf.FlowMapInterface(
        network(kf.networks.LayerNormalization()), "lsd", ema=None
    )
    assert max(kf.check_jvp(good, x).values()) < 0.02
    bad = kf.FlowMapInterface(
        network(StoppedNormalization(name="stopped")), "lsd", ema=None
    )
    with pytest.raises(ValueError, match="(?s)at fault.*stopped"):
        kf.check_jvp(bad, x, tolerance=0.01)


def test_check_jvp_refuses_half_precision():
    """Differences drown in it: errors of .8 for derivatives that are right."""
    network = kf.networks.DiT(
        (4, 4, 2), 2, 16, 1, 2, two_times=True, dtype="mixed_bfloat16"
    )
    model = kf.FlowMapInterface(network, "lsd", ema=None)
    with pytest.raises(ValueError, match="half precision.*dtype='float32'"):
        kf.check_jvp(model, np.zeros((2, 4, 4, 2), "float32"))
