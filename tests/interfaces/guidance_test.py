"""Guidance: off costs nothing, an interval, channels, a weaker model."""

import keras
import numpy as np
import pytest
from helpers.close import close
from keras import ops

import keras_flows as kf

CALLS = {}
LABELS = np.array([0, 1, 2, 1], dtype="int32")
EAGER = keras.backend.backend() == "torch"


def numpy(x):
    return ops.convert_to_numpy(x)


@keras.saving.register_keras_serializable(package="tests")
class Counted(keras.layers.Layer):
    """The identity; notes the batch size of every call (or trace)."""

    def call(self, x):
        CALLS.setdefault(self.name.removeprefix("ema_0_"), []).append(
            x.shape[0]
        )
        return x


def network(name="strong", seed=0, classes=3, dim=4):
    """A labelled network, or one without labels; counts its calls."""
    keras.utils.set_random_seed(seed)
    inputs = {
        "x": keras.Input((dim,), name="x"),
        "t": keras.Input((), name="t"),
    }
    h = Counted(name=name)(inputs["x"])
    h = ops.concatenate([h, ops.expand_dims(inputs["t"], -1)], -1)
    if classes:
        inputs["condition"] = keras.Input((), dtype="int32", name="condition")
        label = keras.layers.Embedding(classes + 1, 4)(inputs["condition"])
        h = ops.concatenate([h, 20.0 * label], -1)
    h = keras.layers.Dense(16, activation="tanh")(h)
    net = keras.Model(inputs, keras.layers.Dense(dim)(h), name=name)
    net.null_label = classes
    CALLS.clear()
    return net


def sit(*args, ema=None, **kwargs):
    return kf.SiTInterface(network(*args, **kwargs), ema=ema, seed=0)


def sample(model, **kwargs):
    kwargs = {"num_steps": 4, "sampler": "euler", "seed": 0, **kwargs}
    return numpy(model.generate(condition=LABELS, **kwargs))


SAMPLERS = {
    "euler": 4,
    "heun": 7,
    "euler_maruyama": 4,
    "ddim": 4,
    "ddpm": 4,
}  # network calls in four steps


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_off_is_bit_identical_and_costs_nothing(sampler):
    model, weak = sit(), sit("weak", 1)
    CALLS.clear()
    plain = sample(model, sampler=sampler)
    calls = len(CALLS["strong"])
    # On PyTorch a graph takes the place of the fourth call of a step.
    assert min(3, SAMPLERS[sampler]) <= calls <= SAMPLERS[sampler] or not EAGER
    for off in (
        {"guidance_scale": 1.0},
        {"guidance_scale": 1.0, "guidance_channels": 2},
        {"guidance_scale": 1.0, "guidance_interval": (0.2, 0.9)},
        {"guidance_scale": 1.0, "guidance_model": weak},
        # Noise fractions on the grid are 1, 0.75, 0.5, 0.25 and 0.
        {"guidance_scale": 3.0, "guidance_interval": (0.3, 0.45)},
        {
            "guidance_scale": 3.0,
            "guidance_interval": (0.3, 0.45),
            "guidance_model": weak,
        },
    ):
        CALLS.clear()
        np.testing.assert_array_equal(
            sample(model, sampler=sampler, **off), plain
        )
        # Compiled before, or on PyTorch some calls still, and never a doubled
        # batch or the weak model.
        assert set(CALLS) <= {"strong"}
        counted = CALLS.get("strong", [])
        assert set(counted) <= {4} and len(counted) <= calls * EAGER
    assert np.abs(sample(model, sampler=sampler, guidance_scale=3.0)
                  - plain).max() > 0.1  # fmt: skip


def test_interval_costs_a_call_inside_only():
    model = sit()
    CALLS.clear()
    sample(model, guidance_scale=3.0, guidance_interval=(0.5, 0.8))
    # Steps start at 1, 0.75, 0.5 and 0.25.
    sizes = CALLS["strong"]
    assert sizes == [4, 8, 8, 4] if EAGER else set(sizes) == {4, 8}
    sample(
        model, guidance_scale=3.0, guidance_interval=(0.7, 0.8), sampler="heun"
    )
    if EAGER:
        # A step of Heun's is guided where either of its calls is.
        assert CALLS["strong"][4:] == [8, 8, 8, 8, 4, 4, 4]


