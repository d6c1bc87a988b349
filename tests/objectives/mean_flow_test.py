"""MeanFlow's guidance in training and its dropped labels."""

import exact
import numpy as np
import pytest
from helpers.close import close
from keras import ops

import keras_flows as kf

ROWS = 4000


def model(**kwargs):
    network = kf.networks.MLP(2, 16, 1, two_times=True, num_classes=3)
    rng = np.random.default_rng(0)
    for v in network.trainable_variables:
        v.assign(rng.standard_normal(v.shape) / max(v.shape[0], 1) ** 0.5)
    return kf.MeanFlowInterface(network, ema=None, seed=0, **kwargs)


def batch(rows=64):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((rows, 2)).astype("float32")
    return (
        ops.convert_to_tensor(x),
        ops.convert_to_tensor((np.arange(rows) % 3).astype("int32")),
    )


def losses(m, training):
    m.seed_generator.state.assign(np.array([5, 0], "uint32"))
    terms = m.loss(*batch(), training=training)
    return ops.convert_to_numpy(terms["loss"])


@pytest.mark.parametrize("training", [True, False])
def test_scale_one_is_the_unguided_loss(training):
    plain = losses(model(), training)
    off = losses(
        model(guidance_scale=1.0, guidance_mixture_ratio=0.0), training
    )
    np.testing.assert_array_equal(plain, off)
    guided = losses(model(guidance_scale=1.5), training)
    assert np.abs(guided - plain).max() > 1e-3
    # An interval without any time in it guides nothing.
    nowhere = losses(
        model(guidance_scale=1.5, guidance_t_min=2.0, guidance_t_max=3.0),
        training,
    )
    np.testing.assert_allclose(nowhere, plain, rtol=1e-5)


@pytest.mark.parametrize(
    "path",
    [
        kf.interpolants.Linear(0.0),
        kf.interpolants.Linear(1.0),
        kf.interpolants.Trigonometric(1.0),
    ],
)
def test_dropped_labels_keep_the_velocity_of_the_path(path):
    m = model(cond_drop_ratio=1.0, guidance_scale=2.0, interpolant=path)
    x, y = batch()
    n = m.sample_n(ops.shape(x))
    t = ops.linspace(0.1, 0.9, 64)
    v, labels = m.training_velocity(x, n, t, y)
    expected = ops.convert_to_numpy(path.velocity(x, n, t))
    close(ops.convert_to_numpy(v), expected, 6)
    assert (ops.convert_to_numpy(labels) == 3).all()


def test_labels_drop_independently_of_the_diagonal():
    """The same share among rows with r = t and rows with r != t."""
    m = model(cond_drop_ratio=0.3, fm_portion=0.75)
    x, y = batch(ROWS)
    n = m.sample_n(ops.shape(x))
    v = m.interpolant.velocity(x, n, ops.ones(ROWS))
    _, dropped = m.cond_drop(x, n, v, y, None)
    off, diagonal = (
        ops.convert_to_numpy(part) == 3 for part in m.rows(x).split(dropped)
    )
    assert len(off) == ROWS // 4 and len(diagonal) == 3 * ROWS // 4
    for part in (off, diagonal):
        error = (0.3 * 0.7 / len(part)) ** 0.5
        assert abs(part.mean() - 0.3) < 4 * error


def test_dropped_labels_get_the_unguided_velocity():
    m = model(guidance_scale=2.0, cond_drop_ratio=0.5)
    x, y = batch()
    n = m.sample_n(ops.shape(x))
    t = 0.5 * ops.ones(64)
    guided, _, _ = m.insta_velocity(x, n, t, y=y)
    v, kept = m.training_velocity(x, n, t, y)
    dropped = ops.convert_to_numpy(kept) == 3
    assert 10 < dropped.sum() < 54
    v, guided, plain = (
        ops.convert_to_numpy(part) for part in (v, guided, n - x)
    )
    np.testing.assert_allclose(v[dropped], plain[dropped], rtol=1e-6)
    np.testing.assert_allclose(v[~dropped], guided[~dropped], rtol=1e-5)
    assert np.abs(guided - plain).min(axis=0).max() > 0


