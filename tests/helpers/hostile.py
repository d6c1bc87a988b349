"""Checkpoints that are damaged, or made to do harm.

`write(folder)` fills `CASES`, {name: (file or folder to convert, kind, what
the error says)}. Run as a script, it converts what is listed in a file.
"""

import io
import json
import pathlib
import pickle
import struct
import sys
import time
import zipfile

import numpy as np

import keras_flows as kf

CASES = {}
# As the first weight of an SiT, and enough of one to be asked for the next.
FIRST = "x_embedder.proj.weight"


def tensors(header, data=b"", length=None):
    """A safetensors file of any header."""
    if not isinstance(header, bytes):
        header = json.dumps(header).encode()
    length = len(header) if length is None else length
    return length.to_bytes(8, "little") + header + data


def entry(shape, offsets, dtype="F32"):
    return {FIRST: {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def two(first, second, size):
    header = entry([2], first)
    header["b"] = header[FIRST] | {"data_offsets": second}
    return tensors(header, bytes(size))


SAFETENSORS = {
    "empty": (b"", "header"),
    "header of an exabyte": (tensors({}, length=2**60), "header"),
    "header beyond the file": (tensors({}, length=100), "header"),
    "data cut off": (tensors(entry([4], [0, 16]), bytes(15)), "not lie in"),
    "data too long": (tensors(entry([4], [0, 16]), bytes(17)), "bytes follow"),
    "deep JSON": (tensors(b'{"a":' * 100_000), "nested too deep"),
    "header is a list": (tensors([1]), "no JSON object"),
    "entry is a list": (tensors({"a": [1]}), "no dtype, shape"),
    "entry lacks its shape": (tensors({"a": {"dtype": "F32"}}), "no dtype, sh"),
    "negative offset": (tensors(entry([4], [-16, 0]), bytes(16)), "not lie in"),
    "offsets of floats": (tensors(entry([4], [0.0, 16.0]), bytes(16)), "offs"),
    "overlap": (two([0, 8], [4, 12], 12), "begins at 4"),
    "one place twice": (two([0, 8], [0, 8], 8), "begins at 0"),
    "hole": (two([0, 8], [12, 20], 20), "begins at 12"),
    "shape of terabytes": (
        tensors(entry([10**12], [0, 16]), bytes(16)), "not lie in the file",
    ),
    "shape of 10^30": (
        tensors(entry([10**15, 10**15], [0, 16]), bytes(16)), "not lie in",
    ),
    "shape of NaN": (
        tensors(json.dumps(entry([float("nan")], [0, 4])).encode(), bytes(4)),
        "holds NaN",
    ),
    "shape of floats": (tensors(entry([4.0], [0, 16]), bytes(16)), "whole num"),
    "shape of true": (tensors(entry([True], [0, 4]), bytes(4)), "whole n"),
    "negative shape": (tensors(entry([-2, -2], [0, 16]), bytes(16)), "whole"),
    "huge and empty": (tensors(entry([10**12, 0], [0, 0])), "of no element"),
    "name twice": (
        tensors(b'{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},'
                b'"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}',
                bytes(4)),
        "'a' is there twice",
    ),
    "endless name": (tensors({"a" * 10**6: 1}), "too long"),
    "unknown dtype": (tensors(entry([2], [0, 8], "C64"), bytes(8)), "'C64'"),
    "dtype is a list": (tensors(entry([2], [0, 8], [1]), bytes(8)), "dtype"),
    "not UTF-8": (tensors(b'{"\xff\xfe": 1}'), "utf-8"),
    "a pickle": (pickle.dumps({"a": [1] * 9}), "header should have"),
}  # fmt: skip


def npy(shape="(4,)", descr="'<f4'", data=bytes(16)):
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    text = text + " " * (117 - len(text)) + "\n"
    head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()
    return head + data


def zipped(members, method=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def one(content):
    return zipped([("a.npy", content)])


def turned(data, needle=b"\x01" * 64):
    """One bit of the payload is another."""
    data, place = bytearray(data), data.index(needle)
    data[place + 20] ^= 4
    return bytes(data)


NPZ = {
    "no archive": (b"no zip", "not a zip"),
    "archive cut off": (one(npy())[:-30], "damaged"),
    "bit turned": (turned(one(npy("(40,)", data=b"\x01" * 160))), "CRC"),
    "two of a name": (None, "there twice"),
    "objects": (one(npy(descr="'|O'", data=pickle.dumps([1]))), "pickled"),
    "records": (one(npy(descr="[('a', '<f4')]")), "dtype"),
    "words": (one(npy(descr="'<U4'")), "dtype"),
    "shape is a sum": (one(npy("(10**3,)")), "malformed"),
    "shape of petabytes": (one(npy("(1000000000000000,)")), "not lie in"),
    "shape below the member": (one(npy("(2,)")), "not lie in"),
    "negative shape of an array": (one(npy("(-4,)")), "whole numbers"),
    "shape of strings": (one(npy("('4',)")), "shape"),
    "deep header": (one(npy("-" * 5000 + "4")), "cannot be read"),
    "no array in it": (zipped([("a.txt", b"x")]), "no array of NumPy"),
    "version of the header": (one(b"\x93NUMPY\x09\x00" + bytes(64)), "version"),
    "LZMA": (zipped([("a.npy", npy())], zipfile.ZIP_LZMA), "method 14"),
    "bomb": (None, "more than the 67,108,864"),
    "a million members": (None, "at once"),
}  # fmt: skip


def bomb(path, name, head, megabytes):
    """A member of a gigabyte of zeros, a megabyte on the disk."""
    with zipfile.ZipFile(
        path, "w", zipfile.ZIP_DEFLATED, compresslevel=1
    ) as archive:
        with archive.open(name, "w", force_zip64=True) as member:
            member.write(head)
            for _ in range(megabytes):
                member.write(bytes(1 << 20))


def many_members():
    """The list of a zip that has nothing but a list."""
    one = b"PK\x01\x02" + bytes(24) + struct.pack("<H", 4) + bytes(16) + b"name"
    listed = one * 200_000
    return listed + struct.pack(
        "<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, len(listed), 0, 0
    )


class Opcode:
    """A pickle, operation by operation."""

    def __init__(self):
        self.data = b"\x80\x02"

    def text(self, word):
        self.data += b"X" + struct.pack("<I", len(word)) + word.encode()
        return self

    def name(self, module, attribute):
        self.data += f"c{module}\n{attribute}\n".encode()
        return self

    def number(self, value):
        data = value.to_bytes(9, "little", signed=True)
        self.data += b"\x8a\x09" + data
        return self

    def numbers(self, values):
        self.data += b"("
        for value in values:
            self.number(value)
        self.data += b"t"
        return self

    def raw(self, data):
        self.data += data
        return self

    def storage(self, count, key="0"):
        self.raw(b"(").text("storage").name("torch", "FloatStorage")
        return self.text(key).text("cpu").number(count).raw(b"tQ")

    def tensor(self, size, stride, offset=0, count=4):
        self.name("torch._utils", "_rebuild_tensor_v2").raw(b"(")
        self.storage(count).number(offset).numbers(size).numbers(stride)
        self.raw(b"\x89").name("collections", "OrderedDict").raw(b")RtR")
        return self

    def named(self, build, name=FIRST):
        """A dict of one item."""
        self.raw(b"}").text(name)
        build(self)
        return self.raw(b"s.").data


def torch_zip(pickled, storage=bytes(16), more=()):
    return zipped(
        [("a/data.pkl", pickled), ("a/data/0", storage), ("a/version", b"3\n")]
        + list(more)
    )


def laid(size, stride, offset=0, count=4, storage=bytes(16)):
    build = Opcode().named(lambda o: o.tensor(size, stride, offset, count))
    return torch_zip(build, storage)


def called(module, attribute, argument):
    return torch_zip(
        Opcode().named(
            lambda o: o.name(module, attribute).text(argument).raw(b"\x85R")
        )
    )


def laughs():
    """Thirty dicts, each twice in the next: 2^30 paths."""
    opcode = Opcode().raw(b"}q\x00")
    for _ in range(30):
        opcode.raw(b"}").text("a").raw(b"h\x00s").text("b").raw(b"h\x00s")
        opcode.raw(b"q\x00")
    return opcode.raw(b".").data


TORCH = {
    "cut off": (laid([4], [1])[:-40], "damaged"),
    "a shell": (called("os", "system", "touch made"), "names 'os.system'"),
    "a pickle in it": (called("pickle", "loads", "x"), "'pickle.loads'"),
    "torch.load in it": (called("torch", "load", "x"), "'torch.load'"),
    "getattr": (called("builtins", "getattr", "x"), "'builtins.getattr'"),
    "raw pickle": (pickle.dumps(OSError), "more than tensors|damaged"),
    "TorchScript": (
        torch_zip(b"\x80\x02}.", more=[("a/constants.pkl", b"")]), "a program",
    ),
    "no torch file": (zipped([("b.txt", b"")]), "not one of torch.save"),
    "storage too short": (laid([4], [1], storage=bytes(12)), "has 12"),
    "storage too long": (laid([4], [1], storage=bytes(20)), "has 20"),
    "storage missing": (
        torch_zip(Opcode().named(
            lambda o: o.storage(4, "../../../etc/passwd"))),
        "should have 16 bytes",
    ),
    "count is negative": (laid([4], [1], count=-4), "damaged"),
    "offset is negative": (laid([4], [1], -1), "not lie in the file"),
    "offset beyond": (laid([4], [1], 1), "not lie in the file"),
    "stride escapes": (laid([2, 2], [3, 1]), "not lie in the file"),
    "stride is negative": (laid([4], [-1], 3), "strides"),
    "stride is missing": (laid([2, 2], [1]), "strides"),
    "four terabytes of one number": (laid([1 << 40], [0]), "lie in one place"),
    "rows overlap": (laid([2, 3], [1, 1]), "lie in one place"),
    "size is negative": (laid([-4], [1]), "whole numbers"),
    "size of floats": (
        torch_zip(Opcode().named(lambda o: o.tensor([4], [1])).replace(
            b"\x8a\x09" + (4).to_bytes(9, "little") + b"t",
            b"G" + struct.pack(">d", 4.0) + b"t")),
        "damaged|whole numbers",
    ),
    "bit turned in a tensor": (
        turned(laid([40], [1], 0, 40, b"\x01" * 160)), "CRC",
    ),
    "memo of gigabytes": (
        torch_zip(b"\x80\x02Nr\xff\xff\xff\x7f."), "no dict",
    ),
    "stack is empty": (torch_zip(b"\x80\x02R."), "damaged"),
    "no end": (torch_zip(b"\x80\x02}"), "cannot be read"),
    "unknown operation": (torch_zip(b"\x80\x02\xff."), "cannot be read"),
    "instance": (torch_zip(b"(S'x'\nios\nsystem\n."), "names the operation"),
    "deep lists": (torch_zip(b"\x80\x02" + b"]" * 10**5 + b"a" * 99_999 + b"."),
                   "no dict"),
    "deep dicts": (torch_zip(
        Opcode().raw(b"}").raw((b"X\x01\x00\x00\x00a}") * 5000)
        .raw(b"s" * 5000 + b".").data), "nested more than"),
    "a dict in itself": (
        torch_zip(Opcode().raw(b"}q\x00").text("a").raw(b"h\x00s.").data),
        "nested more than",
    ),
    "a billion laughs": (torch_zip(laughs()), "entries"),
    "a list as a name": (torch_zip(b"\x80\x02}]Ns."), "as a name"),
    "a name twice": (
        torch_zip(Opcode().raw(b"}").text("a").raw(b"Ns").text("a")
                  .raw(b"Ns.").data), "there twice",
    ),
    "millions of operations": (
        zipped([("a/data.pkl", b"\x80\x02" + b"N0" * 2**21 + b".")],
               zipfile.ZIP_DEFLATED), "more than tensors|operations",
    ),
    "legacy without storages": (
        pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
        + pickle.dumps({}, 2) + Opcode().named(lambda o: o.tensor([4], [1]))
        + pickle.dumps(["0"], 2), "not lie in the file",
    ),
    "legacy of terabytes": (
        pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
        + pickle.dumps({}, 2)
        + Opcode().named(lambda o: o.tensor([10**12], [1], count=10**12))
        + pickle.dumps(["0"], 2) + bytes(100), "not lie in the file",
    ),
    "pickle bomb": (None, "its pickle has"),
    "storage bomb": (None, "more than the 67,108,864"),
}  # fmt: skip


def extension(inner):
    return b"\x81\xa1a\xc8" + struct.pack(">H", len(inner)) + b"\x01" + inner


def flax(shape=b"\x91\x04", dtype=b"\xa7float32", data=b"\xc4\x10" + bytes(16)):
    return extension(b"\x93" + shape + dtype + data)


CHUNKED = b"\xbd__msgpack_chunked_array__"
MSGPACK = {
    "nothing": (b"", "cut off"),
    "deep": (b"\x91" * 200_000, "nested too deep"),
    "deep dict": (b"\x81\xa1a" * 200_000, "nested too deep"),
    "array of 4 billion": (b"\xdd\xff\xff\xff\xff" + b"\xc0" * 999, "cut off"),
    "millions of values": (b"\xdd\x7f\xff\xff\xff" + b"\xc0" * 9**8, "values"),
    "text of 4 GB": (b"\xdb\xff\xff\xff\xff", "cut off"),
    "list as a name": (b"\x81\x91\x01\x01", "is no name"),
    "twice": (b"\x82\xa1a\xc0\xa1a\xc0", "there twice"),
    "unknown type": (b"\xc1", "unknown type"),
    "unknown extension": (b"\xd4\x09\x00", "unknown extension"),
    "more behind": (flax() + b"\x00", "1 bytes follow"),
    "objects": (flax(dtype=b"\xa6object"), "dtype"),
    "dtype of nobody": (flax(dtype=b"\xa3foo"), "dtype"),
    "dtype is 7": (flax(dtype=b"\x07"), "dtype"),
    "shape beyond": (flax(b"\x91\x05"), "not lie in the file"),
    "shape of terabytes": (flax(b"\x91\xcf" + b"\x11" * 8), "not lie in"),
    "negative": (flax(b"\x91\xff"), "whole numbers"),
    "no bytes": (flax(data=b"\xc0"), "no bytes"),
    "array cut off": (extension(b"\x93\x91\x04"), "cut off|damaged"),
    "pieces without shape": (b"\x81" + CHUNKED[:0] + b"\xb9" + CHUNKED[1:]
                             + b"\xc3", "has no shape"),
}  # fmt: skip


def layered(count, width=8):
    """The names of a deep SiT, a number each."""
    shapes = {
        FIRST: (width, 1, 1, 1),
        "final_layer.linear.weight": (2, width),
        "y_embedder.embedding_table.weight": (11, width),
        "blocks.0.mlp.fc1.weight": (4 * width, width),
        "pos_embed": (1, 4, width),
    }
    for i in range(count):
        shapes[f"blocks.{i}.norm1.weight"] = (1,)
    return {name: np.zeros(shape, "float32") for name, shape in shapes.items()}


def write(folder):
    """Write every case; fills `CASES`."""
    for suffix, cases in (
        ("safetensors", SAFETENSORS),
        ("npz", NPZ),
        ("pt", TORCH),
        ("msgpack", MSGPACK),
    ):
        for index, (name, (content, words)) in enumerate(cases.items()):
            path = folder / f"{index}.{suffix}"
            if content is not None:
                path.write_bytes(content)
            CASES[f"{suffix}: {name}"] = (path, "sit", words)
    data = zipped([("a.npy", npy()), ("b.npy", npy())])
    path = CASES["npz: two of a name"][0]
    path.write_bytes(data.replace(b"b.npy", b"a.npy"))
    head = npy(f"({600 << 18},)", data=b"")
    bomb(CASES["npz: bomb"][0], "a.npy", head, 600)
    CASES["npz: a million members"][0].write_bytes(many_members())
    bomb(CASES["pt: pickle bomb"][0], "a/data.pkl", b"\x80\x02", 100)
    path = CASES["pt: storage bomb"][0]
    bomb(path, "a/data/0", b"", 600)
    count = 600 << 18
    with zipfile.ZipFile(path, "a") as archive:
        build = Opcode().named(lambda o: o.tensor([count], [1], 0, count))
        archive.writestr("a/data.pkl", build)
    models(folder)


def models(folder):
    """Files that are in order, and no models."""

    def case(name, kind, words, arrays, config=None):
        path = folder / f"model_{len(CASES)}"
        path.mkdir()
        np.savez(path / "a.npz", **arrays)
        if config is not None:
            path.joinpath("config.json").write_text(config)
        CASES[name] = (path, kind, words)

    small = layered(1)
    case(
        "width of a million",
        "sit",
        "would have more than",
        small
        | {
            FIRST: np.zeros((10**6, 1, 1, 1), "float32"),
            "final_layer.linear.weight": np.zeros((2, 1), "float32"),
        },
    )
    case("blocks without end", "sit", "at most 1000", layered(2000))
    case(
        "a weight of no dimension",
        "sit",
        "the shape",
        small | {FIRST: np.float32(1)},
    )
    case(
        "a weight of no element",
        "sit",
        "the shape",
        small | {FIRST: np.zeros((0,), "float32")},
    )
    case("too few weights", "sit", "different architectures", small)
    for name, config, words in (
        ("a list", "[1, 2]", "no JSON object"),
        ("cut off", "[1", "cannot be read"),
        ("deep", "[" * 100_000, "nested too deep"),
        ("with NaN", '{"num_attention_heads": NaN}', "holds NaN"),
        ("of words", '{"num_attention_heads": "x"}', "a whole number"),
        ("of trillions", '{"sample_size": 1000000000000}', "a whole number"),
        ("twice", '{"a": 1, "a": 2}', "there twice"),
    ):  # fmt: skip
        arrays = {k: v for k, v in small.items() if k != "pos_embed"}
        case(f"config.json {name}", "sit", words, arrays, config)
    shards = folder / "shards"
    shards.mkdir()
    for i in (1, 3):
        header = {f"{i}": entry([4], [0, 16])[FIRST]}
        path = shards / f"m-0000{i}-of-00003.safetensors"
        path.write_bytes(tensors(header, bytes(16)))
    CASES["a shard is missing"] = (shards, "sit", "2 shards")
    doubled = folder / "doubled"
    doubled.mkdir()
    for i in (1, 2):
        path = doubled / f"m-0000{i}-of-00002.safetensors"
        path.write_bytes(tensors(entry([4], [0, 16]), bytes(16)))
    CASES["a weight in two shards"] = (doubled, "sit", "there twice")
    for kind in kf.presets.CONVERTERS:
        foreign = {"a": np.zeros(3, "float32")}
        case(f"no {kind}", kind, "has no weight", foreign)


def refused(path, kind):
    """The error of a conversion, as text: its type and its message."""
    try:
        kf.presets.convert(path, kind, options={"num_heads": 2})
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "converted"


def memory(field):
    """Megabytes of this process; the peak is of the program, not its parent."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split(field)[1].split()[0]) / 1024


def main(listed):
    """Convert all of a list; print errors, seconds and the peak of memory.

    Args:
        listed: JSON file of {name: (path, kind)}.
    """
    import torch  # the backend: its own memory is no part of the peak

    torch.ones(1)
    before = memory("VmRSS:")
    found = {}
    for name, (path, kind) in json.loads(open(listed).read()).items():
        start = time.perf_counter()
        found[name] = (refused(path, kind), time.perf_counter() - start)
    megabytes = memory("VmHWM:") - before
    print(json.dumps({"cases": found, "megabytes": megabytes}))


if __name__ == "__main__":
    main(*sys.argv[1:])
