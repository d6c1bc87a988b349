"""Write the tables of docs/ from the JSON files that the recipes wrote.

    python tools/results.py           # rewrite them
    python tools/results.py --check   # fail where a page says something else

A page marks the place of a table by two comments:

    <!-- table: digits -->
    <!-- end -->
"""

import argparse
import importlib.util
import json
import os
import pathlib
import re
import sys

from absl import flags

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
sys.path.insert(0, str(ROOT))

from benchmarks import tables  # noqa: E402

BLOCK = re.compile(r"<!-- table: ([\w-]+) -->\n.*?<!-- end -->", re.DOTALL)
CALLS = (1, 2, 4, 8, 16)


def read(name):
    return json.loads((RESULTS / f"{name}.json").read_text())


def recipe(name):
    """A recipe as a module."""
    return loaded(ROOT / "recipes" / f"{name}.py")


def loaded(path):
    """A script as a module, whose flags are forgotten."""
    paths = list(sys.path)
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    known = set(flags.FLAGS)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = paths
        # The next recipe defines some of them again.
        for flag in set(flags.FLAGS) - known:
            delattr(flags.FLAGS, flag)
    return module


def rows(heads, cells):
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *cells]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def board(estimator, paper):
    """KL on the checkerboard by calls, of our runs and the published one."""
    presets, demo = read("presets"), list(read("demo")["lsd"].values())
    mean = [
        sum(run[estimator]["kl"][i] for run in demo) / len(demo)
        for i in range(len(CALLS))
    ]
    lsd = presets["lsd_checkerboard"][estimator]
    psd = presets["psd_checkerboard"][estimator]
    gpu = read("gpu")["checkerboard"]
    found = [
        (f"LSD, `tools/demo.sh`, mean of {len(demo)} seeds", mean),
        ("LSD, preset `lsd_checkerboard`", lsd["kl"]),
        (
            f"LSD on an H200, {gpu['training_seconds']:.0f} s",
            gpu[estimator]["kl"],
        ),
        (f"LSD, {paper}", lsd["published"]),
        ("PSD, preset `psd_checkerboard`", psd["kl"]),
        (f"PSD, {paper}", psd["published"]),
    ]
    return rows(
        ["calls", *CALLS],
        [[name, *(f"{kl:.4f}" for kl in values)] for name, values in found],
    )


def digits():
    module, found = recipe("digits"), read("digits")
    return module.table(found["objectives"], found["real"])


def images(name):
    return recipe("_image_table").table(read(name))


def bridge():
    found = read("bridge")
    named = {
        "the rings themselves": found["floor"],
        **found["kl"],
        "the board, not moved": found["untransported"],
    }
    return rows(
        ["sampler", "KL to the rings"],
        [[name, f"{kl:.3f}"] for name, kl in named.items()],
    )


def few_steps():
    # Both are of 100,000 samples.
    floor = read("presets")["lsd_checkerboard"]["samples"]["floor"]
    return recipe("few_steps").table(read("few_steps")["results"], floor)


def export():
    said = {"tf_saved_model": "SavedModel", "onnx": "ONNX"}
    cells = []
    for name, found in read("export").items():
        preset, backend = name.split(", ")
        batches = found["latency"].values()
        for run in found["latency"]["batch 1"]:
            made = found["formats"].get(run)
            cells.append(
                [
                    f"`{preset}`, {backend}",
                    said.get(run, f"`{run}`"),
                    f"{made['bytes'] / 1e6:.2f} MB" if made else "",
                    f"{max(made['parity'].values()):.0e}" if made else "",
                    *(
                        f"{batch[run]['milliseconds']:.3g} "
                        f"({batch[run]['ratio']:.2f})"
                        for batch in batches
                    ),
                ]
            )
    return rows(
        ["preset, backend", "runs", "size", "parity", "batch 1, ms (ratio)",
         "batch 64, ms (ratio)"],
        cells,
    )  # fmt: skip


