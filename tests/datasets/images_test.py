"""Image pipelines: order, resuming, ADM's crop, labels, and what they refuse.

The images are made on the spot, each of one grey value that names it.
"""

import io
import json
import zipfile
import zlib

import keras
import numpy as np
import pytest
from helpers.close import close

import keras_flows as kf
from keras_flows.datasets.sources import decode

# Arrays and files; what of it reaches `fit` is in training_test, too.
pytestmark = pytest.mark.once

Image = pytest.importorskip("PIL.Image")


def png(pixels, format="PNG"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=format)
    return file.getvalue()


def flat(value, channels=3, size=8):
    shape = (size, size) if channels == 1 else (size, size, channels)
    return np.full(shape, value, "uint8")


def gradient(value, size=8):
    """Pixels that name the image and tell left from right."""
    pixels = np.tile(np.arange(size, dtype="uint8"), (size, 1)) + value
    return np.repeat(pixels[..., None], 3, axis=-1)


@pytest.fixture
def folder(tmp_path):
    """Ten images of values 0, 10, .. 90, four of 'cat' and six of 'dog'."""
    for i in range(10):
        path = tmp_path / "images" / ("cat" if i < 4 else "dog")
        path.mkdir(parents=True, exist_ok=True)
        (path / f"{i}.png").write_bytes(png(gradient(10 * i)))
    return tmp_path / "images"


