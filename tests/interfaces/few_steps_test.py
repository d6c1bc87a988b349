"""Few steps: training, saving, reparametrisation, moments, distillation."""

import math

import keras
import numpy as np
import pytest
from helpers.close import close
from helpers.few_steps import LINEAR
from helpers.few_steps import TRIG
from helpers.few_steps import array
from helpers.few_steps import changed
from helpers.few_steps import discrete
from helpers.few_steps import exact_velocity
from helpers.few_steps import flow
from helpers.few_steps import gaussian
from helpers.few_steps import mlp
from helpers.few_steps import tensor
from helpers.few_steps import values
from keras import ops
from oracle import CASES
from oracle import ExactNetwork
from oracle import Oracle

import keras_flows as kf


def on_trig(model, path=TRIG):
    model = kf.ReparametrizedInterface(model, path)
    model.trainable = False
    return model


def flow_map(objective, **kwargs):
    return kf.FlowMapInterface(mlp(True), objective, ema=0.9, seed=0, **kwargs)


MODELS = {
    "ayf": lambda: flow_map("ayf", teacher=flow()),
    "shortcut": lambda: flow_map("shortcut"),
    "imm": lambda: flow_map("imm"),
    "cm": lambda: discrete("cm", interpolant=LINEAR, target_decay=0.9),
    "ict": lambda: discrete("ict"),
    "ect": lambda: discrete("ect"),
    "cd": lambda: discrete(
        "constant", interpolant=LINEAR, teacher=flow(0.9), teacher_steps=2
    ),
    "scott": lambda: discrete(
        "constant",
        interpolant=LINEAR,
        teacher=flow(),
        teacher_sampler=kf.samplers.DDIM(eta=0.5),
    ),
    "sct": lambda: kf.SCTInterface(mlp(), warmup_steps=4, ema=0.9, seed=0),
    "scd": lambda: kf.SCDInterface(
        mlp(), on_trig(flow()), x_sigma=0.7, ema=0.9, seed=0
    ),
    "progressive": lambda: kf.ProgressiveInterface(
        flow(), num_steps=(2, 1), steps_per_stage=2
    ),
    "dmd": lambda: kf.DMDInterface(
        flow(), fake_updates=2, num_steps=2, discriminator=mlp()
    ),
    "sid": lambda: kf.DMDInterface(flow(), fake_updates=2, method="sid"),
}
# The others' losses are compared between backends in tests/parity.
EVERYWHERE = ("scott", "dmd")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=() if name in EVERYWHERE else (pytest.mark.once,)
        )
        for name in MODELS
    ],
)
def test_fits_saves_and_loads(name, tmp_path, rng):
    model = MODELS[name]()
    teacher = getattr(model, "teacher", None)
    frozen = values(teacher.variables) if teacher is not None else []
    before = values(model.trainable_variables)
    model.compile(keras.optimizers.Adam(1e-2))
    x = rng.standard_normal((24, 2)).astype("float32")
    logs = model.fit(x, batch_size=8, verbose=0).history
    assert np.isfinite([v[-1] for v in logs.values()]).all()
    assert logs["skipped_steps"] == [0.0] and logs["gradient_norm"][0] > 0
    assert sum(changed(before, model.trainable_variables)) > 2
    if teacher is not None:
        assert not any(changed(frozen, teacher.variables))
        assert not teacher.trainable_variables

    model.save_to_preset(tmp_path / "preset")
    loaded = kf.Interface.from_preset(tmp_path / "preset")
    assert type(loaded) is type(model)
    assert loaded.get_config() == model.get_config()
    for a, b in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(array(a), array(b), err_msg=a.path)
    a, b = (array(m.generate(3, seed=0)) for m in (model, loaded))
    close(a, b, 6)
    assert np.isfinite(a).all()


# A model on another path.

PATHS = ["linear, noise at 0", "trigonometric, noise at 1", "trigflow",
         "variance preserving, linear"]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_reparametrized_is_exact(path, rng):
    """Of the exact network on `Linear`, on other paths' exact oracles."""
    network = ExactNetwork(Oracle(CASES["linear, noise at 1"][2]))
    inner = kf.FlowMapInterface(
        network, "lsd", interpolant=kf.interpolants.Linear(1.0), ema=None
    )
    name, arguments, ours, early, late = CASES[path]
    model = kf.ReparametrizedInterface(
        inner, getattr(kf.interpolants, name)(**arguments)
    )
    oracle = Oracle(ours)
    t = np.linspace(early, late, 64).astype("float32")
    r = (t + 0.6 * (late - t)).astype("float32")
    x = oracle.sample(rng, t)
    x_t = tensor(x)
    checks = {
        "pred": (model.pred(x_t, tensor(t)), oracle.velocity(x, t)),
        "denoise": (model.denoise(x_t, tensor(t)), oracle.data(x, t)),
        "score": (model.score(x_t, tensor(t)), oracle.score(x, t)),
        "jump": (
            model.jump(x_t, tensor(t), tensor(r)),
            oracle.jump(x, t, r),
        ),
    }
    for what, (found, expected) in checks.items():
        error = np.abs(array(found) - expected).max()
        assert error < 1e-4 * max(1.0, np.abs(expected).max()), what


