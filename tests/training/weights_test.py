"""Weights of examples count, however they come, or are refused by name."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_flows as kf

ROWS = 8
PLAIN = {"ema": None, "seed": 0}


def mlp(**kwargs):
    keras.utils.set_random_seed(0)
    return kf.networks.MLP(2, width=8, depth=1, **kwargs)


def points(rows=ROWS):
    return np.random.default_rng(0).standard_normal((rows, 2)).astype("float32")


def labels(rows=ROWS):
    return (np.arange(rows) % 3).astype("int32")


WEIGHT = np.array([0, 2, 0, 1, 0.5, 3, 0, 1], "float32")
MODELS = {
    "SiT": lambda: kf.SiTInterface(mlp(), **PLAIN),
    "labels": lambda: kf.SiTInterface(mlp(num_classes=3), **PLAIN),
    "MeanFlow": lambda: kf.MeanFlowInterface(mlp(two_times=True), **PLAIN),
    "LSD": lambda: kf.FlowMapInterface(mlp(two_times=True), "lsd", **PLAIN),
    "reparametrized": lambda: kf.ReparametrizedInterface(
        kf.SiTInterface(mlp(), **PLAIN), kf.interpolants.TrigFlow()
    ),
}


class Batches(keras.utils.PyDataset):
    def __init__(self, batch):
        super().__init__()
        self.batch = batch
        self.ended = 0

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.batch

    def on_epoch_end(self):
        self.ended += 1


def generator(batch):
    yield batch


def as_torch(batch):
    import torch

    rows = list(range(ROWS))
    batch = keras.tree.map_structure(
        lambda part: None if part is None else torch.as_tensor(part), batch
    )
    return torch.utils.data.DataLoader(
        rows, batch_size=ROWS, collate_fn=lambda rows: batch
    )


def terms_of(name):
    """Each example's terms in the first evaluated batch."""
    model = MODELS[name]()
    kept = []
    loss = model.loss

    def spied(*args, **kwargs):
        found = loss(*args, **kwargs)
        kept.append({k: ops.convert_to_numpy(v) for k, v in found.items()})
        return found

    model.loss = spied
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    given = labels() if name == "labels" else None
    model.evaluate(points(), given, batch_size=ROWS, verbose=0)
    return kept[-1]


def holders(x, y):
    yield "sample_weight", (x, y), {"sample_weight": WEIGHT}
    yield "extras", (Batches((x, y, {"weight": WEIGHT})),), {}
    yield "Keras's own", (generator((x, y, WEIGHT)),), {}
    if keras.backend.backend() == "torch":
        yield "a column", (x, y), {"sample_weight": WEIGHT[:, None]}
        for make in (generator, as_torch):
            yield "extras", (make((x, y, {"weight": WEIGHT})),), {}
        for make in (Batches, as_torch):
            yield "Keras's own", (make((x, y, WEIGHT)),), {}


@pytest.mark.parametrize(
    "name",
    [
        name if name == "SiT" else pytest.param(name, marks=pytest.mark.once)
        for name in MODELS
    ],
)
def test_weights_count_in_the_loss_and_in_the_logs(name):
    terms = terms_of(name)
    want = {
        key: np.mean(WEIGHT * term)
        for key, term in terms.items()
        if key != "error"
    }
    if "error" in terms:
        want["weighted_loss"] = want["loss"]
        want["loss"] = np.mean(WEIGHT * terms["error"])
    model = MODELS[name]()
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    given = labels() if name == "labels" else None
    for what, args, kwargs in holders(points(), given):
        found = model.evaluate(
            *args, batch_size=ROWS if len(args) > 1 else None, verbose=0,
            return_dict=True, **kwargs,
        )  # fmt: skip
        assert found == pytest.approx(want, rel=1e-5), what
    history = model.fit(
        points(), given, batch_size=ROWS, verbose=0,
        validation_data=(points(), given, WEIGHT),
    ).history  # fmt: skip
    assert history["val_loss"][0] == pytest.approx(want["loss"], rel=1e-5)


