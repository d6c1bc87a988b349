"""Train the published ImageNet 256 x 256 models on prepared latents.

    KERAS_BACKEND=jax python recipes/imagenet.py --config=sit_xl_2 \\
        --data=latents --out=out/sit_xl_2

Hardware: each configuration names what its paper used; `--synthetic` runs any
of them anywhere, on random latents, and `--config=tiny` on any laptop. Latents
come from `tools/prepare_latents.py`. None of the published figures has been
reproduced by us: the configurations hold what the papers and their code say.

One device needs no flag. Several devices of one machine, or a TPU slice:
--layout=data_parallel or --layout=fully_sharded (JAX), with --initialize on a
slice of several hosts, one process a host; see docs/distribution.md. PyTorch
averages gradients under torch.distributed (torchrun).

Writes to --out: config.json, log.csv, results.json (images per second,
memory), checkpoints/ for --resume, preset/ at the end.
"""

import csv
import dataclasses
import json
import math
import os
import pathlib
import time

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from _common import write
from absl import app
from absl import flags

import keras_flows as kf


@dataclasses.dataclass(frozen=True)
class Config:
    """What a paper trained.

    Attributes:
        network: class of the network.
        size: its published size.
        interface: "sit", "mean_flow" or "repa".
        latent: (H, W, C) of a latent.
        batch_size: global batch.
        steps: training steps.
        learning_rate: constant.
        beta_2: of AdamW.
        ema: decay.
        options: more arguments of the interface.
        hardware: what it was trained on.
        published: figure and source.
    """

    network: str
    size: str
    interface: str
    hardware: str
    published: str
    latent: tuple = (32, 32, 4)
    batch_size: int = 256
    steps: int = 400_000
    learning_rate: float = 1e-4
    beta_2: float = 0.999
    ema: float = 0.9999
    options: dict = dataclasses.field(default_factory=dict)


# REPA's published runs draw times uniformly, as SiT's do.
UNIFORM = {"train_time_dist_type": "uniform"}
# MeanFlow's draw both times from logit-normal(-0.4, 1), the noisier is t, and
# three quarters of the rows have r = t.
MEAN_FLOW = {"norm_eps": 1e-2, "time_pairs": "ordered", "fm_portion": 0.75}
CONFIGS = {
    "sit_b_2": Config(
        "DiT", "B/2", "sit", "8 A100", options=UNIFORM,
        published="FID 34.5 unguided after 400,000 steps (DiffuseNNX)",
    ),
    "sit_xl_2": Config(
        "DiT", "XL/2", "sit", "TPU v4-64", steps=7_000_000, options=UNIFORM,
        published="FID 8.30 unguided, 2.06 at guidance 1.5 (2401.08740)",
    ),
    "mean_flow_b_4": Config(
        "DiT", "B/4", "mean_flow", "TPU v4-8", beta_2=0.95,
        options=MEAN_FLOW,
        published="FID 61.06 unguided in 1 step after 80 epochs (2505.13447)",
    ),
    "mean_flow_xl_2": Config(
        "DiT", "XL/2", "mean_flow", "TPU", steps=1_200_000, beta_2=0.95,
        options={**MEAN_FLOW, "guidance_mixture_ratio": 0.5},
        published="FID 3.43 in 1 step after 240 epochs (2505.13447), with a "
        "guidance of its own; here the published code's default",
    ),
    "repa_xl_2": Config(
        "DiT", "XL/2", "repa", "8 H100", steps=4_000_000, options=UNIFORM,
        published="FID 5.90 unguided, 1.42 at guidance 1.8 below noise "
        "fraction 0.7 (2410.06940)",
    ),
    "lightning_dit_xl": Config(
        "LightningDiT", "XL/1", "sit", "8 H800", latent=(16, 16, 32),
        batch_size=1024, steps=80_000, learning_rate=2e-4, beta_2=0.95,
        published="FID 5.14 unguided after 64 epochs on VA-VAE latents "
        "(2501.01423), with a cosine loss that is not in here",
    ),
    "tiny": Config(
        "DiT", "S/8", "sit", "any", batch_size=32, steps=1_000,
        published="none: to try the recipe",
    ),
}  # fmt: skip

