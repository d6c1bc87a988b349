"""Distribution matching: DMD, SiD, its adversarial term."""

import math

import keras
import numpy as np
import pytest
from helpers.few_steps import M
from helpers.few_steps import S
from helpers.few_steps import array
from helpers.few_steps import changed
from helpers.few_steps import flow
from helpers.few_steps import gaussian
from helpers.few_steps import mlp
from helpers.few_steps import tensor
from helpers.few_steps import values
from keras import ops

import keras_flows as kf
from keras_flows.objectives import distribution_matching as matching
from keras_flows.ops import value_and_gradients


def test_dmd_follows_the_difference_of_scores(rng):
    x, real, fake = (
        keras.Variable(rng.standard_normal((3, 4))) for _ in range(3)
    )
    _, (gradient, *others) = value_and_gradients(
        lambda: ops.sum(matching.dmd(x.value, real.value, fake.value)),
        [x, real, fake],
    )
    a, b, c = (array(v) for v in (x, real, fake))
    weight = 1 / np.abs(a - b).mean(1, keepdims=True)
    np.testing.assert_allclose(array(gradient), weight * (c - b) / 4, rtol=1e-5)
    assert not any(array(g).any() for g in others)


def test_sid_measures_the_fisher_divergence(rng):
    """For alpha = 0 its mean is that of w |real - fake|^2, w constant here.

    Generator N(0.5, 0.6^2) against data N(-0.2, 0.9^2), at t = 0.5 of
    `Linear`, with the exact denoisers of both.
    """
    rows = 400_000
    x = 0.5 + 0.6 * rng.standard_normal((rows, 1))
    x_t = 0.5 * x + 0.5 * rng.standard_normal((rows, 1))

    def denoiser(m, s):
        gain = 0.5 * s**2 / (0.25 * s**2 + 0.25)
        return m + gain * (x_t - 0.5 * m)

    real, fake = denoiser(-0.2, 0.9), denoiser(0.5, 0.6)
    unit = 1 / np.abs(x - real)
    loss = array(matching.sid(tensor(x), tensor(real), tensor(fake), 0.0))
    found = (loss / unit[:, 0]).mean()
    expected = ((real - fake) ** 2).mean()
    assert abs(found / expected - 1) < 0.02


@pytest.mark.parametrize("elements", (1, 4))
def test_sid_rests_where_the_distributions_are_equal(rng, elements):
    """E w (fake - x) real = 0 at fake = real, two modes, the exact denoiser.

    With w of each example alone that is 19 % (one element) and 9 % (four) of
    E w |fake - x| |real|: w then depends on x beside x_t.
    """
    rows = 200_000 // elements
    side = np.where(rng.random((rows, elements)) < 0.5, -0.5, 0.5)
    x = side + 0.08 * rng.standard_normal((rows, elements))
    level = rng.uniform(0.02, 0.98, rows)
    t = level[:, None]
    x_t = (1 - t) * x + t * rng.standard_normal((rows, elements))
    variance = ((1 - t) * 0.08) ** 2 + t**2
    mode = 0.5 * np.tanh(0.5 * (1 - t) * x_t / variance)
    gain = 0.08**2 * (1 - t) / variance
    real = mode + gain * (x_t - (1 - t) * mode)

    def slope(weight):
        """The derivative of the loss as `fake` scales, in parts of 1."""
        loss = [
            array(matching.sid(tensor(x), tensor(real), fake, 1.0, weight))
            for fake in (tensor(0.9 * real), tensor(1.1 * real))
        ]
        scale = array(weight) * np.abs(real - x) * np.abs(real)
        return (loss[0] - loss[1]).mean() / 0.2 / scale.mean()

    found = matching.unit(tensor(x), tensor(real), tensor(level))
    assert abs(slope(found)) < 0.01
    published = matching.unit(tensor(x), tensor(real))
    assert abs(slope(published)) > 0.05


def test_the_weight_is_of_a_level(rng):
    """Means over like levels; each example's own where it is alone."""
    x, real = (rng.standard_normal((6, 3, 2)) for _ in range(2))
    size = np.abs(x - real).mean((1, 2))

    def weight(level):
        found = matching.unit(tensor(x), tensor(real), tensor(level))
        assert tuple(found.shape) == (6, 1, 1)
        return array(found)[:, 0, 0]

    alone = np.array([0.0, 1.0, 0.2, 0.4, 0.6, 0.8])
    np.testing.assert_allclose(weight(alone), 1 / size, rtol=1e-5)
    np.testing.assert_allclose(
        weight(np.full(6, 0.337)), 1 / size.mean(), rtol=1e-5
    )
    pairs = np.array([0.1, 0.1, 0.5, 0.5, 1.0, 1.0])
    expected = np.repeat(1 / size.reshape(3, 2).mean(1), 2)
    np.testing.assert_allclose(weight(pairs), expected, rtol=1e-5)


