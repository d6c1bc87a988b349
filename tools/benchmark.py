"""Training-step times as ratios measured in one run.

    KERAS_BACKEND=jax python tools/benchmark.py --out=out/benchmark
    KERAS_BACKEND=jax python tools/benchmark.py --suite=policies
    KERAS_BACKEND=jax python tools/benchmark.py --suite=images --size=XL/2 \\
        --batch_size=128 --objectives=flow_matching --peer=SiT

--suite=mean_flow: MLP 4 x 512, batch 2,048, guidance off: milliseconds of a
flow-matching step (SiTInterface) and a MeanFlow step at fm_portion 0.75,
interleaved, and their ratio; with --all_rows also MeanFlow with the JVP on
every row.

--suite=policies: the policies of recipes/metaworld.py, batch 256: a step of
each objective beside one of regression, and the milliseconds of one chunk for
one robot, by `predict_chunk` and by the exported SavedModel in a process of
TensorFlow alone.

--suite=checkpoint: the model of recipes/checkerboard.py, batch 1,024: a step of
a fit that saves every 100 steps by `kf.callbacks.Checkpoint`, beside one that
saves nothing.

--suite=images, for an accelerator: a DiT of --size on random latents of
32 x 32 x 4 with labels, in --dtype: a step of flow matching, of MeanFlow
(fm_portion 0.75) and of LSD (diagonal 0.75). With --peer, a folder that holds
models.py and transport/ of github.com/willisma/SiT, the same step there too,
op by op and by torch.compile, under autocast to bfloat16, in a process of its
own before ours begins. Autocast keeps the residual in float32, mixed_bfloat16
does not: that is more to move for the published code. Times are of whole
steps: AdamW, moving average and the copy of the batch to the device included.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from absl import app
from absl import flags

import keras_flows as kf

FLAGS = flags.FLAGS
flags.DEFINE_enum(
    "suite",
    "mean_flow",
    ["mean_flow", "policies", "checkpoint", "images"],
    "What.",
)
flags.DEFINE_list(
    "objectives", None, "Of the policies or images; all by default."
)
flags.DEFINE_string("size", "B/2", "Of images' DiT.")
flags.DEFINE_string("dtype", "mixed_bfloat16", "Policy of images' DiT.")
flags.DEFINE_string("peer", None, "Folder of SiT's code, for images.")
flags.DEFINE_integer("batch_size", 2048, "Batch size.", lower_bound=1)
flags.DEFINE_integer("width", 512, "Units of a hidden layer.")
flags.DEFINE_integer("depth", 4, "Number of hidden layers.")
flags.DEFINE_integer("rounds", 12, "Interleaved rounds.", lower_bound=1)
flags.DEFINE_integer("steps", 20, "Steps of a round.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed.")
flags.DEFINE_bool("all_rows", True, "Also MeanFlow with fm_portion 0.")
flags.DEFINE_string("out", "out/benchmark", "Folder for the figures.")


def build(cls, **kwargs):
    keras.utils.set_random_seed(FLAGS.seed)
    # Both networks take r, so that the two steps differ in the objective.
    network = kf.networks.MLP(
        2, width=FLAGS.width, depth=FLAGS.depth, two_times=True
    )
    model = cls(network, ema=None, seed=FLAGS.seed, **kwargs)
    model.compile(
        keras.optimizers.Adam(1e-4),
        jit_compile=keras.backend.backend() != "torch",
    )
    return model


def interleaved(models, data, base):
    """{name: {"milliseconds", "ratio"}} of a training step."""
    times = {name: [] for name in models}
    for model in models.values():
        model.fit(data, steps_per_epoch=min(5, FLAGS.steps), verbose=0)
    for _ in range(FLAGS.rounds):
        for name, model in models.items():
            start = time.perf_counter()
            model.fit(data, steps_per_epoch=FLAGS.steps, verbose=0)
            times[name].append(
                1e3 * (time.perf_counter() - start) / FLAGS.steps
            )
    return ratios(times, base)


def ratios(times, base):
    """{name: {"milliseconds", "ratio"}}, medians over rounds."""
    return {
        name: {
            "milliseconds": float(np.median(values)),
            # Of each round, so that a busy machine slows both alike.
            "ratio": float(np.median(np.array(values) / times[base])),
        }
        for name, values in times.items()
    }


def mean_flow():
    """The suite of that name."""
    models = {
        "flow_matching": build(kf.SiTInterface),
        "mean_flow": build(kf.MeanFlowInterface, fm_portion=0.75),
    }
    if FLAGS.all_rows:
        models["mean_flow_all_rows"] = build(
            kf.MeanFlowInterface, fm_portion=0.0
        )
    data = kf.datasets.Endless(kf.datasets.Checkerboard(), FLAGS.batch_size)
    return interleaved(models, data, "flow_matching")


def checkpoint():
    """The suite of that name; a round takes 300 steps and three savings."""
    steps, batch_size = 300, 1024
    points = kf.datasets.Checkerboard().sample(steps * batch_size, FLAGS.seed)
    model = kf.FlowMapInterface(
        kf.networks.MLP(2, 256, 4, two_times=True),
        "lsd",
        ema=0.999,
        seed=FLAGS.seed,
    )
    model.compile(keras.optimizers.Adam(1e-3))
    model.fit(points[: 5 * batch_size], batch_size=batch_size, verbose=0)
    times = {"no saving": [], "every 100 steps": []}
    for _ in range(FLAGS.rounds):
        for name, values in times.items():
            with tempfile.TemporaryDirectory() as folder:
                keep = kf.callbacks.Checkpoint(folder, every_steps=100)
                start = time.perf_counter()
                model.fit(
                    points,
                    batch_size=batch_size,
                    callbacks=[keep] if name == "every 100 steps" else [],
                    verbose=0,
                )
                values.append(1e3 * (time.perf_counter() - start) / steps)
    return ratios(times, "no saving")


OBJECTIVES = (
    "regression", "flow", "mip", "tsd", "psd", "ctm", "lsd", "esd", "mf",
)  # fmt: skip


def policy(objective, windows):
    """A policy as recipes/metaworld.py has it, on windows of noise."""
    keras.utils.set_random_seed(FLAGS.seed)
    network = kf.networks.ChunkMLP(
        4,
        16,
        (2, 128),
        kf.objectives.get(objective).needs_r,
        width=128,
        depth=2,
        dropout=0.0,
    )
    made = kf.policies.Policy(
        kf.FlowMapInterface(network, objective, ema=0.995, seed=FLAGS.seed),
        kf.networks.MLPEncoder((2, 21), 128),
        action_low=-1.0,
        action_high=1.0,
    )
    made.adapt(windows)
    made.compile(
        keras.optimizers.AdamW(1e-3, global_clipnorm=10.0),
        jit_compile=keras.backend.backend() != "torch",
    )
    return made


def policies():
    """The suite of that name."""
    rng = np.random.default_rng(FLAGS.seed)
    episodes = [
        {
            "observation": rng.standard_normal((100, 21)).astype("float32"),
            "action": rng.uniform(-1, 1, (100, 4)).astype("float32"),
        }
        for _ in range(20)
    ]
    windows = kf.datasets.robots.Windows(episodes, repeat=True)
    chosen = dict.fromkeys(["regression", *(FLAGS.objectives or OBJECTIVES)])
    models = {name: policy(name, windows) for name in chosen}
    results = interleaved(models, windows, "regression")
    history = rng.standard_normal((1, 2, 21)).astype("float32")
    for name in set(models) & {"regression", "mip", "flow"}:
        results[name]["latency"] = kf.policies.latency(
            models[name].predict_chunk, history
        )
        results[name]["saved_model_latency"] = served(models[name])
    return results


# What a server runs: TensorFlow alone, without the threads of a backend.
SERVER = """
import json, sys, time
import numpy as np
import tensorflow as tf
folder, repeats = sys.argv[1:]
loaded = tf.saved_model.load(folder)
serve = loaded.signatures["serve"]
noise = tf.zeros((1, 16, 4))
times = []
for i in range(50 + int(repeats)):
    history = np.full((1, 2, 21), i % 7, "float32")
    start = time.perf_counter()
    serve(observation=tf.constant(history), noise=noise)["actions"].numpy()
    times.append(1e3 * (time.perf_counter() - start))