@pytest.mark.parametrize(
    "with_labels", [False, pytest.param(True, marks=pytest.mark.once)]
)
def test_fit_learns_only_what_weighs(with_labels):
    """Rows of weight 0 may be anything; those of equal weight are plain."""
    changes = []
    for x, weight in (
        (points(), WEIGHT),
        (np.where(WEIGHT[:, None] > 0, points(), 50.0), WEIGHT),
        (points(), None),
        (points(), np.ones(ROWS)),
        (points(), 0.0 * WEIGHT),
    ):
        model = MODELS["labels" if with_labels else "SiT"]()
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        before = model.network.get_weights()
        model.fit(
            x.astype("float32"), labels() if with_labels else None,
            sample_weight=weight, batch_size=ROWS, shuffle=False, verbose=0,
        )  # fmt: skip
        after = model.network.get_weights()
        pairs = zip(before, after, strict=True)
        changes.append(np.concatenate([(b - a).ravel() for b, a in pairs]))
    weighted, spoiled, plain, ones, none = changes
    np.testing.assert_allclose(weighted, spoiled, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(plain, ones, rtol=1e-4, atol=1e-7)
    assert np.abs(weighted - plain).max() > 1e-4
    assert np.all(none == 0)


@pytest.mark.once
def test_other_ways_in():
    model = MODELS["SiT"]()
    model.compile(keras.optimizers.SGD(0.0))
    terms = terms_of("SiT")["loss"]
    split = model.fit(
        points(16), sample_weight=np.tile(WEIGHT, 2), validation_split=0.5,
        batch_size=ROWS, verbose=0,
    )  # fmt: skip
    assert np.isfinite(split.history["val_loss"]).all()
    logs = model.train_on_batch(points(), None, 0 * WEIGHT, return_dict=True)
    assert logs["loss"] == 0.0
    data = Batches((points(), None, None))
    history = model.fit(data, validation_data=data, epochs=2, verbose=0).history
    assert data.ended >= 2
    assert history["val_loss"][0] == pytest.approx(terms.mean(), rel=1e-5)


@pytest.mark.once
def test_weights_that_cannot_count_are_refused():
    model = MODELS["SiT"]()
    model.compile(keras.optimizers.SGD(0.0))
    x = points()
    for wrong in (WEIGHT[:4], -1 - WEIGHT, np.nan * WEIGHT, np.ones((8, 2)), 1):
        for call in (model.fit, model.evaluate):
            with pytest.raises(ValueError, match="`sample_weight` must"):
                call(x, sample_weight=wrong, verbose=0)
    with pytest.raises(ValueError, match="`sample_weight` goes with arrays"):
        model.fit(Batches((x,)), sample_weight=WEIGHT)
    with pytest.raises(ValueError, match=r"weights .* \(batch,\).*\(4,\)"):
        model.fit(Batches((x, None, WEIGHT[:4])), verbose=0)
    for call in (model.fit, model.train_on_batch):
        with pytest.raises(ValueError, match="`class_weight` is for class"):
            call(x, labels(), class_weight={0: 1.0, 1: 2.0, 2: 1.0})
    path = kf.interpolants.StochasticInterpolant(gamma="none")
    for refuses, y in (
        (kf.StochasticInterpolantInterface(mlp(), interpolant=path), x),
        (kf.FlowMapInterface(mlp(two_times=True), "imm"), None),
        (kf.SiTInterface(mlp(), stable_target=True), None),
    ):
        refuses.compile("sgd")
        with pytest.raises(ValueError, match="`sample_weight`"):
            refuses.fit(x, y, sample_weight=WEIGHT, verbose=0)


class Aligned(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return (points(), None, {"mask": np.ones((ROWS, 2), "float32")})


def test_a_dataset_may_leave_the_condition_out():
    """None where Keras's own adapters take none."""
    model = MODELS["SiT"]()
    model.compile(keras.optimizers.SGD(0.1))
    history = model.fit(Aligned(), validation_data=Aligned(), verbose=0).history
    assert np.isfinite(history["loss"] + history["val_loss"]).all()
    batch = Aligned()[0]
    history = model.fit(generator(batch), steps_per_epoch=1, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert np.isfinite(model.evaluate(as_torch(batch), verbose=0)[0])
