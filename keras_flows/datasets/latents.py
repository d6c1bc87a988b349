"""Prepared latents: an autoencoder's posterior of each image, kept in files.

`prepare_latents` encodes a source once (tools/prepare_latents.py is its
command line); `Latents` gives samples of the posteriors to `fit`, as if the
autoencoder ran at every step. A record is the label (int32, -1 for none), the
mean and the standard deviation (h, w, c), and where flips are kept those of
the mirrored image, in the manifest's dtype, little-endian. `manifest.json`
says how they were made, and `fit` compares it with the model.
"""

import hashlib
import json
import pathlib
from importlib import metadata

import numpy as np
from keras import ops

from keras_flows import ops as kf_ops
from keras_flows.datasets.batches import Batches
from keras_flows.datasets.batches import stack
from keras_flows.datasets.images import ImageTransform
from keras_flows.datasets.sources import needed

MANIFEST = "manifest.json"
PROGRESS = "progress.json"
FORMAT = 1


def describe_autoencoder(
    autoencoder, name=None, scaling_factor=1.0, shift_factor=0.0
):
    """What tells one autoencoder's latents from another's, as JSON values.

    Args:
        autoencoder: a `keras.Model` with `encode`.
        name: what to call it, by default its class.
        scaling_factor: see `prepare_latents`.
        shift_factor: see `prepare_latents`.

    Returns:
        Dict of the name, the sha256 of the weights, the two factors that
        sampling applies, and those of the autoencoder's own config, which its
        `encode` applies (None where it has none).
    """
    digest = hashlib.sha256()
    # In order, without names, which Keras may number differently.
    for weight in autoencoder.weights:
        value = np.ascontiguousarray(ops.convert_to_numpy(weight))
        digest.update(f"{value.shape}{value.dtype}".encode())
        digest.update(value.tobytes())
    config = _config_of(autoencoder)
    return {
        "name": name or type(autoencoder).__name__,
        "weights_sha256": digest.hexdigest(),
        "scaling_factor": float(scaling_factor),
        "shift_factor": float(shift_factor),
        "own_scaling_factor": config.get("scaling_factor"),
        "own_shift_factor": config.get("shift_factor"),
    }


def _config_of(autoencoder):
    try:
        return autoencoder.get_config()
    except NotImplementedError:  # a subclassed model without a config
        return {}


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path, content):
    temporary = path.with_name(f"{path.name}.partial")
    temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    temporary.replace(path)


class _Encoder:
    """Images in [-1, 1] to means and standard deviations, compiled once."""

    def __init__(self, autoencoder, batch_size):
        self.batch_size = batch_size

        def encode(images):
            mean, logvar = autoencoder.encode(images)
            return mean, ops.exp(0.5 * logvar)

        self._encode = kf_ops.compiled(encode, autoencoder.variables)

    def __call__(self, images):
        num = len(images)
        # The last batch is filled up, so that there is one shape only.
        fill = np.repeat(images[-1:], self.batch_size - num, axis=0)
        images = np.concatenate([images, fill])
        return tuple(
            ops.convert_to_numpy(part)[:num]
            for part in self._encode(ops.convert_to_tensor(images))
        )