print("SERVED" + json.dumps({
    name: float(np.quantile(times[50:], q))
    for name, q in (("median", 0.5), ("p90", 0.9), ("p99", 0.99))
}))
"""


def served(model):
    """Latency of the exported policy, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        model.export(f"{folder}/policy", verbose=False)
        text = subprocess.run(
            [sys.executable, "-c", SERVER, f"{folder}/policy", "1000"],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    return json.loads(text.split("SERVED")[1])


LATENT = (32, 32, 4)
CLASSES = 1000
IMAGES = {
    "flow_matching": (kf.SiTInterface, {"train_time_dist_type": "uniform"}),
    "mean_flow": (kf.MeanFlowInterface, {"fm_portion": 0.75}),
    "lsd": (kf.FlowMapInterface, {"objective": "lsd"}),
}


class RandomLatents(keras.utils.PyDataset):
    """Eight random batches over and over, drawn before training."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(FLAGS.seed)
        shape = (FLAGS.batch_size, *LATENT)
        self.batches = [
            (
                rng.standard_normal(shape, dtype="float32"),
                rng.integers(0, CLASSES, FLAGS.batch_size).astype("int32"),
            )
            for _ in range(8)
        ]

    @property
    def num_batches(self):
        return None

    def __getitem__(self, index):
        return self.batches[index % len(self.batches)]


def image_model(name):
    """An interface of IMAGES around a DiT, compiled."""
    keras.utils.set_random_seed(FLAGS.seed)
    cls, options = IMAGES[name]
    network = kf.networks.DiT.from_size(
        FLAGS.size,
        LATENT,
        num_classes=CLASSES,
        two_times=name != "flow_matching",
        dtype=FLAGS.dtype,
    )
    model = cls(network, ema=0.9999, seed=FLAGS.seed, **options)
    model.compile(
        keras.optimizers.AdamW(1e-4, weight_decay=0.0),
        jit_compile=keras.backend.backend() != "torch",
    )
    return model


# The training loop of SiT's train.py on random latents.
PEER = """
import copy, json, sys, time
import torch
folder, size, batch, rounds, steps = sys.argv[1:6]
batch, rounds, steps = int(batch), int(rounds), int(steps)
sys.path.insert(0, folder)
from models import SiT_models
from transport import create_transport
torch.backends.cuda.matmul.allow_tf32 = True
torch.backends.cudnn.allow_tf32 = True
torch.manual_seed(0)
data = [
    (torch.randn(batch, 4, 32, 32), torch.randint(1000, (batch,)))
    for _ in range(8)
]
transport, results = create_transport(), {}
for name in ("eager", "compiled"):
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model = SiT_models["SiT-" + size](input_size=32, num_classes=1000).cuda()
    ema = copy.deepcopy(model).requires_grad_(False)
    pairs = [list(m.parameters()) for m in (ema, model)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0)
    called = torch.compile(model) if name == "compiled" else model

    def step(i):
        x, y = (part.cuda() for part in data[i % 8])
        with torch.autocast("cuda", torch.bfloat16):
            loss = transport.training_losses(called, x, {"y": y})["loss"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        # train.py averages weight by weight; at once is faster.
        with torch.no_grad():
            torch._foreach_lerp_(*pairs, 1e-4)
        return loss

    for i in range(5):
        step(i)
    times = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for i in range(steps):
            loss = step(i)
        loss.item()
        times.append(1e3 * (time.perf_counter() - start) / steps)
    results[name] = {
        "milliseconds": sorted(times)[len(times) // 2],
        "peak_memory_bytes": torch.cuda.max_memory_allocated(),
    }
    del model, ema, pairs, optimizer, called
print("PEER" + json.dumps(results))
"""


def peer():
    """{"SiT eager" and "SiT compiled": {"milliseconds", ...}}."""
    text = subprocess.run(
        [sys.executable, "-c", PEER, FLAGS.peer, FLAGS.size,
         *map(str, (FLAGS.batch_size, FLAGS.rounds, FLAGS.steps))],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout  # fmt: skip
    results = json.loads(text.split("PEER")[1])
    return {f"SiT {name}": result for name, result in results.items()}


def images():
    """The suite of that name."""
    others = peer() if FLAGS.peer else {}
    chosen = dict.fromkeys(["flow_matching", *(FLAGS.objectives or IMAGES)])
    models = {name: image_model(name) for name in chosen}
    results = interleaved(models, RandomLatents(), "flow_matching")
    base = results["flow_matching"]["milliseconds"]
    for result in others.values():
        result["ratio"] = result["milliseconds"] / base
    results |= others
    for result in results.values():
        seconds = result["milliseconds"] / 1e3
        result["images_per_second"] = FLAGS.batch_size / seconds
    return results


def device():
    """What the backend computes on, in words."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.devices()[0].device_kind
    if backend == "torch":
        import torch

        found = torch.cuda.is_available() and torch.cuda.get_device_name()
        return found or "cpu"
    return keras.distribution.list_devices()[0]


SUITES = {
    "mean_flow": mean_flow,
    "policies": policies,
    "checkpoint": checkpoint,
    "images": images,
}


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    results = SUITES[FLAGS.suite]()
    backend = keras.backend.backend()
    for name, result in results.items():
        line = (
            f"{backend:<11} {name:<20} {result['milliseconds']:8.1f} ms  "
            f"{result['ratio']:.2f}"
        )
        for key in ("latency", "saved_model_latency"):
            if key in result:
                median, p99 = result[key]["median"], result[key]["p99"]
                line += f"  {key} {median:.2f} ms (p99 {p99:.2f})"
        if "images_per_second" in result:
            line += f"  {result['images_per_second']:.0f} images/s"
        print(line)
    out = pathlib.Path(FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    name = backend if FLAGS.suite == "mean_flow" else f"{backend}_{FLAGS.suite}"
    if FLAGS.suite == "images":
        name += "_" + FLAGS.size.replace("/", "_").lower()
        results["settings"] = {
            "device": device(),
            **{
                k: FLAGS[k].value
                for k in ("size", "batch_size", "dtype", "rounds", "steps")
            },
        }
    (out / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