def names_of(batch):
    """The numbers of the images in a batch of `folder`'s."""
    least = batch[0].reshape(len(batch[0]), -1).min(axis=1)
    return (np.round((least + 1) * 127.5) // 10).astype(int).tolist()


def epoch_of(data):
    """An epoch as `fit` reads it, the epochs' hooks included."""
    data.on_epoch_end()  # Keras does so before the first epoch
    data.on_epoch_begin()
    names = sum((names_of(data[i]) for i in range(data.num_batches)), [])
    data.on_epoch_end()
    return names


def test_batches_of_a_folder(folder):
    data = kf.datasets.from_image_folder(folder, 5)
    images, labels = data[0]
    assert images.shape == (5, 8, 8, 3) and images.dtype == np.float32
    assert labels.dtype == np.int32
    assert data.classes == ["cat", "dog"]
    for name, image, label in zip(names_of(data[0]), images, labels):
        assert label == (name >= 4)
        np.testing.assert_allclose(
            image, gradient(10 * name) / 127.5 - 1, atol=1e-6
        )


def test_each_epoch_has_every_image_once_in_an_order_of_its_own(folder):
    data = kf.datasets.from_image_folder(folder, 5, seed=3)
    assert data.num_batches == 2
    orders = [epoch_of(data) for _ in range(3)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len(set(map(tuple, orders))) == 3
    # The same seed, the same epochs; the next seed shares none.
    again = kf.datasets.from_image_folder(folder, 5, seed=3)
    assert epoch_of(again) == orders[0]
    other = kf.datasets.from_image_folder(folder, 5, seed=4)
    assert all(epoch_of(other) not in orders for _ in range(3))


def test_remainders(folder):
    data = kf.datasets.from_image_folder(folder, 4)
    assert data.num_batches == 2 and len(data[1][0]) == 4
    rest = kf.datasets.from_image_folder(
        folder, 4, shuffle=False, drop_remainder=False
    )
    assert rest.num_batches == 3
    assert epoch_of(rest) == list(range(10))
    assert names_of(rest[2]) == [8, 9]
    # Without end, batches run on over epochs of ten images.
    endless = kf.datasets.from_image_folder(folder, 4, repeat=True)
    assert endless.num_batches is None
    names = [name for i in range(5) for name in names_of(endless[i])]
    assert sorted(names[:10]) == sorted(names[10:]) == list(range(10))


def test_shards_part_every_epoch(folder):
    shards = [
        kf.datasets.from_image_folder(folder, 1, seed=1, shard=(i, 3))
        for i in range(3)
    ]
    epochs = []
    for _ in range(2):
        epochs.append([epoch_of(shard) for shard in shards])
        assert [len(part) for part in epochs[-1]] == [3, 3, 3]
        assert len(set(sum(epochs[-1], []))) == 9
    assert epochs[0] != epochs[1]


def test_resuming_gives_the_same_next_batch(folder):
    def make(**kwargs):
        return kf.datasets.from_image_folder(
            folder, 4, flip=True, repeat=True, **{"seed": 5, **kwargs}
        )

    data = make()
    state = json.loads(json.dumps(data.state(7)))
    resumed = make()
    resumed.restore(state)
    for i in range(3):
        for a, b in zip(data[7 + i], resumed[i]):
            np.testing.assert_array_equal(a, b)
    assert resumed.state(3) == data.state(10)
    with pytest.raises(ValueError, match="`state`.*seed was 5 and is 6"):
        make(seed=6).restore(state)
    passes = kf.datasets.from_image_folder(folder, 4)
    with pytest.raises(ValueError, match="`start` must be whole epochs of 2"):
        passes.restore({**passes.state(), "position": 3})


def test_flips_are_half_and_change_with_the_epoch(folder):
    data = kf.datasets.from_image_folder(folder, 10, flip=True, repeat=True)
    flipped = np.array(
        [
            [row[0, 0, 0] > row[0, -1, 0] for row in data[i][0]]
            for i in range(40)
        ]
    )
    # 400 fair coins: standard deviation 0.025.
    assert abs(flipped.mean() - 0.5) < 0.1
    assert 0 < flipped.sum(axis=1).std()
    image = data[0][0][flipped[0]][0]
    name = round((image.min() + 1) * 12.75)
    np.testing.assert_allclose(
        image, gradient(10 * name)[:, ::-1] / 127.5 - 1, atol=1e-6
    )


def resize_by_formula(pixels, size):
    """ADM's procedure with NumPy: box means, then cubic kernels (a = -0.5).

    Pillow works along the rows first and rounds after each direction.
    """

    def byte(x):
        return np.clip(np.floor(x + 0.5), 0, 255)

    def cubic(old, new):
        stretch = max(old / new, 1.0)
        centre = (np.arange(new)[:, None] + 0.5) * old / new
        d = np.abs((np.arange(old)[None] + 0.5 - centre) / stretch)
        near = ((1.5 * d) - 2.5) * d * d + 1
        far = ((-0.5 * d + 2.5) * d - 4) * d + 2
        kernel = np.where(d < 1, near, np.where(d < 2, far, 0.0))
        return kernel / kernel.sum(axis=1, keepdims=True)

    x = pixels.astype("float64")
    while min(x.shape[:2]) >= 2 * size:  # even sides here
        x = byte((x[:, ::2] + x[:, 1::2]) / 2)
        x = byte((x[::2] + x[1::2]) / 2)
    scale = size / min(x.shape[:2])
    height, width = (round(side * scale) for side in x.shape[:2])
    x = byte(np.einsum("qw,hwc->hqc", cubic(x.shape[1], width), x))
    x = byte(np.einsum("ph,hqc->pqc", cubic(x.shape[0], height), x))
    top, left = (height - size) // 2, (width - size) // 2
    return x[top : top + size, left : left + size]


@pytest.mark.parametrize("shape", [(48, 32), (96, 112), (11, 17), (17, 12)])
@pytest.mark.parametrize("channels", [1, 3])
def test_crop_is_adms(shape, channels, rng):
    ramp = np.add.outer(3 * np.arange(shape[0]), np.arange(shape[1]))
    pixels = (ramp[..., None] + rng.integers(0, 60, (*shape, channels))) % 256
    ours = kf.datasets.center_crop(pixels.astype("uint8"), 12)
    assert ours.shape == (12, 12, channels) and ours.dtype == np.uint8
    difference = np.abs(ours - resize_by_formula(pixels, 12))
    # Pillow's kernels are of fixed point.
    assert difference.max() <= 1 and difference.mean() < 0.02


def test_crop_is_the_published_function(rng):
    """`center_crop_arr` of openai/guided-diffusion, image_datasets.py."""

    def center_crop_arr(pil_image, image_size):
        while min(*pil_image.size) >= 2 * image_size:
            pil_image = pil_image.resize(
                tuple(x // 2 for x in pil_image.size), resample=Image.BOX
            )
        scale = image_size / min(*pil_image.size)
        pil_image = pil_image.resize(
            tuple(round(x * scale) for x in pil_image.size),
            resample=Image.BICUBIC,
        )
        arr = np.array(pil_image)
        crop_y = (arr.shape[0] - image_size) // 2
        crop_x = (arr.shape[1] - image_size) // 2
        return arr[crop_y : crop_y + image_size, crop_x : crop_x + image_size]

    for shape in [(101, 67), (33, 200), (16, 16), (5, 9)]:
        pixels = rng.integers(0, 256, (*shape, 3)).astype("uint8")
        np.testing.assert_array_equal(
            kf.datasets.center_crop(pixels, 16),
            center_crop_arr(Image.fromarray(pixels), 16),
        )


def test_folder_without_labels_and_grey_images(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(png(flat(10 * i, channels=1)))
    data = kf.datasets.from_image_folder(tmp_path, 3)
    assert len(data[0]) == 1 and data[0][0].shape == (3, 8, 8, 1)
    assert data.classes is None
    data = kf.datasets.from_image_folder(tmp_path, 3, rgb=True)
    assert data[0][0].shape == (3, 8, 8, 3)
    assert np.ptp(data[0][0], axis=-1).max() == 0
    (tmp_path / "colour.png").write_bytes(png(flat(5)))
    data = kf.datasets.from_image_folder(tmp_path, 4)
    with pytest.raises(ValueError, match="different shapes.*rgb=True"):
        data[0]
    data = kf.datasets.from_image_folder(tmp_path, 4, rgb=True, image_size=4)
    assert data[0][0].shape == (4, 4, 4, 3)


def test_class_file_keeps_the_labels(folder, tmp_path):
    file = tmp_path / "classes.json"
    kf.datasets.from_image_folder(folder, 5, class_file=file)
    assert json.loads(file.read_text()) == ["cat", "dog"]
    split = tmp_path / "validation" / "dog"
    split.mkdir(parents=True)
    (split / "0.png").write_bytes(png(gradient(0)))
    data = kf.datasets.from_image_folder(split.parent, 1, class_file=file)
    assert data[0][1].tolist() == [1]
    (split.parent / "cow").mkdir()
    (split.parent / "cow" / "0.png").write_bytes(png(gradient(0)))
    with pytest.raises(ValueError, match=r"\['cow'\] are not in `class_file`"):
        kf.datasets.from_image_folder(split.parent, 1, class_file=file)


def test_folders_that_are_refused(folder, tmp_path):
    def read(path, **kwargs):
        return kf.datasets.from_image_folder(path, 1, **kwargs)

    with pytest.raises(ValueError, match="is no folder"):
        read(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="'.*empty' holds no images"):
        read(tmp_path / "empty")
    with pytest.raises(ValueError, match="`batch_size` 11 is more than the 10"):
        kf.datasets.from_image_folder(folder, 11)
    with pytest.raises(ValueError, match="`image_size`.*0"):
        read(folder, image_size=0)
    with pytest.raises(ValueError, match="`seed`.*-1"):
        read(folder, seed=-1)
    with pytest.raises(ValueError, match=r"`shard`.*\(2, 2\)"):
        read(folder, shard=(2, 2))
    (folder / "cow").mkdir()
    with pytest.raises(ValueError, match=r"without images: \['cow'\]"):
        read(folder)
    (folder / "cow" / "bad.png").write_bytes(png(gradient(0))[:48])
    data = kf.datasets.from_image_folder(folder, 11)
    with pytest.raises(ValueError, match="bad.png' cannot be read"):
        data[0]
    (folder / "loose.png").write_bytes(png(gradient(0)))
    with pytest.raises(ValueError, match="both images.*loose.png.*folders"):
        read(folder)


def test_an_image_that_would_fill_the_memory_is_refused(folder):
    """A small file that says that it has 2.5e9 pixels."""
    data = bytearray(png(flat(7)))
    data[16:24] = (50_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (folder / "cat" / "0.png").write_bytes(data)
    with pytest.raises(ValueError, match="0.png' cannot be read.*2500000000"):
        kf.datasets.from_image_folder(folder, 10)[0]


def test_one_class_alone(tmp_path):
    (tmp_path / "cat").mkdir()
    for i in range(2):
        (tmp_path / "cat" / f"{i}.png").write_bytes(png(flat(i)))
    data = kf.datasets.from_image_folder(tmp_path, 2)
    assert data.classes == ["cat"] and data[0][1].tolist() == [0, 0]
    model = model_for((8, 8, 3), num_classes=1)
    model.fit(data, epochs=1, verbose=0)
    assert steps_of(model) == 1


def test_modes_are_not_lost_silently():
    transparent = np.dstack([flat(7), flat(200, 1)])
    with pytest.raises(ValueError, match="a.png' has mode 'RGBA'"):
        decode(png(transparent), "a.png")
    with pytest.raises(ValueError, match="b.png' has mode 'I;16'"):
        decode(png(np.full((8, 8), 999, "uint16")), "b.png")
    file = io.BytesIO()
    Image.fromarray(flat(7)).convert("P").save(file, format="PNG")
    assert decode(file.getvalue(), "c.png").shape == (8, 8, 3)


def edm_files(labels):
    files = {
        f"00000/img{i:08d}.png": png(gradient(10 * i, size=4)) for i in range(4)
    }
    planes = np.arange(48, dtype="uint8").reshape(3, 4, 4)
    npy = io.BytesIO()
    np.save(npy, planes)
    files["00000/img00000004.npy"] = npy.getvalue()
    if labels is not None:
        labels = [[n, label] for n, label in zip(sorted(files), labels)]
    files["dataset.json"] = json.dumps({"labels": labels}).encode()
    return files


def write_zip(path, files):
    with zipfile.ZipFile(path, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    return path


def test_edm_zip_and_folder(tmp_path):
    files = edm_files([3, 1, 0, 2, 3])
    path = write_zip(tmp_path / "set.zip", files)
    for name, data in files.items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(data)
    for place in (path, tmp_path / "set"):
        data = kf.datasets.from_edm_zip(place, 5, shuffle=False)
        images, labels = data[0]
        assert labels.tolist() == [3, 1, 0, 2, 3] and data.classes == 4
        np.testing.assert_allclose(
            images[1], gradient(10, size=4) / 127.5 - 1, atol=1e-6
        )
        # (C, H, W) in the file, channels last here.
        close(
            (images[4] + 1) * 127.5,
            np.arange(48).reshape(3, 4, 4).transpose(1, 2, 0),
            6,
        )
    write_zip(tmp_path / "unlabelled.zip", edm_files(None))
    data = kf.datasets.from_edm_zip(tmp_path / "unlabelled.zip", 5)
    assert len(data[0]) == 1


def test_edm_zips_that_are_refused(tmp_path):
    def read(files):
        return kf.datasets.from_edm_zip(
            write_zip(tmp_path / "a.zip", files), len(files) - 1
        )

    with pytest.raises(ValueError, match="1 of 5 .*img00000004.npy' first"):
        read(edm_files([3, 1, 0, 2]))
    with pytest.raises(ValueError, match=r"\[0, 1\] for '00000/img00000000"):
        read(edm_files([[0, 1]] * 5))
    with pytest.raises(ValueError, match="holds no images"):
        read({"dataset.json": b"{}", "note.txt": b""})
    bad = edm_files([0] * 5)
    bad["00000/img00000002.png"] = b"no image"
    with pytest.raises(ValueError, match="img00000002.png' cannot be read"):
        read(bad)[0]
    moments = io.BytesIO()
    np.save(moments, np.zeros((8, 4, 4), "float32"))
    bad["00000/img00000002.png"] = png(gradient(20, size=4))
    bad["00000/img00000004.npy"] = moments.getvalue()
    with pytest.raises(ValueError, match="prepare_latents"):
        read(bad)[0]
    (tmp_path / "half.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:100])
    with pytest.raises(ValueError, match="half.zip' is no zip file"):
        kf.datasets.from_edm_zip(tmp_path / "half.zip", 1)


@pytest.fixture(scope="module")
def digits_dir(tmp_path_factory):
    pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("sklearn")
    import keras_flows.datasets.digits_builder  # noqa: F401

    return tmp_path_factory.mktemp("tfds")


def digits(digits_dir, **kwargs):
    return kf.datasets.from_tfds(
        "sklearn_digits", "test", 100, data_dir=digits_dir, max_value=16,
        **kwargs,
    )  # fmt: skip


def test_tfds_set(digits_dir):
    data = digits(digits_dir)
    assert data.num_batches == 4 and data.classes == 10
    rows = [data[i] for i in range(4)]
    images = np.concatenate([x for x, _ in rows])
    labels = np.concatenate([y for _, y in rows])
    expected, numbers = kf.datasets.digits("test")

    def sort(x, y):
        return sorted(zip(map(tuple, x.reshape(400, -1)), y.tolist()))

    assert sort(images, labels) == sort(expected, numbers)
    assert digits(digits_dir, rgb=True, image_size=4)[0][0].shape == (
        100, 4, 4, 3,
    )  # fmt: skip
    assert len(digits(digits_dir, label_key=None)[0]) == 1
    with pytest.raises(ValueError, match=r"`label_key` 'class'.*\['image', "):
        digits(digits_dir, label_key="class")


def model_for(shape, num_classes=None):
    network = kf.networks.MLP(shape, 8, 1, num_classes=num_classes)
    model = kf.SiTInterface(network, ema=None, seed=0)
    model.compile("sgd")
    return model


def steps_of(model):
    return int(model.optimizer.iterations.numpy())


def test_fit_takes_every_source(folder, tmp_path, digits_dir):
    files = edm_files([3, 1, 0, 2, 3])
    write_zip(tmp_path / "set.zip", files)
    for data, shape in (
        (digits(digits_dir), (8, 8, 1)),
        (kf.datasets.from_image_folder(folder, 4, 6, flip=True), (6, 6, 3)),
        (kf.datasets.from_edm_zip(tmp_path / "set.zip", 2), (4, 4, 3)),
    ):
        model = model_for(shape, num_classes=10)
        history = model.fit(data, epochs=1, verbose=0)
        assert steps_of(model) == data.num_batches
        assert np.isfinite(history.history["loss"][0])


def test_fit_resumes_where_it_stopped(folder):
    """Two epochs, or one and another in a second run: the same weights."""

    def run(model, state, epochs, first):
        data = kf.datasets.from_image_folder(folder, 5, seed=1, workers=2)
        if state is not None:
            data.restore(state)
        model.fit(data, epochs=epochs, initial_epoch=first, verbose=0)
        return data.state()

    def weights(model):
        return np.concatenate([w.ravel() for w in model.network.get_weights()])

    models = []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        models.append(model_for((8, 8, 3), num_classes=2))
    run(models[0], None, 2, 0)
    state = run(models[1], None, 1, 0)
    assert state["position"] == 2
    assert run(models[1], state, 2, 1)["position"] == 4
    np.testing.assert_allclose(
        weights(models[0]), weights(models[1]), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("flip", [False, True])
def test_a_batch_is_its_rows(folder, flip):
    """The fast way of a whole batch gives what the rows one by one do."""
    transform = kf.datasets.images.ImageTransform(flip=flip)
    source = kf.datasets.sources.FolderSource(folder)
    fast = kf.datasets.Batches(source, 4, transform, seed=3, repeat=True)
    slow = kf.datasets.Batches(
        source, 4, lambda *row: transform(*row), seed=3, repeat=True
    )
    for i in range(4):
        for a, b in zip(fast[i], slow[i], strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