@pytest.mark.once
def test_reparametrized_starts_at_the_noise(rng):
    """Where alpha = 0 the ratio is infinite; the samples are the same."""
    edm = kf.EDMInterface(mlp(), ema=None, seed=0)
    model = kf.ReparametrizedInterface(edm, LINEAR)
    z = rng.standard_normal((6, 2)).astype("float32")
    found = array(model.denoise(tensor(z), tensor([0.0] * 6)))
    expected = array(edm.denoise(tensor(80.0 * z), tensor([80.0] * 6)))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert np.isfinite(array(model.generate(noise=z, num_steps=3))).all()


# Moment matching.


@pytest.mark.once
def test_imm_is_the_published_estimator(rng):
    """The loss from the model's jumps, written out in NumPy."""
    model = flow_map(kf.objectives.IMM(particles=4, power=5))
    x = rng.standard_normal((8, 2)).astype("float32")
    draws = [np.array([0.7, 0.4]), np.array([0.5, 0.2])]
    queue = [tensor(d) for d in draws]
    n = rng.standard_normal((8, 2)).astype("float32")
    model.sample_uniform = lambda shape: queue.pop(0)
    model.sample_n = lambda shape: tensor(n)
    terms = model.loss(tensor(x))

    # Noise fractions: on this path t = 1 - f, alpha = t, sigma = 1 - t.
    f, f_r = draws[0], draws[0] * draws[1]
    ratio = f / (1 - f) - 160.0 / 2**5
    f_w = np.where(ratio > f_r / (1 - f_r), ratio / (1 + ratio), f_r)
    t, w, r = (np.repeat(1 - v, 4).astype("float32") for v in (f, f_w, f_r))
    x_t = t[:, None] * x + (1 - t[:, None]) * n
    x_w = w[:, None] * x + (1 - w[:, None]) * n
    ours = array(model.jump(tensor(x_t), tensor(t), tensor(r)))
    target = array(model.jump(tensor(x_w), tensor(w), tensor(r)))
    expected = []
    for g in range(2):
        part = slice(4 * g, 4 * g + 4)
        c_out = abs(t[4 * g] - r[4 * g]) * 0.5

        def kernel(a, b, c_out=c_out):
            d = np.linalg.norm(a[:, None] - b[None], axis=-1)
            return np.exp(-d / c_out / 2).mean()

        a, b = ours[part], target[part]
        mmd = kernel(a, a) + kernel(b, b) - 2 * kernel(a, b)
        alpha, sigma = t[4 * g], 1 - t[4 * g]
        log_snr = 2 * math.log(alpha / sigma)
        # -dlambda/df of f = sigma, halved.
        slope = 1 / sigma + 1 / alpha
        weight = slope / (1 + math.exp(log_snr - 5)) * alpha
        expected += [mmd, weight / (alpha**2 + sigma**2) * mmd]
    np.testing.assert_allclose(array(terms["mmd"])[::4], expected[::2],
                               rtol=1e-3)  # fmt: skip
    np.testing.assert_allclose(array(terms["loss"])[::4], expected[1::2],
                               rtol=1e-3)  # fmt: skip


@pytest.mark.once
def test_shortcut_pairs_are_dyadic():
    model = flow_map("shortcut")
    t, r = (array(v) for v in model.objective.pairs(model, (2048,)))
    steps = 1.0 / (r - t)
    assert set(np.round(steps).astype(int)) == {1, 2, 4, 8, 16, 32, 64}
    np.testing.assert_allclose(t * steps, np.round(t * steps), atol=1e-3)
    assert t.min() == 0.0 and r.max() == 1.0


# Progressive distillation.


@pytest.mark.once
def test_progressive_target_is_one_step_to_where_two_lead(rng):
    """The loss vanishes when one DDIM step goes where the two go."""
    model = kf.ProgressiveInterface(flow(), num_steps=(2, 1), steps_per_stage=2)
    x = gaussian(rng, 512)

    def exact(x, t, **_):
        return LINEAR.data_from_velocity(x, exact_velocity(LINEAR, x, t), t)

    model.teacher.model.denoise = exact
    model.interface.denoise = exact
    seen = {}

    def target(x_t, t, **_):
        """Two steps of the exact denoiser, and the x of one like them."""
        r = t + 0.5
        w = 0.5 * (t + r)
        seen["t"] = array(t)
        walked = x_t
        for a, b in ((t, w), (w, r)):
            a, b = ops.expand_dims(a, -1), ops.expand_dims(b, -1)
            x_hat = exact(walked, a[:, 0])
            noise = (walked - a * x_hat) / (1 - a)
            walked = b * x_hat + (1 - b) * noise
        t, r = ops.expand_dims(t, -1), ops.expand_dims(r, -1)
        kept = (1 - r) / (1 - t)
        return (walked - kept * x_t) / (r - t * kept)

    model.denoise = target
    terms = model.loss(x)
    # The walk and its inverse, in float32.
    assert array(terms["distance"]).max() < 1e-9
    assert set(np.unique(seen["t"])) == {0.0, 0.5}
    model.denoise = exact
    assert array(ops.mean(model.loss(x)["distance"])) > 1e-4


