"""Hostile presets and archives; as a script, one process that loads them.

    python tests/helpers/hostile.py folder

prints a JSON line for each case: what came of it, in how many seconds, and
what it left outside its folder.
"""

import functools
import gzip
import hashlib
import io
import json
import os
import pathlib
import resource
import shutil
import sys
import tarfile
import threading
import time
import zipfile

import h5py
import numpy as np

KERNEL = "layers/mlp/layers/dense/vars/0"


def function(module, name):
    return {
        "class_name": "function", "config": name, "module": module,
        "registered_name": name,
    }  # fmt: skip


def cls(module, name, config, registered=None):
    return {
        "class_name": name, "module": module, "config": config,
        "registered_name": registered,
    }  # fmt: skip


# Of config.json: function of the config, which may give another or a text.


def argument(name, value):
    def change(config):
        config["config"][name] = value

    return change


def of_network(name, value):
    def change(config):
        config["config"]["network"]["config"][name] = value

    return change


def wide_and_deep(config):
    config["config"]["network"]["config"].update(width=10**5, depth=2)


def top(name, value):
    def change(config):
        config[name] = value

    return change


def layered(layer):
    return cls("keras", "Sequential", {"name": "s", "layers": [layer]})


LAMBDA = cls(
    "keras.layers",
    "Lambda",
    {"function": {"class_name": "__lambda__", "config": {"code": "4wEA"}}},
)


def nested(config):
    """Networks within networks."""
    inner = "1"
    for _ in range(900):
        inner = '{"class_name": "MLP", "config": {"network": ' + inner + "}}"
    return inner


CONFIGS = {
    "os.system": (argument("interpolant", function("os", "system")), "system"),
    "eval": (argument("objective", function("builtins", "eval")), "eval"),
    "download": (
        argument("objective", function("keras.utils", "get_file")),
        "get_file",
    ),
    "unsafe mode": (
        argument(
            "objective",
            function("keras.config", "enable_unsafe_deserialization"),
        ),
        "enable_unsafe_deserialization",
    ),
    "Popen": (
        argument(
            "interpolant", cls("subprocess", "Popen", {"args": ["touch", "x"]})
        ),
        "Popen",
    ),
    "Lambda": (argument("network", layered(LAMBDA)), "lambda"),
    "lambda": (
        argument(
            "interpolant",
            {"class_name": "__lambda__", "config": {"value": "lambda x: x"}},
        ),
        "lambda",
    ),
    "TensorFlow's model": (
        argument(
            "network",
            cls("keras.layers", "TFSMLayer", {"filepath": "x"}),
        ),
        "TFSMLayer",
    ),
    "PyTorch's module": (
        argument(
            "network",
            cls(
                "keras.layers",
                "TorchModuleWrapper",
                {"module": {"class_name": "__bytes__", "config": "gASV"}},
            ),
        ),
        "torch.nn.Module|TorchModuleWrapper",
    ),
    "reads a file": (
        argument(
            "network",
            cls("keras.layers", "StringLookup", {"vocabulary": "/etc/passwd"}),
        ),
        "vocabulary|StringLookup",
    ),
    "compile": (
        top(
            "compile_config",
            {"optimizer": "adam", "loss": function("os", "system")},
        ),
        "system",
    ),
    "dunder": (
        argument(
            "network",
            cls("keras_flows.networks", "MLP", {}, "keras_flows>__class__"),
        ),
        "not registered",
    ),
    "no model": (lambda _: cls("keras.layers", "Dense", {"units": 3}), "no "),
    "class by number": (top("class_name", 3), "by strings"),
    "config of a list": (top("config", [1, 2]), "to be a dict"),
    "unknown argument": (argument("evil", 1), "evil"),
    "NaN": (argument("n_mu", float("nan")), "`n_mu` must be a finite"),
    "name of a path": (argument("name", "../../x"), "`name`"),
    "no network": (argument("network", None), "`network` must be"),
    "width": (of_network("width", 10**9), "holds 'width'"),
    "wide": (of_network("width", 10**5), r"has the shape \(43, 100000\)"),
    "wider": (wide_and_deep, "more elements than the weights"),
    "depth": (of_network("depth", 10**5), "more variables than the weights"),
    "shape": (of_network("dim", [10**5, 10**5]), "holds 'dim'"),
    "sample": (of_network("dim", 10**5), r"has the shape \(100000, 16\)"),
    "features": (of_network("time_features", 10**8), "holds 'time_features'"),
    "built": (
        top("build_config", {"input_shape": [10**6, 10**6]}),
        "holds 'input_shape'",
    ),
    "averages": (argument("ema", [0.9] * 1000), "more variables than"),
    "deep": (lambda _: '{"a":' * 10**5 + "1" + "}" * 10**5, "100,000 deep"),
    "nested": (nested, "deep"),
    "long": (lambda config: json.dumps(config) + " " * (5 << 20), "bytes"),
}