def test_the_two_networks_take_turns(rng):
    """Generator first, then the fake network, each by its own optimizer."""
    model = kf.DMDInterface(flow(0.9), fake_updates=2)
    model.compile(
        keras.optimizers.SGD(0.1), keras.optimizers.Adam(1e-2), run_eagerly=None
    )
    x = rng.standard_normal((8, 2)).astype("float32")
    # A copy of the teacher would leave the generator nothing to learn.
    for v in model.fake_network.trainable_variables:
        v.assign(array(v) + 0.1)
    sides = {
        "generator": model.network.trainable_variables,
        "fake": model.fake_network.trainable_variables,
    }
    moved, losses = [], []
    for _ in range(6):
        before = {k: values(v) for k, v in sides.items()}
        logs = model.train_on_batch(x, return_dict=True)
        losses.append((float(logs["generator_loss"]), float(logs["fake_loss"])))
        moved.append(
            [k for k, v in sides.items() if any(changed(before[k], v))]
        )
    assert moved == [["generator"], ["fake"], ["fake"]] * 2
    optimizer = model.optimizer
    assert int(array(optimizer.iterations)) == 2
    assert int(array(optimizer.second.iterations)) == 4
    # Means over what has been: the fake loss appears with its first turn.
    assert losses[0][1] == 0 and losses[1][1] > 0


def test_the_teacher_has_no_slots():
    model = kf.DMDInterface(flow(0.9))
    model.compile(keras.optimizers.Adam(1e-3))
    model.optimizer.build(model.trainable_variables)
    trained = [
        *model.network.trainable_variables,
        *model.fake_network.trainable_variables,
    ]
    # Neither the teacher's nor the averages'.
    assert {id(v) for v in model.trainable_variables} == {
        id(v) for v in trained
    }
    # Adam has two slots for each, and every optimizer two scalars of its own.
    slots = [v for v in model.optimizer.variables if len(v.shape)]
    assert len(slots) == 2 * len([v for v in trained if len(v.shape)])
    size = sum(math.prod(v.shape) for v in trained)
    assert sum(math.prod(v.shape) for v in slots) == 2 * size


def nothing(own, model, made, n, t, condition):
    """A loss of 0 in the place of a side's own."""
    return ops.zeros_like(t)