def test_interval_of_a_sampler_that_calls_between_grid_points():
    """Guided steps of the midpoint rule, by hand in Euler's."""

    class Midpoint(kf.samplers.Euler):
        calls = "between"

        def step(self, model, x, t, r, noise, last):
            h = ops.expand_dims(r - t, -1)
            middle = x + 0.5 * h * model.pred(x, t)
            return x + h * model.pred(middle, 0.5 * (t + r))

    model = sit()
    z = np.random.default_rng(0).standard_normal((4, 4)).astype("float32")
    found = sample(
        model, noise=z, num_steps=1, sampler=Midpoint(), guidance_scale=3.0,
        guidance_interval=(0.4, 0.6),
    )  # fmt: skip
    guided = samplers_predictor(model, 3.0)
    x, half = ops.convert_to_tensor(z), 0.5 * ops.ones((4,))
    middle = x - 0.5 * model.pred(x, 2 * half, condition=LABELS)
    expected = x - guided.pred(middle, half)
    close(found, numpy(expected), 5)


def samplers_predictor(model, scale):
    labels, null = (
        kf.samplers.Bound(model, condition=ops.convert_to_tensor(each))
        for each in (LABELS, np.full_like(LABELS, 3))
    )
    return kf.samplers.Guided(labels, null, scale)


def test_channels():
    """One step: the guided channels as with all, the rest as without any."""
    model = sit()
    plain = sample(model, num_steps=1)
    all_of_them = sample(model, num_steps=1, guidance_scale=3.0)
    found = sample(model, num_steps=1, guidance_scale=3.0, guidance_channels=3)
    close(found[:, :3], all_of_them[:, :3], 6)
    close(found[:, 3], plain[:, 3], 6)
    assert np.abs(all_of_them - plain).max(0).min() > 0.1
    # Every method of the predictor, and every channel of the last axis.
    for name in ("pred", "denoise", "pred_and_score"):
        bound = samplers_predictor(model, 3.0)
        x = np.random.default_rng(0).standard_normal((4, 4))
        args = (ops.convert_to_tensor(x.astype("float32")), 0.5 * ops.ones(4))
        whole = keras.tree.flatten(getattr(bound, name)(*args))
        bound.channels = 1
        some = keras.tree.flatten(getattr(bound, name)(*args))
        bound.scale = 1.0
        none = keras.tree.flatten(getattr(bound, name)(*args))
        for w, s, n in zip(whole, some, none, strict=True):
            np.testing.assert_array_equal(numpy(s)[:, :1], numpy(w)[:, :1])
            close(numpy(s)[:, 1:], numpy(n)[:, 1:], 5)


def test_a_weaker_model_leads_away():
    """negative + scale (positive - negative), step by step."""
    model, weak = sit(), sit("weak", 1)
    z = np.random.default_rng(0).standard_normal((4, 4)).astype("float32")
    x = ops.convert_to_tensor(z)
    for t in (1.0, 0.75, 0.5, 0.25):
        at = t * ops.ones((4,))
        a = model.pred(x, at, condition=LABELS)
        b = weak.pred(x, at, condition=LABELS)
        scale = 2.5 if t in (0.75, 0.5) else 1.0
        x = x - 0.25 * (b + scale * (a - b))
    found = sample(
        model, noise=z, guidance_scale=2.5, guidance_interval=(0.4, 0.8),
        guidance_model=weak,
    )  # fmt: skip
    close(found, numpy(x), 5)


def test_the_same_model_under_another_label_is_classifier_free():
    model = sit()
    null = np.full_like(LABELS, 3)
    found = sample(
        model, sampler="ddpm", guidance_scale=2.0, guidance_model=model,
        negative_condition=null,
    )  # fmt: skip
    expected = sample(model, sampler="ddpm", guidance_scale=2.0)
    close(found, expected, 5)


def test_a_guide_without_labels():
    model, weak = sit(), sit("weak", 1, classes=0)
    found = sample(model, num_steps=1, guidance_scale=2.0, guidance_model=weak)
    own = sample(model, num_steps=1)
    other = numpy(weak.generate(4, num_steps=1, sampler="euler", seed=0))
    close(found, 2 * own - other, 5)
    with pytest.raises(ValueError, match="`negative_condition` is left over"):
        sample(
            model, guidance_scale=2.0, guidance_model=weak,
            negative_condition=LABELS,
        )  # fmt: skip
    # And the other way round: nothing says which label.
    with pytest.raises(ValueError, match="`condition` is missing"):
        weak.generate(2, guidance_scale=2.0, guidance_model=model)


