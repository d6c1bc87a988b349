"""Trains, evaluates, samples, saves and exports in a loop; watches for leaks.

    KERAS_BACKEND=torch python tools/soak.py --minutes=120 --out=soak.json

One model lives through the run: each round resumes it from its checkpoints,
trains an epoch, evaluates, samples, saves and loads a preset; every tenth round
exports it. Each round also builds a model, trains and samples it, and drops it.
After each round it notes resident memory, open files, threads, and how often
the network of the living model was traced; it fails where one of them grows.
"""

import argparse
import functools
import gc
import json
import os
import pathlib
import tempfile
import threading
import time
import warnings

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_flows as kf

ROWS, BATCH = 640, 32
# Rounds before memory is compared: allocators and caches fill up.
WARM_UP = 0.25
GROWTH = 0.02


def count_calls(network):
    """Count Python's calls of a network: on JAX and TensorFlow its traces."""
    kind = type(network)
    original, calls = kind.call, [0]

    @functools.wraps(original)
    def call(self, *args, **kwargs):
        calls[0] += self is network
        return original(self, *args, **kwargs)

    kind.call = call
    return calls


def resident():
    """Resident memory, in bytes."""
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def open_files():
    return len(os.listdir("/proc/self/fd"))


def built(network, seed):
    model = kf.FlowMapInterface(network, "lsd", ema=0.99, seed=seed)
    model.compile(keras.optimizers.Adam(1e-3))
    return model


def live(model, folder, points, epoch):
    """What a user does with a model, once."""
    keep = kf.callbacks.Checkpoint(folder / "run", every_steps=10, keep=2)
    model.fit(
        points, batch_size=BATCH, epochs=epoch, callbacks=[keep], verbose=0
    )
    model.evaluate(points, batch_size=BATCH, verbose=0)
    for seed in range(3):
        model.generate(16, num_steps=1 + seed, seed=seed)
    model.generate(16, num_steps=2, sampler="euler", seed=epoch)


def preserve(folder, seed):
    """Built, trained, saved, loaded and dropped."""
    model = built(kf.networks.MLP(2, 32, 2, two_times=True), seed)
    points = np.random.default_rng(seed).normal(size=(64, 2))
    model.fit(points.astype("float32"), batch_size=BATCH, verbose=0)
    before = model.generate(8, num_steps=1, seed=0)
    model.save_to_preset(folder / "preset")
    after = kf.from_preset(folder / "preset").generate(8, num_steps=1, seed=0)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(after),
        keras.ops.convert_to_numpy(before),
        atol=1e-5,
    )


def judged(rounds):
    """The figures of a run, and what is wrong with them."""
    start = int(len(rounds) * WARM_UP)
    # Both ends by their median: one round's memory is noisy.
    width = max((len(rounds) - start) // 4, 1)
    first, last = (
        float(np.median([each["resident"] for each in part]))
        for part in (rounds[start : start + width], rounds[-width:])
    )
    figures = {
        "rounds": len(rounds),
        "resident_mb": [round(first / 2**20, 1), round(last / 2**20, 1)],
        "growth": round(last / first - 1.0, 4),
        "files": [rounds[start]["files"], rounds[-1]["files"]],
        "threads": [rounds[start]["threads"], rounds[-1]["threads"]],
        "traces": rounds[-1]["traces"] - rounds[start]["traces"],
    }
    faults = []
    if figures["growth"] > GROWTH:
        faults.append(f"memory grew by {100 * figures['growth']:.1f} %")
    for name in ("files", "threads"):
        if figures[name][1] > figures[name][0]:
            faults.append(f"{name} grew: {figures[name]}")
    if keras.backend.backend() != "torch" and figures["traces"]:
        faults.append(f"the network was traced {figures['traces']} times more")
    return figures | {"faults": faults}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--export_every", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="JSON file of the figures")
    options = parser.parse_args()
    warnings.simplefilter("ignore")

    points = np.random.default_rng(options.seed).normal(size=(ROWS, 2))
    points = points.astype("float32")
    network = kf.networks.MLP(2, 64, 2, two_times=True)
    model = built(network, options.seed)
    calls = count_calls(network)
    rounds = []
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        while time.monotonic() - begin < 60.0 * options.minutes:
            live(model, folder, points, len(rounds) + 1)
            traced = calls[0]
            preserve(folder, options.seed + len(rounds))
            if len(rounds) % options.export_every == 0:
                model.export(folder / "served", version=1, num_steps=2)
            gc.collect()
            rounds.append(
                {
                    "seconds": round(time.monotonic() - begin, 1),
                    "resident": resident(),
                    "files": open_files(),
                    "threads": threading.active_count(),
                    "traces": traced,
                }
            )
            calls[0] = traced
            print(
                f"\rround {len(rounds)}: {rounds[-1]['seconds']:.0f} s,"
                f" {rounds[-1]['resident'] / 2**20:.0f} MB",
                end="",
                flush=True,
            )
            if options.out:
                kf.ops.files.write_text(
                    options.out,
                    json.dumps(
                        {"backend": keras.backend.backend()}
                        | judged(rounds)
                        | {"each": rounds}
                    )
                    + "\n",
                )
    figures = judged(rounds)
    print("\n" + json.dumps(figures))
    if figures["faults"]:
        raise SystemExit("; ".join(figures["faults"]))


if __name__ == "__main__":
    main()