@pytest.mark.once
def test_pairs_regress_the_generator(rng):
    """DMD's regression: |G(noise) - x|^2, nothing else without the teacher."""
    model = kf.DMDInterface(flow(), regression_weight=3.0)
    z = rng.standard_normal((8, 2)).astype("float32")
    x = tensor(rng.standard_normal((8, 2)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching.DistributionMatching, "generator_loss", nothing)
        terms = model.loss(x, None, {"noise": tensor(z)}, training=False)
    made = array(model.denoise(tensor(z), tensor([0.0] * 8)))
    np.testing.assert_allclose(
        array(terms["generator_loss"]),
        3.0 * ((made - array(x)) ** 2).mean(1),
        rtol=1e-5,
    )
    with pytest.raises(ValueError, match="noise.*regression_weight"):
        model.loss(x)


@pytest.mark.once
def test_the_best_discriminator_is_the_ratio_of_densities(rng, monkeypatch):
    """Its loss is stationary at the logit log p(x_t) / q(x_t).

    Data N(M, S^2) and samples N(0, 0.7^2), noised to t on `Linear`.
    """
    model = kf.DMDInterface(
        flow(), discriminator=mlp(), discriminator_weight=1.0
    )
    scale, shift = keras.Variable(1.0), keras.Variable(0.0)

    def log_ratio(x_t, t, condition):
        t = ops.expand_dims(t, -1)
        total = 0.0
        for sign, mean, std in ((1.0, M, S), (-1.0, (0.0, 0.0), (0.7, 0.7))):
            mean = t * tensor(mean)
            std = ops.sqrt(ops.square(t * tensor(std)) + ops.square(1.0 - t))
            z = (x_t - mean) / std
            total -= sign * ops.sum(0.5 * ops.square(z) + ops.log(std), -1)
        return scale * total + shift

    model.logit = log_ratio
    model.produce = lambda draws, condition: 0.7 * draws[0]
    monkeypatch.setattr(matching.DistributionMatching, "fake_loss", nothing)
    x = gaussian(rng, 100_000)

    def gradient(*at):
        scale.assign(at[0])
        shift.assign(at[1])
        return np.array([
            float(array(g)) for g in value_and_gradients(
                lambda: ops.mean(model.loss(x, training=False)["fake_loss"]),
                [scale, shift],
            )[1]
        ])  # fmt: skip

    # Both sides have 100,000 rows: standard errors are about 0.003.
    np.testing.assert_allclose(gradient(1.0, 0.0), 0.0, atol=0.012)
    assert gradient(0.5, 0.0)[0] < -0.05 and gradient(2.0, 0.0)[0] > 0.05
    assert gradient(1.0, -0.5)[1] < -0.1 and gradient(1.0, 0.5)[1] > 0.1


@pytest.mark.once
def test_the_adversarial_term_moves_the_generator(rng):
    """G's gradient is that of 3 log(1 + e^-D) on top of its own."""
    t, n = tensor(np.full(8, 0.5)), tensor(rng.standard_normal((8, 2)))
    made = keras.Variable(rng.standard_normal((8, 2)), dtype="float32")
    teacher, discriminator = flow(), mlp()

    def gradient(weight):
        model = kf.DMDInterface(
            teacher, discriminator=discriminator, adversarial_weight=weight
        )
        # A copy of the teacher would leave DMD's own gradient at zero.
        for v in model.fake_network.trainable_variables:
            v.assign(array(v) + 0.1)
        own = model.objective
        return array(value_and_gradients(
            lambda: ops.sum(own.generator_loss(model, made.value, n, t, None)),
            [made],
        )[1][0])  # fmt: skip

    own = gradient(0.0)
    added = array(value_and_gradients(
        lambda: 3.0 * ops.sum(ops.log1p(ops.exp(-ops.mean(
            discriminator({"x": 0.5 * made.value + 0.5 * n, "t": t}), 1
        )))),
        [made],
    )[1][0])  # fmt: skip
    assert np.abs(added).max() > 1e-3 and np.abs(own).max() > 1e-3
    np.testing.assert_allclose(gradient(3.0), own + added, rtol=1e-4, atol=1e-6)


@pytest.mark.once
def test_back_simulation_starts_where_sampling_does(rng):
    """G's starts are its own samples, noised anew to its own times."""
    model = kf.DMDInterface(flow(), num_steps=4)
    seen = []
    denoise = model.interface.denoise

    def record(x, t, condition=None, network=None):
        seen.append(array(t).copy())
        return denoise(x, t, condition=condition, network=network)

    model.interface.denoise = record
    model.produce(model.draw(tensor(rng.standard_normal((256, 2)))))
    assert [set(t) for t in seen[:3]] == [{0.0}, {0.25}, {0.5}]
    counts = np.unique(seen[3], return_counts=True)
    np.testing.assert_allclose(counts[0], [0.0, 0.25, 0.5, 0.75])
    assert counts[1].min() > 40
    _, _, times = model.sampling_times()
    assert times.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


def _on(path, **options):
    teacher = kf.SiTInterface(mlp(), interpolant=path, ema=None, seed=0)
    teacher.trainable = False
    return kf.DMDInterface(teacher, **options)


@pytest.mark.parametrize(
    "path",
    (
        kf.interpolants.Linear(noise_at=0.0),
        kf.interpolants.VarianceExploding(),
        kf.interpolants.VariancePreserving(),
        kf.interpolants.DiscreteVariancePreserving(),
    ),
    ids=lambda path: type(path).__name__,
)
def test_one_step_starts_where_the_teacher_knows(path, rng):
    """At sigma / alpha = 5 x_sigma, which on `Linear` is the level 5 / 7."""
    model = _on(path)
    _, _, times = model.sampling_times()
    t = ops.convert_to_tensor(times[:1].astype("float32"))
    ratio = float(array(path.sigma(t) / path.alpha(t))[0])
    assert abs(ratio / 2.5 - 1) < 0.02
    assert path.nearest_step(times[0]) == times[0]
    z = rng.standard_normal((8, 2)).astype("float32")
    x_t = model.start(tensor(z))
    np.testing.assert_allclose(
        array(x_t), float(array(path.sigma(t))[0]) * z, rtol=1e-5
    )
    # It begins as the teacher's prediction there, in training as in sampling.
    expected = array(model.teacher.denoise(x_t, ops.repeat(t, 8)))
    made = model.produce((tensor(z), (), None))
    np.testing.assert_allclose(array(made), expected, rtol=1e-4, atol=1e-6)
    sampled = array(model.generate(8, noise=z))
    np.testing.assert_allclose(sampled, expected, rtol=1e-4, atol=1e-6)
    config = model.get_config()
    again = kf.DMDInterface.from_config(config)
    assert again.sampling_times()[2].tolist() == times.tolist()
    # Saved when all started from pure noise.
    del config["start_level"]
    assert kf.DMDInterface.from_config(config).start_level == 1.0


@pytest.mark.once
def test_where_the_first_step_starts():
    path = kf.interpolants.Linear(noise_at=0.0)
    for options in ({"num_steps": 2}, {"regression_weight": 1.0}):
        assert _on(path, **options).start_level == 1.0
    _, _, times = _on(path, num_steps=2, start_level=0.6).sampling_times()
    np.testing.assert_allclose(times, [0.4, 0.7, 1.0])
    for level in (0.0, 1.2):
        with pytest.raises(ValueError, match="`start_level`.*above 0"):
            _on(path, start_level=level)


def test_each_step_has_rivals_of_its_own(rng):
    """Its rows meet its fake network and its discriminator, no other's.

    The teacher has stable targets: they are means over one step's samples.
    """
    teacher = kf.FlowMapInterface(
        mlp(), "flow", stable_target=True, ema=None, seed=0
    )
    teacher.trainable = False

    def build(discriminator, **options):
        return kf.DMDInterface(
            teacher, discriminator=discriminator, num_steps=2, **options
        )

    model = build(mlp(), separate_fakes=True)
    assert len(model.fake_networks) == len(model.discriminators) == 2
    for rival in (*model.fake_networks, *model.discriminators):
        for v in rival.trainable_variables:
            v.assign(array(v) + 0.1 * rng.standard_normal(v.shape))
    made, n = (tensor(rng.standard_normal((10, 2))) for _ in range(2))
    t = tensor(rng.uniform(0.2, 0.8, 10))
    for name in ("fake_loss", "generator_loss"):
        found = array(getattr(model.objective, name)(model, made, n, t, None))
        for step in range(2):
            single = build(mlp())
            single.fake_network.set_weights(
                model.fake_networks[step].get_weights()
            )
            single.discriminator.set_weights(
                model.discriminators[step].get_weights()
            )
            rows = slice(5 * step, 5 * step + 5)
            expected = getattr(single.objective, name)(
                single, made[rows], n[rows], t[rows], None
            )
            np.testing.assert_allclose(
                found[rows], array(expected), rtol=1e-4, atol=1e-6
            )
    # Each example is a sample of both steps, the second from the first.
    noise, (anew,), _ = draws = model.draw(made)
    samples = array(model.produce(draws))
    t = [ops.full((10,), time) for time in (0.0, 0.5)]
    first = model.denoise(model.start(noise), t[0])
    second = model.denoise(model.sample_x_t(first, anew, t[1]), t[1])
    np.testing.assert_allclose(samples[:10], array(first), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        samples[10:], array(second), rtol=1e-5, atol=1e-6
    )
    # The loss of an example is the mean over its samples, step after step.
    rows = {}

    def known(name):
        def loss(own, model, made, n, t, condition):
            rows[name] = [tuple(v.shape) for v in (made, n)]
            return ops.arange(20, dtype="float32")

        return loss

    with pytest.MonkeyPatch.context() as patch:
        for name in ("generator_loss", "fake_loss"):
            patch.setattr(matching.DistributionMatching, name, known(name))
        patch.setattr(model, "discriminators", [])
        terms = model.loss(made, training=False)
    for name in ("generator_loss", "fake_loss"):
        np.testing.assert_allclose(array(terms[name]), 5.0 + np.arange(10))
        assert rows[name] == [(20, 2), (20, 2)]
    # No step learns from those after it.
    weigh = tensor(rng.standard_normal((10, 2)))
    variables = model.network.trainable_variables
    gradients = [
        value_and_gradients(lambda f=f: ops.sum(weigh * f()), variables)[1]
        for f in (
            lambda: model.produce(draws)[10:],
            lambda: model.denoise(
                model.sample_x_t(ops.stop_gradient(first), anew, t[1]), t[1]
            ),
        )
    ]
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_allclose(array(a), array(b), rtol=1e-4, atol=1e-6)
    trained = {id(v) for v in model.trainable_variables}
    for rival in (*model.fake_networks, *model.discriminators):
        assert {id(v) for v in rival.trainable_variables} <= trained
    again = kf.DMDInterface.from_config(model.get_config())
    assert again.separate_fakes and len(again.discriminators) == 2
    model.compile(keras.optimizers.SGD(1e-2))
    history = model.fit(array(made), batch_size=10, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