def prepare_latents(
    source,
    autoencoder,
    out,
    *,
    image_size=None,
    batch_size=32,
    shards=1,
    flip=True,
    rgb=False,
    dtype="float32",
    seed=0,
    scaling_factor=1.0,
    shift_factor=0.0,
    name=None,
    command=None,
    progress=None,
):
    """Encode every image of a source into sharded files with a manifest.

    A shard is written under a temporary name and renamed when it is whole, the
    manifest last. Called again with the same arguments it keeps whole shards
    and makes the others.

    Args:
        source: a source of `datasets.sources`.
        autoencoder: `keras.Model` whose `encode(x)` gives the mean and log
            variance, (B, h, w, c), of what a model is to be trained on. That
            of `kf.networks.AutoencoderKL` is scaled already.
        out: folder to write.
        image_size: pixels a side after `center_crop`, or None.
        batch_size: images encoded at a time.
        shards: number of files.
        flip: whether the mirrored images' latents are kept as well.
        rgb: whether grey images get three equal channels.
        dtype: "float32" or "float16", of the files.
        seed: of the order in which records are spread over the shards.
        scaling_factor: with `shift_factor`, for an `encode` that gives raw
            latents z: training gets (z - shift_factor) * scaling_factor.
        shift_factor: see `scaling_factor`.
        name: what the manifest calls the autoencoder.
        command: the command line, for the manifest.
        progress: None or a function of (records done, records in all).

    Returns:
        The manifest, a dict.

    Raises:
        ValueError: if `out` holds latents made in another way.
    """
    if dtype not in ("float32", "float16"):
        raise ValueError(
            f"`dtype` must be 'float32' or 'float16'. Received: {dtype!r}."
        )
    if not 1 <= shards <= len(source):
        raise ValueError(
            f"`shards` must lie between 1 and the {len(source)} records. "
            f"Received: {shards!r}."
        )
    if batch_size < 1:
        raise ValueError(
            f"`batch_size` must be at least 1. Received: {batch_size!r}."
        )
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    settings = {
        "format": FORMAT,
        "source": source.name,
        "num_records": len(source),
        "classes": source.classes,
        "autoencoder": describe_autoencoder(
            autoencoder, name, scaling_factor, shift_factor
        ),
        "image_size": image_size,
        "resize": None if image_size is None else "center_crop",
        "rgb": rgb,
        "flips": flip,
        "dtype": dtype,
        "seed": seed,
        "num_shards": shards,
    }
    manifest = _earlier(out, MANIFEST, settings)
    if manifest is not None:
        check_shards(out, manifest)
        return manifest
    done = _earlier(out, PROGRESS, settings) or {**settings, "shards": []}
    encoder = _Encoder(autoencoder, batch_size)
    transform = ImageTransform(image_size, rgb=rgb)
    order = np.random.default_rng(seed).permutation(len(source))
    finished = 0
    for number, part in enumerate(np.array_split(order, shards)):
        file = f"latents-{number:05d}-of-{shards:05d}.array_record"
        if number == len(done["shards"]):
            rows = _encode_rows(source, part, transform, encoder, flip)
            report = None
            if progress is not None:
                report = _Counter(progress, finished, len(source))
            shard = _write_shard(out / file, rows, dtype, report)
            _check_same(done, "latent_shape", shard.pop("latent_shape"))
            _check_same(done, "labelled", shard.pop("labelled"))
            done["shards"].append({"file": file, **shard})
            _write_json(out / PROGRESS, done)
        else:
            _check_shard(out, done["shards"][number])
        finished += len(part)
    manifest = {
        **done,
        "library": f"keras_flows {metadata.version('keras_flows')}",
        "command": command,
    }
    _write_json(out / MANIFEST, manifest)
    (out / PROGRESS).unlink()
    return manifest


class _Counter:
    """Tells a progress function how many records are done."""

    def __init__(self, progress, done, total):
        self.progress, self.done, self.total = progress, done, total

    def __call__(self):
        self.done += 1
        self.progress(self.done, self.total)


def _earlier(out, file, settings):
    """What an earlier run left in `file`, if it was the same run."""
    if not (out / file).exists():
        return None
    found = json.loads((out / file).read_text())
    differ = [key for key in settings if found.get(key) != settings[key]]
    if differ:
        raise ValueError(
            f"`out` {str(out)!r} holds latents made in another way: "
            + "; ".join(
                f"{key} was {found.get(key)!r} and is {settings[key]!r}"
                for key in differ
            )
            + ". Name another folder, or remove this one."
        )
    return found


def _check_same(done, key, value):
    if done.setdefault(key, value) != value:
        raise ValueError(
            f"`source` changes its {key} from {done[key]} to {value}. Pass "
            "`image_size`, and label all images or none."
        )


def _encode_rows(source, indices, transform, encoder, flip):
    """Yields (label, [mean, std] or [mean, std, flipped mean and std])."""
    for start in range(0, len(indices), encoder.batch_size):
        records = [
            source[int(i)] for i in indices[start : start + encoder.batch_size]
        ]
        images = stack([transform.image(r["image"]) for r in records])
        parts = encoder(images)
        if flip:
            parts += encoder(images[:, :, ::-1])
        for i, record in enumerate(records):
            yield record.get("label", -1), [part[i] for part in parts]


