"""The tables of docs/performance.md, of the JSON files in results/."""

import json
import pathlib

RESULTS = pathlib.Path(__file__).parent / "results"

# A DiT of this many channels, blocks and tokens.
XL2 = {"width": 1152, "depth": 28, "tokens": 256, "parameters": 675e6}
# What the cost model takes for granted, and where it is from.
ASSUMED = {
    "milliseconds": 217.2,  # docs/results/gpu.json, 128 images a chip
    "images": 128,
    "chips of a host": 8,
    "bytes/s in a host": 450e9,  # NVLink of an H200, one direction
    "bytes/s between hosts": 50e9,  # a 400 Gbit/s port for each chip
    "bytes/s to disk": 1e9,  # a process, see tools/benchmark.py
    "bytes of a record": 32 * 32 * 4 * 4 * 2,  # two views, mean and std
}


def flops(width, depth, tokens, **_):
    """Of a training step of a DiT, for one image: 3 forward passes.

    A multiply-add is two. Of a block and a token: 8 C^2 of attention's
    projections, 16 C^2 of the MLP, 4 T C of attention itself; and 12 C^2 of
    the modulation of an image.
    """
    block = tokens * (24 * width**2 + 4 * tokens * width) + 12 * width**2
    return 3 * depth * block


def at_scale(chips):
    """{what: number} of data-parallel SiT-XL/2 on so many H200, on paper."""
    a = ASSUMED
    size = 4 * XL2["parameters"]
    slow = chips > a["chips of a host"]
    speed = a["bytes/s between hosts" if slow else "bytes/s in a host"]
    compute = a["milliseconds"] / 1e3
    # A ring sends each byte twice, but for the own share.
    reduce = 2 * (chips - 1) / chips * size / speed
    rate = chips * a["images"] / (compute + reduce)
    return {
        "step": compute,
        "all-reduce": reduce,
        "step, nothing overlapped": compute + reduce,
        "images/s": rate,
        "input bytes/s": rate * a["bytes of a record"],
        # Weights, one average, two moments of Adam, float32.
        "checkpoint": 4 * size / a["bytes/s to disk"],
    }


def _markdown(heads, cells):
    lines = [heads, ["---"] * len(heads), *cells]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def scale():
    """The cost model for 8 to 4,096 chips."""
    cells = []
    for chips in (8, 64, 512, 4096):
        found = at_scale(chips)
        cells.append(
            [
                f"{chips:,}",
                f"{1e3 * found['step']:.0f}",
                f"{1e3 * found['all-reduce']:.0f}",
                f"{found['step'] / found['step, nothing overlapped']:.0%}",
                f"{found['images/s']:,.0f}",
                f"{found['input bytes/s'] / 1e9:.2f}",
                f"{found['checkpoint']:.0f}",
            ]
        )
    return _markdown(
        ["chips", "compute, ms", "all-reduce, ms",
         "efficiency, nothing overlapped", "images/s", "input, GB/s",
         "checkpoint, s"],
        cells,
    )  # fmt: skip


def number(x):
    """Three digits, and no exponent above them."""
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def suite(name):
    """The rows of a suite, of each backend that has run it."""
    cells = []
    for path in sorted(RESULTS.glob(f"*_{name}.json")):
        backend = path.name.removesuffix(f"_{name}.json")
        for what, row in json.loads(path.read_text()).items():
            unit = next(iter(row))
            low, high = row["spread"]
            cells.append(
                [
                    backend,
                    what,
                    f"{number(row[unit])} ({number(low)} to {number(high)})",
                    f"{row['ratio']:.2f}",
                    number(row["cpu_milliseconds"])
                    if "cpu_ratio" in row
                    else "",
                    f"{row['cpu_ratio']:.2f}" if "cpu_ratio" in row else "",
                ]
            )
    unit = unit.replace("_per_second", "/s")
    return _markdown(
        ["backend", "", f"{unit} (quartiles)", "ratio", "CPU ms", "ratio"],
        cells,
    )