FLAGS = flags.FLAGS
flags.DEFINE_enum("config", "sit_b_2", list(CONFIGS), "What to train.")
flags.DEFINE_string("data", None, "Folder of prepared latents.")
flags.DEFINE_bool("synthetic", False, "Random latents instead of --data.")
flags.DEFINE_integer("steps", None, "Instead of the configuration's.")
flags.DEFINE_integer("batch_size", None, "Instead of the configuration's.")
flags.DEFINE_integer("accumulate", 1, "Batches of one update.", lower_bound=1)
flags.DEFINE_enum(
    "layout",
    "none",
    ["none", "data_parallel", "fully_sharded"],
    "How the devices share the work (JAX).",
)
flags.DEFINE_bool("initialize", False, "keras.distribution.initialize().")
flags.DEFINE_string("dtype", "float32", "Policy, such as mixed_bfloat16.")
flags.DEFINE_bool("remat", False, "Recompute activations backwards.")
flags.DEFINE_integer("save_every", 5_000, "Steps between backups.")
flags.DEFINE_bool("resume", False, "Go on with the run in --out.")
flags.DEFINE_float("peak_tflops", None, "Of all devices, to print the MFU.")
flags.DEFINE_integer("seed", 0, "Seed of weights, data and noise.")
flags.DEFINE_string("out", "out/imagenet", "Folder for what it makes.")

CLASSES = 1000
FEATURES = 768  # of DINOv2-B, REPA's encoder


class SyntheticLatents:
    """Random latents, labels and, for REPA, features."""

    def __init__(self, config, tokens):
        self.latent = config.latent
        self.features = (tokens, FEATURES) if config.interface == "repa" else ()

    def sample(self, num, rng):
        x = rng.standard_normal((num, *self.latent), dtype="float32")
        labels = rng.integers(0, CLASSES, num).astype("int32")
        if not self.features:
            return x, labels
        features = rng.standard_normal((num, *self.features), dtype="float32")
        return x, labels, {"features": features}


class SyntheticBatches(keras.utils.PyDataset):
    """Eight random batches over and over, drawn before training."""

    def __init__(self, data, batch_size, seed):
        super().__init__()
        rng = np.random.default_rng(seed)
        self.batches = [data.sample(batch_size, rng) for _ in range(8)]

    @property
    def num_batches(self):
        return None

    def __getitem__(self, index):
        return self.batches[index % len(self.batches)]


def build(config):
    """The interface of a configuration."""
    options = {"ema": config.ema, "seed": FLAGS.seed, **config.options}
    network = getattr(kf.networks, config.network).from_size(
        config.size,
        config.latent,
        num_classes=CLASSES,
        two_times=config.interface == "mean_flow",
        remat=FLAGS.remat,
        dtype=FLAGS.dtype,
    )
    if config.interface == "mean_flow":
        return kf.MeanFlowInterface(network, **options)
    sit = kf.SiTInterface(network, **options)
    if config.interface == "sit":
        return sit
    return kf.REPAInterface(sit, feature_dim=FEATURES, repa_depth=8)


def num_tokens(config):
    patch = int(config.size.split("/")[1])
    return config.latent[0] * config.latent[1] // patch**2


def training_flops(network, tokens):
    """Floating-point operations of a training step, an image.

    Twice the multiplications of the dense layers and of attention, times
    three for forward and backward.
    """
    total = 0
    for v in network.trainable_variables:
        if not v.path.endswith("kernel"):
            continue
        once = "modulation" in v.path or "embedding/" in v.path
        if "patch_embedding" in v.path:
            once = False
        total += 2 * math.prod(v.shape) * (1 if once else tokens)
        if v.path.endswith("qkv/kernel"):
            total += 4 * tokens**2 * v.shape[0]
    return 3 * total


class Throughput(keras.callbacks.Callback):
    """Seconds of every step after the first, which compiles."""

    def on_train_begin(self, logs=None):
        self.seconds, self._last = [], None

    def on_train_batch_end(self, batch, logs=None):
        # Reading a value waits for the step.
        float(logs["loss"])
        now = time.perf_counter()
        if self._last is not None:
            self.seconds.append(now - self._last)
        self._last = now


