"""A DiT on an accelerator, beside the published SiT."""

import json
import subprocess
import sys

import keras
import numpy as np
from absl import flags

import keras_flows as kf
from benchmarks.suites.fits import of_models

FLAGS = flags.FLAGS

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
    results = of_models(models, RandomLatents(), "flow_matching")
    base = results["flow_matching"]["milliseconds"]
    for result in others.values():
        result["ratio"] = result["milliseconds"] / base
    results |= others
    for result in results.values():
        seconds = result["milliseconds"] / 1e3
        result["images_per_second"] = FLAGS.batch_size / seconds
    return results
