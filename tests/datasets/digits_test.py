"""The digits: disjoint splits, scale, and the builder that loads by name."""

import numpy as np
import pytest

import keras_flows as kf

pytest.importorskip("sklearn")


def test_splits_are_disjoint_and_complete():
    splits = {s: kf.datasets.digits(s) for s in ("train", "validation", "test")}
    assert [len(x) for x, _ in splits.values()] == [1197, 200, 400]
    from sklearn.datasets import load_digits

    everything = np.concatenate([x for x, _ in splits.values()])
    # The same images, each as often as in the bundle.
    ours = np.sort(8.0 * everything.reshape(1797, -1) + 8.0, axis=0)
    theirs = np.sort(load_digits().images.reshape(1797, -1), axis=0)
    np.testing.assert_array_equal(ours, theirs)
    for x, labels in splits.values():
        assert x.min() == -1.0 and x.max() == 1.0
        assert set(labels) == set(range(10))


def test_labels_belong_to_their_images():
    """The nearest class mean of the training split knows the test digits."""
    x, labels = kf.datasets.digits("train")
    means = np.stack([x[labels == k].mean(axis=0) for k in range(10)])
    x, labels = kf.datasets.digits("test")
    distance = ((x[:, None] - means[None]) ** 2).sum(axis=(2, 3, 4))
    assert (distance.argmin(axis=1) == labels).mean() > 0.85


def test_unknown_split_is_named():
    with pytest.raises(ValueError, match="`split`.*validation.*'valid'"):
        kf.datasets.digits("valid")


def test_builder_loads_by_name_without_network(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    import keras_flows.datasets.digits_builder  # noqa: F401

    source = tfds.data_source(
        "sklearn_digits",
        split="test",
        data_dir=str(tmp_path),
        builder_kwargs={"file_format": "array_record"},
    )
    assert len(source) == 400
    images, labels = kf.datasets.digits("test")
    expected = sorted(
        (tuple(x.ravel()), int(label))
        for x, label in zip(images, labels, strict=True)
    )
    rows = sorted(
        (tuple(row["image"].ravel() / np.float32(8) - 1), int(row["label"]))
        for row in source
    )
    assert rows == expected