def test_progressive_takes_over_its_student(rng):
    model = kf.ProgressiveInterface(flow(), num_steps=(2, 1), steps_per_stage=2)
    model.compile(keras.optimizers.SGD(0.05))
    x = rng.standard_normal((8, 2)).astype("float32")
    start = values(model.snapshot.variables)

    def stage():
        updates = model.training_progress.count()
        steps, first = model.objective.stage(updates)
        return int(array(steps)), bool(array(first))

    model.train_on_batch(x)
    assert not any(changed(start, model.snapshot.variables))
    assert stage() == (2, True)
    model.train_on_batch(x)
    assert any(changed(start, model.snapshot.variables))
    assert not any(
        changed(values(model.network.variables), model.snapshot.variables)
    )
    assert stage() == (1, False)


# Teachers.


@pytest.mark.once
def test_the_average_teaches_with_guidance(rng):
    """The teacher's first EMA, and n + scale (p - n) with the null label."""
    teacher = flow(0.9, num_classes=3)
    for v in teacher.emas[0].averages:
        v.assign(rng.standard_normal(v.shape) * 0.3)
    teacher.emas[0].updates.assign(5)
    student = kf.FlowMapInterface(
        mlp(True, num_classes=3), "lmd", teacher=teacher,
        teacher_guidance_scale=2.5, ema=None,
    )  # fmt: skip
    x, t = tensor(rng.standard_normal((4, 2))), tensor([0.1, 0.3, 0.5, 0.7])
    label = ops.convert_to_tensor([0, 1, 2, 0], dtype="int32")
    average = teacher.emas[0].averaged()
    p, n = (
        array(teacher.pred(x, t, condition=c, network=average))
        for c in (label, ops.full_like(label, 3))
    )
    found = array(student.teacher.velocity(x, t, label))
    np.testing.assert_allclose(found, n + 2.5 * (p - n), rtol=1e-4, atol=1e-6)
    live = array(teacher.pred(x, t, condition=label))
    assert np.abs(live - p).max() > 0.01


BAD = {
    "another path": (
        lambda: kf.SCDInterface(mlp(), flow()),
        "student's interpolant.*Linear.*TrigFlow.*ReparametrizedInterface",
    ),
    "another shape": (
        lambda: flow_map("lmd", teacher=flow(dim=3)),
        r"sample_shape.*\(3,\).*\(2,\)",
    ),
    "another condition": (
        lambda: flow_map("lmd", teacher=flow(num_classes=3)),
        "student's condition.*int32.*none",
    ),
    "trainable": (
        lambda: flow_map(
            "lmd", teacher=kf.FlowMapInterface(mlp(), "flow", ema=None)
        ),
        "`teacher` is trainable.*teacher.trainable = False",
    ),
    "no interface": (
        lambda: flow_map("lmd", teacher=mlp()),
        "`teacher` must be a trained Interface",
    ),
    "guidance without a null label": (
        lambda: flow_map("lmd", teacher=flow(), teacher_guidance_scale=2.0),
        "teacher_guidance_scale.*null label",
    ),
    "multistep teacher": (
        lambda: discrete(
            "constant", interpolant=LINEAR, teacher=flow(),
            teacher_sampler="dpm_solver++",
        ),
        "one-step sampler",
    ),
    "schedule": (lambda: discrete("easy"), "`schedule`.*easy"),
    "levels": (lambda: discrete("cm", min_levels=1), "min_levels.*1"),
    "a student carried over": (
        lambda: kf.DMDInterface(on_trig(flow())),
        "ReparametrizedInterface cannot be trained as a `student`",
    ),
    "halving": (
        lambda: kf.ProgressiveInterface(flow(), num_steps=(8, 3)),
        r"`num_steps` must halve.*\(8, 3\)",
    ),
    "pairs and data": (
        lambda: kf.DMDInterface(
            flow(), regression_weight=1.0, discriminator=mlp()
        ),
        "`regression_weight`.*`discriminator`.*one of them",
    ),
    "method": (lambda: kf.DMDInterface(flow(), method="gan"), "`method`.*gan"),
    "particles": (
        lambda: flow_map("imm").loss(ops.zeros((6, 2))),
        "`particles`.*4.*6",
    ),
    "loss scale": (
        lambda: kf.DMDInterface(flow()).compile(
            keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
        ),
        "cannot scale the loss",
    ),
}  # fmt: skip


@pytest.mark.once
@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    make, message = BAD[case]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        make()