# Of model.weights.h5.


def replaced(name=KERNEL, **options):
    def change(file, folder):
        shape = file[name].shape
        del file[name]
        file.create_dataset(name, **{"shape": shape, "dtype": "f4", **options})

    return change


def elsewhere(file, folder):
    shape = file[KERNEL].shape
    del file[KERNEL]
    secret = (str(folder.parent / "secret"), 0, 4 * int(np.prod(shape)))
    file.create_dataset(KERNEL, shape, "f4", external=[secret])


def virtual(file, folder):
    shape = file[KERNEL].shape
    del file[KERNEL]
    layout = h5py.VirtualLayout(shape=shape, dtype="f4")
    source = str(folder.parent / "secret.h5")
    layout[...] = h5py.VirtualSource(source, "a", shape=shape)
    file.create_virtual_dataset(KERNEL, layout)


def link(name, target):
    def change(file, folder):
        del file[name]
        file[name] = target(folder)

    return change


def external(folder):
    return h5py.ExternalLink(str(folder.parent / "secret.h5"), "/a")


def cycle(file, folder):
    file["layers/mlp/loop"] = file["/"]


def twice(file, folder):
    file["layers/mlp/vars/1"] = file[KERNEL]


WEIGHTS = {
    "external storage": (elsewhere, "is external"),
    "virtual": (virtual, "is virtual"),
    "external link": (link(KERNEL, external), "an external link"),
    "external group": (link("layers/mlp/layers/dense", external), "external"),
    "soft link": (
        link(KERNEL, lambda _: h5py.SoftLink("/layers/mlp/layers/x")),
        "a soft link",
    ),
    "cycle": (cycle, "linked a second time"),
    "linked twice": (twice, "linked a second time"),
    "bomb": (
        replaced(
            shape=(30_000, 30_000),
            chunks=(1000, 1000),
            compression="gzip",
            fillvalue=0,
        ),
        r"\(30000, 30000\), 3,600,000,000 bytes, of which 0",
    ),
    "larger bomb": (
        replaced(shape=(10**6, 10**6), chunks=(1000, 1000)),
        "array_bytes",
    ),
    "never written": (replaced(), "of which 0 are stored"),
    "compressed": (
        replaced(data=np.zeros((43, 8), "f4"), compression="gzip"),
        "uncompressed",
    ),
    "words": (replaced(dtype=h5py.string_dtype()), "is no numbers"),
    "records": (
        replaced(dtype=np.dtype([("a", "f4"), ("b", "i4")])),
        "is no numbers",
    ),
}  # fmt: skip


# Of the folder.


def text(name, content):
    def change(folder):
        (folder / name).write_text(content)

    return change


def shards(places):
    def change(folder):
        (folder / "model.weights.h5").unlink()
        text("model.weights.json", json.dumps({"weight_map": places}))(folder)

    return change


def pipe(folder):
    (folder / "model.weights.h5").unlink()
    os.mkfifo(folder / "model.weights.h5")


def pickled(folder):
    (folder / "model.weights.h5").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'id'\ntR.")


def no_hdf5(folder):
    (folder / "model.weights.h5").write_bytes(bytes(1 << 16))


FOLDERS = {
    "shard outside": (shards({"/vars": "../../x.h5"}), "not a file model_"),
    "shards of a list": (shards([1, 2]), "weight_map"),
    "shard by number": (shards({"/vars": 3}), "by strings"),
    "pipe": (pipe, "has no weights"),
    "pickle": (pickled, "never read"),
    "no HDF5": (no_hdf5, "cannot be read"),
    "metadata of a list": (text("metadata.json", "[1]"), "a JSON object"),
    "deep metadata": (text("metadata.json", "[" * 10**5), "100,000 deep"),
    "checksum of another": (
        text("metadata.json", json.dumps({"sha256": {
            "config.json": "0" * 64, "model.weights.h5": "0" * 64}})),
        "is damaged, or was changed",
    ),
}  # fmt: skip


# Archives: functions of the folder that give bytes.


def tar(add, folder):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.add(folder, "p")
        add(archive)
    return file.getvalue()


def member(name, content=b"", **fields):
    def add(archive):
        info = tarfile.TarInfo(name)
        info.size = len(content)
        for field, value in fields.items():
            setattr(info, field, value)
        archive.addfile(info, io.BytesIO(content))

    return functools.partial(tar, add)


def absolute(good):
    """Beside the test's folder, where the test would find it."""
    return member(str(good.parents[1] / "outside"), b"x")(good)


def bomb(kind, folder):
    """1.5 GB of zeros behind gzip, as a file or as the header of one."""
    info = tarfile.TarInfo("p/zeros")
    info.size, info.type = 3 << 29, kind
    zeros = gzip.compress(bytes(64 << 20), 6)
    # gzip's members follow each other.
    return gzip.compress(info.tobuf(format=tarfile.USTAR_FORMAT)) + 24 * zeros