def _write_shard(path, rows, dtype, report):
    """Write a shard and return its entry of the manifest."""
    records = needed("array_record.python.array_record_module", "array_record")
    temporary = path.with_name(f"{path.name}.partial")
    writer = records.ArrayRecordWriter(
        str(temporary), "group_size:1,uncompressed"
    )
    count, labelled, shape = 0, set(), None
    total, squares = 0.0, 0.0
    try:
        for label, parts in rows:
            values = np.stack(parts).astype(f"<{np.dtype(dtype).str[1:]}")
            if not np.isfinite(values).all():
                raise ValueError(
                    f"The autoencoder's latents are not finite in {dtype}. "
                    "Check its weights, or use dtype='float32'."
                )
            shape = list(parts[0].shape)
            labelled.add(label >= 0)
            writer.write(np.array(label, "<i4").tobytes() + values.tobytes())
            mean, std = (np.float64(part) for part in parts[:2])
            total += mean.mean()
            squares += (mean**2 + std**2).mean()
            count += 1
            if report is not None:
                report()
    finally:
        writer.close()
    if len(labelled) > 1:
        raise ValueError("`source` has labels for some images only.")
    temporary.replace(path)
    average = total / count
    return {
        "records": count,
        "bytes": path.stat().st_size,
        "sha256": _sha256(path),
        # Of what `encode` gave, its noise included.
        "mean": average,
        "std": float(np.sqrt(squares / count - average**2)),
        "latent_shape": shape,
        "labelled": labelled.pop(),
    }


def _check_shard(folder, entry, checksums=True):
    path = folder / entry["file"]
    again = (
        "Remove it and its manifest and run tools/prepare_latents.py again, "
        "or copy the folder again."
    )
    if not path.is_file():
        raise ValueError(f"Shard {str(path)!r} is missing. {again}")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise ValueError(
            f"Shard {str(path)!r} has {size} bytes and should have "
            f"{entry['bytes']}: it is half-written or changed. {again}"
        )
    if checksums and _sha256(path) != entry["sha256"]:
        raise ValueError(
            f"Shard {str(path)!r} has another sha256 than its manifest says: "
            f"it is damaged. {again}"
        )


def read_manifest(folder):
    """The manifest of a folder of latents, a dict.

    Raises:
        ValueError: if there is none, or one of another format.
    """
    folder = pathlib.Path(folder)
    file = folder / MANIFEST
    if not file.is_file():
        if (folder / PROGRESS).is_file() or any(folder.glob("latents-*")):
            raise ValueError(
                f"`path` {str(folder)!r} holds shards but no {MANIFEST}: "
                "they were not finished. Run tools/prepare_latents.py again "
                "with the same flags; it keeps what is whole."
            )
        raise ValueError(
            f"`path` {str(folder)!r} has no {MANIFEST}: it is no folder of "
            "prepared latents. Make one by tools/prepare_latents.py."
        )
    try:
        manifest = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{str(file)!r} cannot be read: {error}.") from error
    if manifest.get("format") != FORMAT:
        raise ValueError(
            f"{str(file)!r} is of format {manifest.get('format')!r}; this "
            f"version reads {FORMAT}. Prepare the latents again."
        )
    return manifest


def check_shards(folder, manifest, checksums=True):
    """Every shard is there, of its size, count and checksum.

    Raises:
        ValueError: naming the first shard that is not.
    """
    counts = sum(entry["records"] for entry in manifest["shards"])
    if counts != manifest["num_records"]:
        raise ValueError(
            f"The manifest of {str(folder)!r} lists {counts} records in its "
            f"shards and {manifest['num_records']} in all. Prepare again."
        )
    for entry in manifest["shards"]:
        _check_shard(pathlib.Path(folder), entry, checksums)


