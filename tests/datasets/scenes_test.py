"""Scenes: what is drawn is what the labels say; their builder and batches."""

import keras
import numpy as np
import pytest

import keras_flows as kf
from keras_flows.datasets.scenes import FACTORS
from keras_flows.datasets.scenes import hue_to_rgb

pytestmark = pytest.mark.once

MIDDLE = {
    "floor_hue": 0.25, "wall_hue": 0.6, "object_hue": 0.0, "shape": 0,
    "size": 0.5, "pose": 0.5,
}  # fmt: skip


def one(pixels=32, **values):
    """The image of given values, (pixels, pixels, 3)."""
    values = {k: np.array([v]) for k, v in {**MIDDLE, **values}.items()}
    return kf.datasets.Scenes(pixels).render(values)[0]


def share_of_object(pixels=32, **values):
    """How much of each pixel the object covers, about, (pixels, pixels)."""
    red, blue = (one(pixels, object_hue=hue, **values) for hue in (0.0, 2 / 3))
    differ = np.abs(red - blue).max(axis=-1)
    return differ / differ.max()


def hue_of(colours):
    """Hues of colours (..., 3) in [-1, 1], by the hexagon of HSV."""
    r, g, b = np.moveaxis((np.asarray(colours, "float64") + 1) / 2, -1, 0)
    high, spread = np.maximum(np.maximum(r, g), b), np.ptp([r, g, b], axis=0)
    sixth = np.select(
        [high == r, high == g],
        [(g - b) / spread % 6, (b - r) / spread + 2],
        (r - g) / spread + 4,
    )
    return sixth / 6


def apart(a, b):
    """Distance of hues on their circle."""
    d = np.abs(a - b) % 1.0
    return np.minimum(d, 1.0 - d)


def test_a_seed_gives_its_images_at_every_size():
    scenes = kf.datasets.Scenes(32)
    x, labels = scenes.sample_labelled(6, seed=3)
    assert x.shape == (6, 32, 32, 3) and x.dtype == np.float32
    assert x.min() >= -1 and x.max() <= 1
    np.testing.assert_array_equal(scenes.sample(6, seed=3), x)
    assert np.abs(scenes.sample(6, seed=4) - x).max() > 0.5
    for size in (64, 128):
        large, same = kf.datasets.Scenes(size).sample_labelled(6, seed=3)
        for name in FACTORS:
            np.testing.assert_array_equal(same[name], labels[name])
        k = size // 32
        means = large.reshape(6, 32, k, 32, k, 3).mean(axis=(2, 4))
        # The same picture: only pixels that an edge crosses differ.
        assert np.abs(means - x).mean() < 0.01
        assert np.abs(large - np.roll(large, 1, axis=0)).mean() > 0.1


def test_parts_of_a_large_draw_are_those_of_a_small_one():
    """Rendering goes by chunks: 128 pixels take several."""
    scenes = kf.datasets.Scenes(128)
    values, _ = scenes.sample_factors(70, seed=0)
    x = scenes.render(values)
    last = {name: value[-2:] for name, value in values.items()}
    np.testing.assert_array_equal(scenes.render(last), x[-2:])


def test_every_factor_is_uniform_and_independent():
    values, labels = kf.datasets.Scenes().sample_factors(24_000, seed=0)
    for name, count in FACTORS.items():
        assert labels[name].dtype == np.int32
        share = np.bincount(labels[name], minlength=count) / 24_000
        # Five standard deviations of a share.
        bound = 5 * np.sqrt((1 / count) / 24_000)
        assert len(share) == count and np.abs(share - 1 / count).max() < bound
        if name == "shape":
            np.testing.assert_array_equal(values[name], labels[name])
            continue
        # Uniform on the middle 60 % of the label's range, hue 0 being red.
        middle = labels[name] / count
        if not name.endswith("hue"):
            middle = middle + 0.5 / count
        off = (values[name] - middle + 0.5) % 1.0 - 0.5
        assert np.abs(off).max() <= 0.3 / count + 1e-9
        np.testing.assert_allclose(off.std() * count, 0.6 / 12**0.5, rtol=0.02)
    names = list(FACTORS)
    table = np.corrcoef([labels[name] for name in names])
    assert np.abs(table - np.eye(len(names))).max() < 0.035


def test_labels_agree_with_the_pixels():
    x, labels = kf.datasets.Scenes(32).sample_labelled(200, seed=0)
    # The lowest row is floor, the uppermost wall, in all of them.
    for name, row in (("floor_hue", -1), ("wall_hue", 0)):
        seen = hue_of(x[:, row].mean(axis=1))
        assert apart(seen, labels[name] / 8).max() < 0.5 / 8
    # What differs from the room without the object is the object.
    values, labels = kf.datasets.Scenes(32).sample_factors(200, seed=0)
    red = {**values, "object_hue": np.zeros(200)}
    blue = {**values, "object_hue": np.full(200, 2 / 3)}
    scenes = kf.datasets.Scenes(32)
    differ = np.abs(scenes.render(red) - scenes.render(blue)).max(axis=-1)
    inside = differ > 0.9 * differ.max(axis=(1, 2), keepdims=True)
    colour = (x * inside[..., None]).sum(axis=(1, 2))
    seen = hue_of(colour / inside.sum(axis=(1, 2))[:, None])
    assert apart(seen, labels["object_hue"] / 8).max() < 0.5 / 8
    # Its area grows with the size, for every shape.
    area = (differ > 0.3).sum(axis=(1, 2))
    for shape in range(4):
        mean = [
            area[(labels["shape"] == shape) & (labels["size"] == k)].mean()
            for k in range(4)
        ]
        assert (np.diff(mean) > 0.2 * np.array(mean[:-1])).all()