def peak_memory():
    """Bytes of accelerator memory at the peak, or None where not known."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        stats = jax.devices()[0].memory_stats() or {}
        return stats.get("peak_bytes_in_use")
    if backend == "torch":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated()
    return None


def dataset(config, batch_size):
    """Batches of latents, in an order that a resumed run goes on with."""
    if FLAGS.synthetic:
        data = SyntheticLatents(config, num_tokens(config))
        return SyntheticBatches(data, batch_size, FLAGS.seed)
    if FLAGS.data is None:
        raise app.UsageError(
            "Give --data, a folder of latents, or --synthetic."
        )
    return kf.datasets.Latents(
        FLAGS.data,
        batch_size,
        repeat=True,
        seed=FLAGS.seed,
        # Made with --features=dinov2_base --feature_grid=16.
        extras="features" if config.interface == "repa" else None,
    )


def set_layout():
    if FLAGS.initialize:
        keras.distribution.initialize()
    if FLAGS.layout == "data_parallel":
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(
                devices=keras.distribution.list_devices()
            )
        )
    elif FLAGS.layout == "fully_sharded":
        keras.distribution.set_distribution(kf.training.FullySharded())


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    config = CONFIGS[FLAGS.config]
    steps = FLAGS.steps or config.steps
    batch_size = FLAGS.batch_size or config.batch_size
    out = pathlib.Path(FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "checkpoints"
    if FLAGS.resume != kept.exists():
        raise app.UsageError(
            f"{out} holds a run: pass --resume to go on with it, or another "
            "--out."
            if kept.exists()
            else f"--resume: there is no run in {out}."
        )
    set_layout()
    keras.utils.set_random_seed(FLAGS.seed)
    data = dataset(config, batch_size)
    model = build(config)
    model.compile(
        keras.optimizers.AdamW(
            config.learning_rate,
            weight_decay=0.0,
            beta_2=config.beta_2,
            gradient_accumulation_steps=FLAGS.accumulate
            if FLAGS.accumulate > 1
            else None,
        ),
        jit_compile=keras.backend.backend() != "torch",
    )
    parameters = sum(
        math.prod(v.shape) for v in model.network.trainable_variables
    )
    print(f"{FLAGS.config}: {parameters / 1e6:.1f} M parameters. Published: "
          f"{config.published}.")  # fmt: skip
    settings = {
        **dataclasses.asdict(config),
        "flags": {
            name: FLAGS[name].value
            for name in ("config", "data", "synthetic", "accumulate",
                         "layout", "dtype", "remat", "seed")
        },
        "trained_steps": steps,
        "trained_batch_size": batch_size,
        "backend": keras.backend.backend(),
        "keras": keras.__version__,
        "keras_flows": kf.__version__,
    }  # fmt: skip
    write(out / "config.json", settings)
    if FLAGS.layout != "none":
        print(kf.training.coverage(model.variables)[0])

    # An epoch of Keras is the steps between two checkpoints.
    every = min(FLAGS.save_every, steps)
    throughput = Throughput()
    model.fit(
        data,
        steps_per_epoch=every,
        epochs=max(steps // every, 1),
        verbose=2,
        callbacks=[
            throughput,
            keras.callbacks.CSVLogger(out / "log.csv", append=FLAGS.resume),
            kf.callbacks.Checkpoint(kept, every_steps=every),
        ],
    )
    seconds = float(np.median(throughput.seconds or [math.nan]))
    flops = training_flops(model.network, num_tokens(config)) * batch_size
    with open(out / "log.csv") as file:
        last = list(csv.DictReader(file))[-1]
    results = {
        "parameters": parameters,
        "step_milliseconds": 1e3 * seconds,
        "images_per_second": batch_size / seconds,
        "training_tflop_per_image": flops / batch_size / 1e12,
        "mfu": flops / seconds / (FLAGS.peak_tflops * 1e12)
        if FLAGS.peak_tflops
        else None,
        "peak_memory_bytes": peak_memory(),
        "loss": float(last["loss"]),
        "settings": settings,
    }
    write(out / "results.json", results)
    model.save_to_preset(out / "preset", metadata={"recipe": "imagenet.py"})
    print(json.dumps({k: v for k, v in results.items() if k != "settings"}))


if __name__ == "__main__":
    app.run(main)