class LatentSource:
    """Records of prepared latents, by random access.

    Args:
        path: folder that `prepare_latents` wrote.
        checksums: whether to check every shard's sha256 (about a second a
            gigabyte) or only sizes and counts.
    """

    def __init__(self, path, checksums=True):
        path = pathlib.Path(path)
        self.manifest = manifest = read_manifest(path)
        check_shards(path, manifest, checksums)
        reader = needed(
            "array_record.python.array_record_data_source", "array_record"
        )
        self._records = reader.ArrayRecordDataSource(
            [str(path / entry["file"]) for entry in manifest["shards"]]
        )
        if len(self._records) != manifest["num_records"]:
            raise ValueError(
                f"The shards of {str(path)!r} hold {len(self._records)} "
                f"records and should hold {manifest['num_records']}. Prepare "
                "them again."
            )
        self.name = f"latents:{path.name}"
        self.classes = manifest["classes"]
        self._shape = (
            4 if manifest["flips"] else 2,
            *manifest["latent_shape"],
        )
        self._dtype = np.dtype(manifest["dtype"]).newbyteorder("<")

    def __len__(self):
        return len(self._records)

    def __getitem__(self, index):
        data = self._records[index]
        record = {
            "latents": np.frombuffer(data, self._dtype, offset=4).reshape(
                self._shape
            )
        }
        if self.manifest["labelled"]:
            record["label"] = int(np.frombuffer(data, "<i4", count=1)[0])
        return record


class _Sample:
    """z = (mean + std eps - shift) * scale of a record, eps ~ N(0, 1)."""

    def __init__(self, autoencoder, flip):
        self.shift = np.float32(autoencoder["shift_factor"])
        self.scale = np.float32(autoencoder["scaling_factor"])
        self.flip = flip

    def __call__(self, record, rng):
        parts = record["latents"].astype(np.float32)
        first = 2 if self.flip and rng.random() < 0.5 else 0
        mean, std = parts[first : first + 2]
        noise = rng.standard_normal(mean.shape, dtype=np.float32)
        z = (mean + std * noise - self.shift) * self.scale
        if "label" not in record:
            return (z,)
        return z, np.int32(record["label"])


class Latents(Batches):
    """Batches of latents, sampled anew each epoch: (z, labels) or (z,).

    z = (mean + std eps - shift_factor) * scaling_factor with the manifest's
    factors, which are 0 and 1 where the autoencoder scales by itself.

    Args:
        path: folder that tools/prepare_latents.py wrote.
        batch_size: rows of a batch.
        seed: int, of order, flips and eps.
        flip: whether half of the examples are those of mirrored images.
        checksums: whether to check every shard's sha256 (about a second a
            gigabyte) or only sizes and counts.
        **batching: `shuffle`, `repeat`, `workers`, ... of `Batches`.

    Attributes:
        manifest: what manifest.json says.

    Raises:
        ValueError: if the manifest is missing or a shard is not whole.
    """

    def __init__(
        self, path, batch_size, seed=0, flip=True, checksums=True, **batching
    ):
        source = LatentSource(path, checksums)
        self.manifest = source.manifest
        if flip and not self.manifest["flips"]:
            raise ValueError(
                f"`flip` needs the latents of mirrored images, which "
                f"{str(path)!r} has not. Pass flip=False, or prepare them "
                "with --flip."
            )
        super().__init__(
            source,
            batch_size,
            _Sample(self.manifest["autoencoder"], flip),
            seed=seed,
            **batching,
        )

    def check(self, model):
        """Compare the manifest with a model; `fit` calls it.

        A model without a mark, `model.latents_of`, is marked.

        Raises:
            ValueError: if the model takes another shape, or is marked with
                another autoencoder.
        """
        shape = tuple(self.manifest["latent_shape"])
        expected = model.sample_shape
        if expected is not None and tuple(expected) != shape:
            raise ValueError(
                f"`x` holds latents of shape {shape} and the network takes "
                f"{tuple(expected)}. Build the network for {shape}, or "
                "prepare latents of other images."
            )
        given = self.manifest["autoencoder"]
        if model.latents_of is None:
            model.latents_of = given
        differ = [
            f"{key} is {given[key]} in the manifest and "
            f"{model.latents_of.get(key)} in the model's"
            for key in given
            if key != "name" and given[key] != model.latents_of.get(key)
        ]
        if differ:
            raise ValueError(
                f"`x` holds latents of {given['name']!r}, but the model's "
                f"`latents_of` is {model.latents_of.get('name')!r}: "
                f"{'; '.join(differ)}. Prepare latents with the model's "
                "autoencoder, or set model.latents_of = None to train it on "
                "these."
            )