def test_shapes_have_the_outlines_of_their_solids():
    """Widths of the object by rows, at 128 pixels."""

    def widths(shape):
        return (share_of_object(128, shape=shape) > 0.2).sum(axis=1)

    ball, box, cylinder, cone = map(widths, range(4))
    for found in (ball, box, cylinder, cone):
        rows = np.flatnonzero(found)
        assert len(rows) == np.ptp(rows) + 1 > 20  # in one piece
    # A disc is as wide as high, and pi / 4 of that square.
    high = np.count_nonzero(ball)
    assert abs(ball.max() / high - 1) < 0.1
    assert abs(ball.sum() / ball.max() ** 2 - np.pi / 4) < 0.03
    # A triangle is half of its rectangle; its tip is narrow, its base wide.
    assert 0.4 < cone.sum() / (cone.max() * np.count_nonzero(cone)) < 0.65
    rows = np.flatnonzero(cone)
    assert cone[rows[0] + 1] < 0.15 * cone.max()
    # The others are upright.
    for found in (box, cylinder):
        middle = np.flatnonzero(found)[len(np.flatnonzero(found)) // 2]
        assert found[middle] > 0.9 * found.max()


def test_the_pose_turns_room_and_box_but_no_ball():
    for shape, turns in ((0, False), (1, True)):
        before, after = (one(shape=shape, pose=p) for p in (0.3, 0.45))
        inside = share_of_object(shape=shape, pose=0.3) > 0.8
        assert inside.sum() > 10
        differ = np.abs(before - after)[inside].max()
        assert differ > 0.2 if turns else differ < 1e-6
        assert np.abs(before - after)[~inside].max() > 0.2
    # At both ends the corner of the room is in the middle of the picture.
    for pose in (0.0, 1.0):
        row = one(128, pose=pose)[4].mean(axis=-1)
        jump = np.abs(np.diff(row))
        assert abs(jump.argmax() - 63) <= 2 and jump.max() > 0.1


def test_edges_are_smooth():
    """A pixel that an edge crosses has a colour between the two sides."""
    share = share_of_object(64)
    assert ((share > 0.15) & (share < 0.6)).sum() > 20


def test_hues_are_those_of_hsv():
    hues = np.arange(0, 1, 1 / 12)
    found = hue_of(2 * hue_to_rgb(hues) - 1)
    np.testing.assert_allclose(apart(found, hues), 0, atol=1e-6)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"size": 1.5}, r"`values\['size'\]` must lie in \[0, 1.0\]"),
        ({"shape": 4}, r"`values\['shape'\]` must lie in \[0, 3\]"),
        ({"pose": float("nan")}, "pose"),
        ({"hue": 0.5}, "`values` must be a dict of"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        one(**values)


def test_sizes_are_those_three():
    with pytest.raises(ValueError, match="`size` must be one of.*48"):
        kf.datasets.Scenes(48)


def test_labelled_batches_train_a_network_of_several_labels():
    data = kf.datasets.Endless(kf.datasets.Scenes(32), 4, seed=1, labelled=True)
    images, labels = data[3]
    np.testing.assert_array_equal(images, data[3][0])
    assert images.shape == (4, 32, 32, 3) and set(labels) == set(FACTORS)
    with pytest.raises(ValueError, match="`sample_labelled"):
        kf.datasets.Endless(kf.datasets.Rings(), 4, labelled=True)
    network = kf.networks.DiT(
        (32, 32, 3), 16, width=8, depth=1, num_heads=2, num_classes=FACTORS
    )
    model = kf.SiTInterface(network, ema=None, seed=0)
    model.compile(keras.optimizers.SGD(0.1))
    model.fit(data, steps_per_epoch=1, verbose=0)
    x = model.generate(2, condition={k: v[:2] for k, v in labels.items()},
                       num_steps=1, seed=0)  # fmt: skip
    assert tuple(x.shape) == (2, 32, 32, 3)


@pytest.mark.slow
def test_builder_loads_by_name_without_network(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    import keras_flows.datasets.scenes_builder  # noqa: F401

    source = tfds.data_source(
        "scenes/32",
        split="test",
        data_dir=str(tmp_path),
        builder_kwargs={"file_format": "array_record"},
    )
    assert len(source) == 2_000
    rng = np.random.Generator(np.random.Philox(1))
    x, labels = kf.datasets.Scenes(32).sample_labelled(500, rng)
    expected = {np.round((a + 1) * 127.5).astype("uint8").tobytes(): i
                for i, a in enumerate(x)}  # fmt: skip
    found = 0
    for i in range(100):
        row = source[i]
        at = expected.get(row["image"].tobytes())
        if at is not None:
            found += 1
            assert all(row[k] == labels[k][at] for k in FACTORS)
    assert found > 5
