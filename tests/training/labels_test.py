"""Labels: what has one meaning is taken, the rest is refused by name."""

import warnings

import keras
import numpy as np
import pytest

import keras_flows as kf

BACKEND = keras.backend.backend()
CLASSES = 4
rng = np.random.default_rng(0)
X = rng.standard_normal((32, 2)).astype("float32")
Y = np.arange(32, dtype="int32") % CLASSES


def functional(null_label=None):
    """A network of the user, whose embedding tells how many labels it has."""
    x, t = keras.Input((2,), name="x"), keras.Input((), name="t")
    y = keras.Input((), dtype="int32", name="condition")
    h = keras.layers.Embedding(CLASSES + 1, 4)(y)
    h = keras.layers.Concatenate()([x, kf.networks.TimeFeatures(2)(t), h])
    return keras.Model(
        {"x": x, "t": t, "condition": y}, keras.layers.Dense(2)(h)
    )


def held(model):
    return kf.ReparametrizedInterface(model, "variance_preserving")


def sit(network=None):
    if network is None:
        network = kf.networks.MLP(2, 8, 1, num_classes=CLASSES)
    return kf.SiTInterface(network, ema=None, seed=0)


MODELS = {
    "own": sit,
    "functional": lambda: sit(functional()),
    "holder": lambda: held(sit()),
}


def compiled(name="own"):
    model = MODELS[name]()
    model.compile("sgd")
    return model


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y, **options):
        super().__init__(**options)
        self.x, self.y = x, y
        self.begun = 0

    def __len__(self):
        return len(self.x) // 8

    def __getitem__(self, i):
        rows = slice(8 * i, 8 * i + 8)
        return self.x[rows], self.y[rows]

    def on_epoch_begin(self):
        self.begun += 1


def pairs(x, y):
    return [(x[i : i + 8], y[i : i + 8]) for i in range(0, len(x), 8)]


def tf_data(x, y):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(8)


def torch_loader(x, y):
    data = pytest.importorskip("torch.utils.data")
    return data.DataLoader(list(zip(x, y)), batch_size=8)


def grain_data(x, y):
    grain = pytest.importorskip("grain")
    return grain.MapDataset.source(list(zip(x, y))).batch(8)


DATASETS = {
    "arrays": None,
    "PyDataset": Batches,
    "generator": lambda x, y: (pair for pair in pairs(x, y)),
    "tf.data": tf_data,
    "DataLoader": torch_loader,
    "grain": grain_data,
}
# Each backend's own way, and those that are the same on all once.
FORMS = {
    "tensorflow": ("arrays", "tf.data", "generator"),
    "jax": ("arrays", "tf.data", "PyDataset"),
    "torch": tuple(DATASETS),
}[BACKEND]


def given(how, x, y):
    """(positional arguments, options) of `fit` for data in some form."""
    if how == "arrays":
        return (x, y), {"batch_size": 8}
    options = {"steps_per_epoch": 4} if how == "generator" else {}
    return (DATASETS[how](x, y),), options