def zipped(compression, folder):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression, compresslevel=1) as archive:
        for path in folder.iterdir():
            archive.write(path, f"p/{path.name}")
        with archive.open("p/zeros", "w") as zeros:
            for _ in range(100):
                zeros.write(bytes(1 << 20))
    return file.getvalue()


def many(archive):
    for i in range(2000):
        archive.addfile(tarfile.TarInfo(f"p/{i}"))


def list_of_names(folder):
    """A zip's list of names is read at once."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for i in range(100):
            archive.writestr("x" * 60_000 + str(i), b"")
    return file.getvalue()


ARCHIVES = {
    "file of zeros": (functools.partial(bomb, tarfile.REGTYPE), "unpacks to"),
    "header of zeros": (
        functools.partial(bomb, tarfile.XHDTYPE),
        "claims headers of more",
    ),
    "name of zeros": (
        functools.partial(bomb, tarfile.GNUTYPE_LONGNAME),
        "claims headers of more",
    ),
    "zip of zeros": (
        functools.partial(zipped, zipfile.ZIP_DEFLATED),
        "unpacks to",
    ),
    "zip by bzip2": (functools.partial(zipped, zipfile.ZIP_BZIP2), "deflated"),
    "zip of names": (list_of_names, "claims headers of more"),
    "many": (functools.partial(tar, many), "has more members"),
    "deep folders": (member("p/" + "a/" * 1500 + "x"), "too many or long"),
    "long name": (member("p/" + "a" * 300), "too many or long"),
    "upwards": (member("p/../../outside", b"x"), "upwards"),
    "absolute": (absolute, "absolute"),
    "link": (member("p/l", type=tarfile.SYMTYPE, linkname="/"), "a link"),
    "sparse": (member("p/s", type=tarfile.GNUTYPE_SPARSE), "sparse|broken"),
    "twice": (member("p/config.json", b"{}"), "twice"),
    "neither": (lambda folder: bytes(10_000), "broken|no preset"),
}


def main(folder):
    from helpers.handles import Server
    from helpers.handles import without_checksums

    import keras_flows as kf
    from keras_flows.presets import set_limits

    os.environ["KERAS_HOME"] = str(folder / "home")
    good = folder / "good"
    model = kf.SiTInterface(kf.networks.MLP(2, 8, 1), ema=None, seed=0)
    model.save_to_preset(good)
    without_checksums(good)
    (folder / "secret").write_bytes(bytes(1 << 16))
    with h5py.File(folder / "secret.h5", "w") as file:
        file["a"] = np.zeros((43, 8), "float32")
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert kf.from_preset(good).built
    os.chdir(folder)

    def report(kind, name, preset, **limits):
        before = {p for p in folder.rglob("*") if ".locks" not in p.parts}
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start, outcome = time.monotonic(), "loaded"
        old = set_limits(**limits)
        try:
            kf.from_preset(preset)
        except (ValueError, OSError) as error:
            outcome = str(error)
        except BaseException as error:
            outcome = f"unexpected {type(error).__name__}: {error}"
        set_limits(**{key: getattr(old, key) for key in limits})
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        after = {p for p in folder.rglob("*") if ".locks" not in p.parts}
        caches = ("home", "home/presets", "home/presets/keras_flows")
        left = after - before - {folder / path for path in caches}
        line = {
            "case": f"{kind}: {name}",
            "outcome": outcome,
            "seconds": time.monotonic() - start,
            "megabytes": (peak - base) / 1024,
            "left": sorted(map(str, left)),
        }
        print(json.dumps(line), flush=True)

    copy = folder / "copy"

    def fresh():
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(good, copy)

    for name, (change, _) in CONFIGS.items():
        fresh()
        path = copy / "config.json"
        config = json.loads(path.read_text())
        new = change(config) or config
        path.write_text(new if isinstance(new, str) else json.dumps(new))
        # Each average takes a while to make.
        few = {"unsaved_variables": 40} if name == "averages" else {}
        report("config", name, copy, **few)
    for name, (change, _) in WEIGHTS.items():
        fresh()
        with h5py.File(copy / "model.weights.h5", "a") as file:
            change(file, copy)
        report("weights", name, copy)
    for name, (change, _) in FOLDERS.items():
        fresh()
        change(copy)
        report("folder", name, copy)
    shutil.rmtree(copy)
    for name, (make, _) in ARCHIVES.items():
        content = make(good)
        server.files["a"] = content
        checksum = hashlib.sha256(content).hexdigest()
        report("archive", name, f"{server.url}/files/a#{checksum}")
    os._exit(0)


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
    main(pathlib.Path(sys.argv[1]).resolve())