def test_training_the_guide_needs_no_new_compilation():
    model, weak = sit(), sit("weak", 1, ema=0.5)
    weak.compile(keras.optimizers.SGD(0.5))
    guided = {"guidance_scale": 2.0, "guidance_model": weak}
    before = sample(model, **guided)
    x = np.random.default_rng(0).standard_normal((16, 4)).astype("float32")
    weak.fit(x, np.arange(16) % 3, epochs=2, batch_size=8, verbose=0)
    CALLS.clear()
    after = sample(model, **guided)
    if not EAGER:
        assert CALLS == {}
    assert np.abs(after - before).max() > 1e-3
    # Its average by default, its live weights where asked for.
    live = sample(model, use_ema=False, **guided)
    assert np.abs(after - live).max() > 1e-5
    z = sample(model, num_steps=1), sample(weak, num_steps=1)
    close(sample(model, num_steps=1, **guided), 2 * z[0] - z[1], 5)


def test_a_flow_map_guides_a_flow_map():
    def flow_map(seed):
        keras.utils.set_random_seed(seed)
        network = kf.networks.MLP(2, 8, 1, two_times=True)
        return kf.FlowMapInterface(network, "lsd", ema=None)

    model, weak = flow_map(0), flow_map(1)
    one, two = (
        numpy(m.generate(4, num_steps=1, seed=0)) for m in (model, weak)
    )
    found = model.generate(
        4, num_steps=1, seed=0, guidance_scale=1.5, guidance_model=weak
    )
    close(numpy(found), 1.5 * one - 0.5 * two, 6)


def test_learned_variances_are_not_guided():
    """A guide may learn none, and changes none."""

    def discrete(name, seed, learn_sigma):
        net = network(name, seed)
        if learn_sigma:
            wide = keras.layers.Dense(8)(net.output)
            net = keras.Model(net.input, wide)
        return kf.DiscreteInterface(
            net, learn_sigma=learn_sigma, null_label=3, ema=None,
            time_scale=0.001,
        )  # fmt: skip

    model, weak = discrete("strong", 0, True), discrete("weak", 1, False)
    label = ops.convert_to_tensor(LABELS)
    bound = kf.samplers.Guided(
        model.bind(model.network, label), weak.bind(weak.network, label), 2.0
    )
    x = np.random.default_rng(0).standard_normal((4, 4)).astype("float32")
    x, t = ops.convert_to_tensor(x), 0.3 * ops.ones((4,))
    data, share = bound.denoise_and_share(x, t)
    own, own_share = model.denoise_and_share(x, t, condition=LABELS)
    other = weak.denoise(x, t, condition=LABELS)
    np.testing.assert_array_equal(numpy(share), numpy(own_share))
    close(numpy(data), 2 * numpy(own) - numpy(other), 5)


def test_export_checks_the_channels(tmp_path):
    with pytest.raises(ValueError, match="`guidance_channels`.*4.*5"):
        sit().export(tmp_path / "served", guidance_channels=5)


def shifted():
    return kf.SiTInterface(
        network(), interpolant=kf.interpolants.Linear(noise_at=0.0), ema=None
    )


ERRORS = {
    "interpolant": (
        {"guidance_model": shifted},
        "`guidance_model`.*same interpolant.*noise_at=0",
    ),
    "shape": (
        {"guidance_model": lambda: sit(dim=3)},
        r"`guidance_model`.*same sample_shape.*\(3,\)",
    ),
    "noise": (
        {
            "guidance_model": lambda: kf.SiTInterface(
                network(), n_sigma=2.0, ema=None
            )
        },
        "`guidance_model`.*same n_sigma.*2.0",
    ),
    "a network": ({"guidance_model": network}, "`guidance_model`.*Interface"),
    "off, but wrong": (
        {"guidance_model": shifted, "guidance_scale": 1.0},
        "same interpolant",
    ),
    "scale": ({"guidance_scale": float("nan")}, "`guidance_scale`.*finite"),
    "no channel": ({"guidance_channels": 0}, "`guidance_channels`.*4.*0"),
    "channels": ({"guidance_channels": 5}, "`guidance_channels`.*4.*5"),
    "fraction": ({"guidance_channels": 2.0}, "`guidance_channels`.*2.0"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    options, message = ERRORS[case]
    options = {k: v() if callable(v) else v for k, v in options.items()}
    with pytest.raises(ValueError, match=f"(?s){message}"):
        sample(sit(), **{"guidance_scale": 2.0, **options})