def late(bad):
    y = Y.copy()
    y[27] = bad
    return y


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bad", [CLASSES + 1, -1])
@pytest.mark.parametrize("how", FORMS)
def test_a_bad_label_in_a_late_batch_stops_fit(how, bad):
    data, options = given(how, X, late(bad))
    model = compiled()
    with pytest.raises(ValueError, match=f"`condition`.*0 to 3.*{bad}"):
        model.fit(*data, verbose=0, shuffle=False, **options)
    assert all(np.isfinite(v.numpy()).all() for v in model.network.variables)
    model.fit(X, Y, verbose=0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", FORMS)
def test_a_bad_label_stops_validation_and_evaluate(how):
    model = compiled()
    data, options = given(how, X, late(9))
    options = {
        "validation_steps" if k == "steps_per_epoch" else k: v
        for k, v in options.items()
    }
    validation = data if how == "arrays" else data[0]
    with pytest.raises(ValueError, match="`condition`.*0 to 3.*9"):
        model.fit(X, Y, validation_data=validation, verbose=0, **options)
    data, options = given(how, X, late(9))
    options = {
        "steps" if k == "steps_per_epoch" else k: v for k, v in options.items()
    }
    with pytest.raises(ValueError, match="`condition`.*0 to 3.*9"):
        model.evaluate(*data, verbose=0, **options)


@pytest.mark.parametrize("name", MODELS)
def test_every_network_that_tells_its_labels(name):
    model = compiled(name)
    for call in (
        lambda: model.fit(X, late(9), verbose=0),
        lambda: model.evaluate(X, late(-1), verbose=0),
        lambda: model.train_on_batch(X, late(9)),
        lambda: model.test_on_batch(X, late(-1)),
        lambda: model.generate(condition=[0, 9], num_steps=1),
        lambda: model.generate(condition=keras.ops.array([0, -1])),
        lambda: model.generate(2, condition=-1, num_steps=1),
        lambda: model.pred(X[:2], 0.5, condition=[0, 9]),
        lambda: model.denoise(X[:2], 0.5, condition=np.array([0, -1])),
    ):
        with pytest.raises(ValueError, match="`condition`.*labels from 0"):
            call()


ONE_MEANING = {
    "list": lambda y: y.tolist(),
    "tuple": lambda y: tuple(y.tolist()),
    "column": lambda y: y[:, None],
    "int64": lambda y: y.astype("int64"),
    "uint8": lambda y: y.astype("uint8"),
    "tensor": keras.ops.convert_to_tensor,
    "column of a list": lambda y: y[:, None].tolist(),
}


@pytest.mark.parametrize("form", ONE_MEANING)
def test_forms_of_one_meaning_train_and_sample_alike(form):
    losses, samples = [], []
    for y in (Y, ONE_MEANING[form](Y)):
        keras.utils.set_random_seed(0)
        model = compiled()
        history = model.fit(
            X, y, validation_data=(X, y), batch_size=8, shuffle=False, verbose=0
        ).history
        losses.append([history["loss"], history["val_loss"]])
        samples.append(
            keras.ops.convert_to_numpy(
                model.generate(condition=y, num_steps=1, seed=0)
            )
        )
        pred = model.pred(X, 0.5, condition=y)
        losses[-1].append(float(keras.ops.mean(pred)))
    np.testing.assert_allclose(losses[0][:2], losses[1][:2], rtol=1e-6)
    np.testing.assert_allclose(losses[0][2], losses[1][2], rtol=1e-5)
    np.testing.assert_allclose(*samples, rtol=1e-6)


@pytest.mark.parametrize(
    "one", [2, np.int64(2), np.array(2), [2] * 3, range(2, 3)], ids=repr
)
def test_numbers_and_ranges_sample(one):
    model = compiled()
    count = 1 if isinstance(one, range) else 3
    found = model.generate(count, condition=one, num_steps=1, seed=0)
    wanted = model.generate(condition=[2] * count, num_steps=1, seed=0)
    np.testing.assert_allclose(
        *(keras.ops.convert_to_numpy(a) for a in (found, wanted))
    )


SEVERAL_MEANINGS = {
    "floats": (Y / 1.0, "float64.*astype"),
    "halves": (Y + 0.5, "float64.*astype"),
    "one-hot": (np.eye(4, dtype="float32")[Y], r"one-hot rows by y.argmax"),
    "whole one-hot": (np.eye(4, dtype="int32")[Y], r"one-hot rows.*y.argmax"),
    "strings": (np.array(list("abcd"))[Y], "np.unique"),
    "booleans": (Y > 1, "bool.*astype"),
    "a list of floats": ((Y / 1.0).tolist(), "float64.*astype"),
    "ragged": ([[1], [1, 2]] * 16, "different lengths"),
}


@pytest.mark.parametrize("case", SEVERAL_MEANINGS)
def test_what_has_several_meanings_is_refused(case):
    y, message = SEVERAL_MEANINGS[case]
    model = compiled()
    for call in (
        lambda: model.fit(X, y, verbose=0),
        lambda: model.fit(X, Y, validation_data=(X, y), verbose=0),
        lambda: model.evaluate(X, y, verbose=0),
        lambda: model.generate(condition=y, num_steps=1),
        lambda: model.pred(X, 0.5, condition=y),
    ):
        with pytest.raises(ValueError, match=f"(?s)`condition`.*{message}"):
            call()
    assert int(model.optimizer.iterations.numpy()) == 0


def test_labels_from_1_are_refused():
    with pytest.raises(ValueError, match="from 1 to 4.*null label.*y - 1"):
        compiled().fit(X, Y + 1, verbose=0)


@pytest.mark.parametrize("how", ["arrays", "PyDataset", "generator"])
def test_the_null_label_in_data_is_told(how):
    y = late(CLASSES)
    y[0] = CLASSES
    data, options = given(how, X, y)
    with pytest.warns(UserWarning, match="null label.*unconditional"):
        compiled().fit(*data, verbose=0, **options)


def test_datasets_keep_what_they_are():
    """Length, epochs' hooks and threads survive the check."""
    data = Batches(X, Y, workers=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        history = compiled().fit(data, epochs=2, verbose=0)
    assert data.begun == 2 and history.params["steps"] == 4