def test_evaluation_drops_no_label():
    m = model(cond_drop_ratio=1.0)
    x, y = batch()
    n = m.sample_n(ops.shape(x))
    _, kept = m.training_velocity(x, n, 0.5 * ops.ones(64), y, training=False)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(kept), ops.convert_to_numpy(y)
    )


# The scale as an input of the network.


def with_input(guidance=True, **kwargs):
    network = kf.networks.DiT(
        (4, 4, 1), 2, 16, 1, 2, two_times=True, num_classes=3,
        guidance=guidance,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for v in network.trainable_variables:
        v.assign(0.3 * rng.standard_normal(v.shape))
    return kf.MeanFlowInterface(
        network, ema=None, seed=0, guidance_range=(1.0, 4.0), **kwargs
    )


def images(rows=8):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((rows, 4, 4, 1)).astype("float32")
    return (
        ops.convert_to_tensor(x),
        ops.convert_to_tensor((np.arange(rows) % 3).astype("int32")),
    )


def own_scales(m, rows=8):
    """(x, n, t, condition) with a scale for each row, and all levels."""
    x, y = images(rows)
    rng = np.random.default_rng(2)
    n = ops.convert_to_tensor(rng.standard_normal(x.shape).astype("float32"))
    omega = ops.convert_to_tensor(np.linspace(1, 4, rows).astype("float32"))
    condition = {"label": y, "guidance": omega}
    if "guidance_interval" in m.network.input:
        ends = np.tile([0.0, 1.0], (rows, 1)).astype("float32")
        condition["guidance_interval"] = ops.convert_to_tensor(ends)
    return x, n, ops.full((rows,), 0.4), condition


def called(m, x_t, t, label, omega, r=None, **kwargs):
    """The network, called by hand."""
    return m.network(
        {
            "x": x_t, "t": t, "r": t if r is None else r, "condition": label,
            "guidance": omega, **kwargs,
        }
    )  # fmt: skip


def test_each_row_is_guided_by_its_own_scale():
    """v + (1 - 1 / omega) (u(c, omega) - u(null, 1)), the official target."""
    m = with_input()
    x, n, t, condition = own_scales(m)
    v, _, _ = m.insta_velocity(x, n, t, y=condition)
    x_t, omega = m.sample_x_t(x, n, t), condition["guidance"]
    null = called(m, x_t, t, ops.full((8,), 3, dtype="int32"), ops.ones((8,)))
    own = called(m, x_t, t, condition["label"], omega)
    w = ops.convert_to_numpy(omega)[:, None, None, None]
    plain = ops.convert_to_numpy(n - x)
    expected = plain + (1 - 1 / w) * ops.convert_to_numpy(own - null)
    close(ops.convert_to_numpy(v), expected, 5)
    assert np.abs(expected - plain)[1:].max() > 0.1


def test_guidance_adds_no_variance():
    """Pairs (x, n) of the same x_t: targets differ as their velocities do.

    omega v + (1 - omega) u(null) would differ by omega times that.
    """
    m = with_input()
    x, n, t, condition = own_scales(m)
    change = 0.5 * ops.ones_like(x)
    # x_t = (1 - t) x + t n stays.
    other = m.insta_velocity(
        x + change, n - change * 0.6 / 0.4, t, y=condition
    )[0]
    difference = ops.convert_to_numpy(
        other - m.insta_velocity(x, n, t, y=condition)[0]
    )
    np.testing.assert_allclose(difference, -0.5 - 0.75, rtol=1e-4)


def test_the_fixed_point_is_guidance_of_that_scale():
    """A network that is guided exactly is what the mean target says."""
    m = kf.MeanFlowInterface(
        exact.network("linear1", "map", labels=True, guidance=True),
        guidance_range=(1.0, 8.0), ema=None, seed=0,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    x, n = (
        ops.convert_to_tensor(rng.standard_normal((16, 2)).astype("float32"))
        for _ in range(2)
    )
    t, y = ops.full((16,), 0.6), ops.zeros((16,), dtype="int32")
    omega = ops.convert_to_tensor(np.linspace(1, 8, 16).astype("float32"))
    given = {"label": y, "guidance": omega}
    found, _, _ = m.insta_velocity(x, n, t, y=given)
    x_t = m.sample_x_t(x, n, t)
    mean, guided = (
        called(m, x_t, t, y, scale) for scale in (ops.ones((16,)), omega)
    )
    # E[v | x_t, c] in the place of v.
    found = ops.convert_to_numpy(found - (n - x) + mean)
    close(found, ops.convert_to_numpy(guided), 5)
    assert np.abs(found - ops.convert_to_numpy(mean)).max() > 0.1


# The interval as an input, too.


def with_interval(**kwargs):
    return with_input(guidance="interval", **kwargs)


def test_an_interval_is_learned_off_the_diagonal():
    m = with_interval()
    rows = m.rows(ops.zeros((4000, 1)))
    off, diagonal = (
        ops.convert_to_numpy(part)
        for part in rows.split(m.sample_interval((4000,), rows))
    )
    np.testing.assert_array_equal(diagonal, np.tile([0.0, 1.0], (3000, 1)))
    low, high = off.T
    for each, mean in ((low, 0.25), (high, 0.75)):
        assert abs(each.mean() - mean) < 0.02
        assert abs(each.std() - 0.5 / 12**0.5) < 0.01
    assert low.min() >= 0 and low.max() <= 0.5 <= high.min()
    assert high.max() <= 1


def test_outside_the_interval_the_scale_is_one():
    m = with_interval()
    x, n, t, condition = own_scales(m)
    whole = m.insta_velocity(x, n, t, y=condition)[0]
    # t = 0.4 lies inside for the first rows only.
    ends = np.where(np.arange(8)[:, None] < 4, [[0.3, 0.6]], [[0.45, 0.6]])
    inside = {
        **condition,
        "guidance_interval": ops.convert_to_tensor(ends.astype("float32")),
    }
    found, kept, _ = m.insta_velocity(x, n, t, y=inside)
    found, whole, plain = (
        ops.convert_to_numpy(part) for part in (found, whole, n - x)
    )
    close(found[:4], whole[:4], 6)
    close(found[4:], plain[4:], 6)
    assert np.abs(whole[4:] - plain[4:]).max() > 0.05
    # The map keeps its interval, the velocity inside it has all levels.
    assert kept["guidance_interval"] is inside["guidance_interval"]
    instant = m.instant(inside, t)
    close(ops.convert_to_numpy(instant["guidance_interval"]),
          np.tile([0.0, 1.0], (8, 1)), 6)  # fmt: skip
    scales = ops.convert_to_numpy(condition["guidance"])
    close(ops.convert_to_numpy(instant["guidance"]),
          np.where(np.arange(8) < 4, scales, 1.0), 6)  # fmt: skip


def test_the_predicted_tangent_is_guided_inside_the_interval_only():
    m = with_interval(
        objective=kf.objectives.MeanFlow(tangent="predicted"), fm_portion=0.25
    )
    seen = []
    pred = m.pred

    def noted(x_t, t, r=None, *, condition=None, **kwargs):
        seen.append((t, r, condition))
        return pred(x_t, t, r, condition=condition, **kwargs)

    m.pred = noted
    m.loss(*images(64))
    # The target's velocities, the diagonal's, the tangent.
    tangent = next(
        (t, c) for t, r, c in seen[1:] if r is t and t.shape[0] == 48
    )
    t, c = (ops.convert_to_numpy(tangent[0]), tangent[1])
    off = seen[-1][2]
    low, high = ops.convert_to_numpy(off["guidance_interval"]).T
    scale = ops.convert_to_numpy(off["guidance"])
    expected = np.where((t >= low) & (t <= high), scale, 1.0)
    np.testing.assert_allclose(ops.convert_to_numpy(c["guidance"]), expected)
    assert 0.1 < (expected == 1.0).mean() < 0.9


def test_generate_hands_the_interval_to_the_network():
    m = with_interval()
    x, y = images()
    noise = ops.convert_to_numpy(x)
    given = {"condition": y, "noise": noise, "guidance_scale": 2.5}
    one, zero = ops.ones((8,)), ops.zeros((8,))
    for interval in (None, (0.2, 0.7)):
        made = m.generate(**given, guidance_interval=interval)
        ends = np.tile(interval or (0.0, 1.0), (8, 1)).astype("float32")
        u = called(
            m, x, one, y, 2.5 * one, r=zero,
            guidance_interval=ops.convert_to_tensor(ends),
        )  # fmt: skip
        close(ops.convert_to_numpy(made), noise - ops.convert_to_numpy(u), 5)
    with pytest.raises(ValueError, match="`guidance_interval`.*'interval'"):
        with_input().generate(**given, guidance_interval=(0.2, 0.7))
    m.compile("adam")
    logs = m.train_on_batch(noise, ops.convert_to_numpy(y), return_dict=True)
    assert np.isfinite(float(logs["loss"]))


def test_generate_hands_the_scale_to_the_network():
    m = with_input()
    x, y = images()
    noise = ops.convert_to_numpy(x)
    made = m.generate(condition=y, noise=noise, guidance_scale=2.5)
    one, zero = ops.ones((8,)), ops.zeros((8,))
    u = m.network(
        {
            "x": x, "t": one, "r": zero, "condition": y,
            "guidance": 2.5 * one,
        }
    )  # fmt: skip
    close(ops.convert_to_numpy(made), noise - ops.convert_to_numpy(u), 5)
    other = m.generate(condition=y, noise=noise)
    assert np.abs(ops.convert_to_numpy(made - other)).max() > 1e-2
    with pytest.raises(ValueError, match="1.0 to 4.0.*Received: 5.0"):
        m.generate(condition=y, noise=noise, guidance_scale=5.0)


def test_scales_follow_their_law_and_train():
    m = with_input(guidance_power=2.0)
    omega = ops.convert_to_numpy(m.sample_guidance((20_000,)))
    assert omega.min() >= 1.0 and omega.max() <= 4.0
    # Density c / omega^2 with c = 4 / 3: the mean is c ln 4, E omega^2 = 3 c.
    mean = 4 / 3 * np.log(4.0)
    error = (4.0 - mean**2) ** 0.5 / 20_000**0.5
    assert abs(omega.mean() - mean) < 4 * error
    flat = with_input()
    log = np.log(ops.convert_to_numpy(flat.sample_guidance((20_000,))))
    assert abs(log.mean() - np.log(4) / 2) < 4 * np.log(4) / 12**0.5 / 141
    m.compile("adam")
    x, y = images()
    before = m.network.get_layer("guidance_embedding").get_weights()[0].copy()
    logs = m.train_on_batch(
        ops.convert_to_numpy(x), ops.convert_to_numpy(y), return_dict=True
    )
    assert np.isfinite(float(logs["loss"]))
    after = m.network.get_layer("guidance_embedding").get_weights()[0]
    assert np.abs(after - before).max() > 0
    copy = type(m).from_config(m.get_config())
    assert copy.guidance_range == (1.0, 4.0) and copy.guidance_power == 2.0


def test_scale_and_network_must_agree():
    plain = kf.networks.MLP(2, 8, 1, two_times=True, num_classes=3)
    with pytest.raises(ValueError, match="network without it"):
        kf.MeanFlowInterface(plain, guidance_range=(1.0, 4.0))
    network = with_input().network
    with pytest.raises(ValueError, match="network with it"):
        kf.MeanFlowInterface(network)
    for wrong in ((2.0, 1.0), (0.4, 2.0)):
        with pytest.raises(ValueError, match="0.5 < low < high"):
            kf.MeanFlowInterface(network, guidance_range=wrong)
    # Its scales would be others: 1.0 would train 2.0.
    with pytest.raises(ValueError, match="`guidance_mixture_ratio` must be 0"):
        with_input(guidance_mixture_ratio=0.5)
    with pytest.raises(ValueError, match="'guidance' with kf.MeanFlow"):
        kf.SiTInterface(network)


def test_unknown_tangent_is_named():
    with pytest.raises(ValueError, match="`tangent`.*'teacher'"):
        kf.objectives.MeanFlow(tangent="teacher")


# The law of the two times.


def levels(rows=40_000, **kwargs):
    """(level of t, level of r) off the diagonal, and that of t on it."""
    m = model(**kwargs)
    t, r = m.sample_t_r((rows,))
    split = m.rows(ops.zeros((rows, 2))).split
    (t_o, t_d), (r_o, r_d) = split(t), split(r)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(t_d), ops.convert_to_numpy(r_d)
    )
    found = (m.interpolant.level(ops.convert_to_numpy(v))
             for v in (t_o, r_o, t_d))  # fmt: skip
    return [v.astype("float64") for v in found]


def logit_normal(mu, sigma, count=2):
    """`count` independent draws, (count, 200,000)."""
    z = np.random.default_rng(3).standard_normal((count, 200_000))
    return 1.0 / (1.0 + np.exp(-(mu + sigma * z)))


def same_law(found, expected):
    """Mean and deviation within four standard errors."""
    for moment in (np.mean, np.std):
        error = np.std(expected) / len(found) ** 0.5
        assert abs(moment(found) - moment(expected)) < 4.5 * error


@pytest.mark.parametrize("path", [0.0, 1.0])
def test_times_have_the_published_law(path):
    """Where r = t too, t is the noisier of two draws: .535 +- .179."""
    path = kf.interpolants.Linear(path)
    t_o, r_o, t_d = levels(interpolant=path)
    high, low = np.sort(logit_normal(-0.4, 1.0), axis=0)[::-1]
    assert abs(high.mean() - 0.535) < 2e-3 and abs(high.std() - 0.179) < 2e-3
    same_law(t_o, high)
    same_law(r_o, low)
    same_law(t_d, high)


def test_other_laws_of_the_two_times():
    """The law itself where r = t, and a law of r of its own."""
    t_o, r_o, t_d = levels(time_pairs="first")
    first, second = logit_normal(-0.4, 1.0)
    same_law(t_o, np.maximum(first, second))
    same_law(t_d, first)
    law = kf.interpolants.LogitNormal(-4.0, 1.6)
    m = {"t_mu": -0.6, "t_sigma": 1.6, "r_law": law}
    t = logit_normal(-0.6, 1.6, 1)[0]
    r = logit_normal(-4.0, 1.6, 2)[1]
    t_o, r_o, t_d = levels(time_pairs="clipped", **m)
    same_law(t_o, t)
    same_law(r_o, np.minimum(t, r))
    same_law(t_d, t)
    t_o, r_o, t_d = levels(**m)
    same_law(t_o, np.maximum(t, r))
    same_law(r_o, np.minimum(t, r))
    same_law(t_d, np.maximum(t, r))
    copy = type(model()).from_config(
        model(time_pairs="first", **m).get_config()
    )
    assert (copy.time_pairs, copy.r_law) == ("first", law)
    with pytest.raises(ValueError, match="`time_pairs`.*'sorted'"):
        model(time_pairs="sorted")
    with pytest.raises(ValueError, match="`r_law`.*'normal'"):
        model(r_law="normal")