def time_frequency():
    path = ROOT / "tools" / "time_frequency.py"
    return loaded(path).table(read("time_frequency"))


def policies():
    return recipe("metaworld").table(read("metaworld"))


def objectives():
    return recipe("objectives").table(read("objectives"))


def policy_steps():
    found = read("policies_benchmark")
    names = list(found["jax"])
    return rows(
        ["ms a step (ratio)", *(f"`{name}`" for name in names)],
        [
            [
                backend,
                *(
                    f"{row[name]['milliseconds']:.0f} "
                    f"({row[name]['ratio']:.2f})"
                    if name in row
                    else ""
                    for name in names
                ),
            ]
            for backend, row in found.items()
        ],
    )


def policy_latency():
    heads, cells = ["ms a chunk: median (p99)"], []
    for objective in ("mip", "flow"):
        heads += [f"`predict_chunk`, {objective}", f"SavedModel, {objective}"]
    for backend, row in read("policies_benchmark").items():
        cells.append([backend])
        for objective in ("mip", "flow"):
            for key in ("latency", "saved_model_latency"):
                of = row[objective][key]
                cells[-1].append(f"{of['median']:.2f} ({of['p99']:.2f})")
    return rows(heads, cells)


def jvp():
    return rows(
        ["backend", "flow matching", "MeanFlow", "JVP on every row"],
        [
            [
                backend,
                f"{row['flow_matching']['milliseconds']:.0f} ms",
                *(
                    f"{row[name]['milliseconds']:.0f} ms "
                    f"({row[name]['ratio']:.2f})"
                    for name in ("mean_flow", "mean_flow_all_rows")
                ),
            ]
            for backend, row in read("benchmark").items()
        ],
    )


def gpu():
    found = read("gpu")["images"]
    return rows(
        ["", "ms a step", "ratio", "images/s",
         f"of {found['peak_tflops']:.0f} TFLOP/s"],
        [
            [
                name,
                f"{row['milliseconds']:.0f}",
                f"{row['ratio']:.2f}",
                f"{row['images_per_second']:.0f}",
                f"{row['mfu']:.0%}",
            ]
            for name, row in found["rows"].items()
        ],
    )  # fmt: skip


TABLES = {
    "board-samples": lambda: board("samples", "published reproduction"),
    "board-density": lambda: board("density", "paper"),
    "bridge": bridge,
    "digits": digits,
    "export": export,
    "few-steps": few_steps,
    "gpu": gpu,
    "jvp": jvp,
    "latency": lambda: tables.suite("latency"),
    "mnist": lambda: images("mnist"),
    "objectives": objectives,
    "overhead": lambda: tables.suite("overhead"),
    "policies": policies,
    "policy-latency": policy_latency,
    "policy-steps": policy_steps,
    "scenes": lambda: images("scenes"),
    "scale": tables.scale,
    "step": lambda: tables.suite("step_dit"),
    "time-frequency": time_frequency,
}


def filled(text, tables):
    """A page with its tables as they should be.

    Raises:
        ValueError: if it names a table that there is not.
    """

    def one(match):
        name = match[1]
        if name not in tables:
            raise ValueError(
                f"There is no table {name!r}; there are {sorted(tables)}."
            )
        body = tables[name]().strip()
        return f"<!-- table: {name} -->\n\n{body}\n\n<!-- end -->"

    return BLOCK.sub(one, text)


def pages():
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing, fail instead"
    )
    options = parser.parse_args()
    stale = []
    for page in pages():
        text = page.read_text()
        wanted = filled(text, TABLES)
        if wanted != text:
            stale.append(str(page.relative_to(ROOT)))
            if not options.check:
                page.write_text(wanted)
    if options.check and stale:
        raise SystemExit(f"Run tools/results.py: {', '.join(stale)} differ.")
    print(f"{'changed' if stale else 'nothing to change'}: {stale or ''}")


if __name__ == "__main__":
    main()
