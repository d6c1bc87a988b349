"""What keras_flows costs beside code written by hand, measured in one run.

    KERAS_BACKEND=jax python tools/benchmark.py --suite=overhead
    KERAS_BACKEND=jax python tools/benchmark.py --suite=step --network=dit
    KERAS_BACKEND=jax python tools/benchmark.py --suite=step \\
        --compare=benchmarks/results/jax_step_mlp.json
    KERAS_BACKEND=jax python tools/benchmark.py --suite=images --size=XL/2 \\
        --batch_size=128 --objectives=flow_matching --peer=SiT

Runs take turns, A B A B, and a ratio is the median of those of each turn. The
peers written by hand are benchmarks/native; a test holds their loss against
ours. --compare prints the ratio to an earlier run. Suites:

overhead: a step of an MLP of 2 x 64, batch 64, under `fit`, under
`keras.Model.fit` and by hand, one by one and 16 a call.

step: a step of --network: tiny, mlp (4 x 512, batch 2,048) or dit (S/2 on
32 x 32 x 4, batch 8), with and without an average, beside one by hand.

first_step, memory, import: of a process of its own: seconds to the first loss,
also out of `kf.training.compilation_cache`; peak memory of a step beside one by
hand, with an average, with `remat`; seconds of the imports, and to a sample.

generate: 16 Euler steps beside as many calls by hand, and a batch size that was
never asked for beside one that was. latency: `predict_chunk` of one robot
beside its compiled function. data: a folder of 2,048 PNG files beside tf.data.

mean_flow: MLP 4 x 512, batch 2,048, guidance off: a flow-matching step and a
MeanFlow step at fm_portion 0.75; with --all_rows also the JVP on every row.
policies: the policies of recipes/metaworld.py, batch 256: a step of each
objective beside one of regression, and the milliseconds of one chunk, by
`predict_chunk` and by the SavedModel in a process of TensorFlow alone.
checkpoint: the model of recipes/checkerboard.py, batch 1,024, saving every 100
steps and not at all.

images, for an accelerator: a DiT of --size on random latents of 32 x 32 x 4
with labels, in --dtype: a step of flow matching, of MeanFlow (fm_portion 0.75)
and of LSD (diagonal 0.75). With --peer, a folder that holds models.py and
transport/ of github.com/willisma/SiT, the same step there too, op by op and by
torch.compile, under autocast to bfloat16, in a process of its own before ours
begins. Autocast keeps the residual in float32, mixed_bfloat16 does not: that is
more to move for the published code. Times are of whole steps: AdamW, moving
average and the copy of the batch to the device included.
"""

import json
import os
import pathlib
import sys

os.environ.setdefault("KERAS_BACKEND", "jax")
ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
)

import keras  # noqa: E402
from absl import app  # noqa: E402
from absl import flags  # noqa: E402

from benchmarks.suites import data  # noqa: E402
from benchmarks.suites import fresh  # noqa: E402
from benchmarks.suites import images  # noqa: E402
from benchmarks.suites import objectives  # noqa: E402
from benchmarks.suites import policies  # noqa: E402
from benchmarks.suites import sampling  # noqa: E402
from benchmarks.suites import steps  # noqa: E402

SUITES = {
    "overhead": steps.overhead,
    "step": steps.step,
    "first_step": fresh.first_step,
    "memory": fresh.memory,
    "import": fresh.imports,
    "generate": sampling.generate,
    "latency": sampling.latency,
    "data": data.data,
    "mean_flow": objectives.mean_flow,
    "policies": policies.policies,
    "checkpoint": objectives.checkpoint,
    "images": images.images,
}
# Those of --network.
OF_NETWORK = ("step", "first_step", "memory", "generate")
BATCH_SIZES = {"mean_flow": 2048, "images": 2048}

FLAGS = flags.FLAGS
flags.DEFINE_enum("suite", "mean_flow", list(SUITES), "What.")
flags.DEFINE_enum("network", "tiny", ["tiny", "mlp", "dit"], "Of the suites.")
flags.DEFINE_list(
    "objectives", None, "Of the policies or images; all by default."
)
flags.DEFINE_string("size", "B/2", "Of images' DiT.")
flags.DEFINE_string("dtype", "mixed_bfloat16", "Policy of images' DiT.")
flags.DEFINE_string("peer", None, "Folder of SiT's code, for images.")
flags.DEFINE_integer(
    "batch_size", None, "Batch size, by default the suite's.", lower_bound=1
)
flags.DEFINE_integer("width", 512, "Units of a hidden layer.")
flags.DEFINE_integer("depth", 4, "Number of hidden layers.")
flags.DEFINE_integer("rounds", 12, "Interleaved rounds.", lower_bound=1)
flags.DEFINE_integer("steps", 20, "Steps of a round.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed.")
flags.DEFINE_bool("all_rows", True, "Also MeanFlow with fm_portion 0.")
flags.DEFINE_string("compare", None, "JSON file of an earlier run.")
flags.DEFINE_string("out", "out/benchmark", "Folder for the figures.")


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


def line(name, row):
    """A row in one line."""
    unit = next(iter(row))
    text = f"{name:<26} {row[unit]:10.4g} {unit:<18} {row['ratio']:6.2f}"
    if "cpu_ratio" in row:
        text += f"  CPU {row['cpu_milliseconds']:.4g} ({row['cpu_ratio']:.2f})"
    for key in ("latency", "saved_model_latency"):
        if key in row:
            median, p99 = row[key]["median"], row[key]["p99"]
            text += f"  {key} {median:.2f} ms (p99 {p99:.2f})"
    if "images_per_second" in row:
        text += f"  {row['images_per_second']:.0f} images/s"
    return text


def compared(row, old):
    """How a row stands to that of an earlier run."""
    unit = next(iter(row))
    if old is None or unit not in old:
        return ""
    return f"  {row[unit] / old[unit]:.2f} of the earlier run"


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    if FLAGS.batch_size is None:
        FLAGS.batch_size = BATCH_SIZES.get(FLAGS.suite)
    old = {}
    if FLAGS.compare:
        old = json.loads(pathlib.Path(FLAGS.compare).read_text())
    results = SUITES[FLAGS.suite]()
    backend = keras.backend.backend()
    print(f"{backend}, {FLAGS.suite}:")
    for name, row in results.items():
        print("  " + line(name, row) + compared(row, old.get(name)))
    out = pathlib.Path(FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    name = backend if FLAGS.suite == "mean_flow" else f"{backend}_{FLAGS.suite}"
    if FLAGS.suite in OF_NETWORK:
        name += f"_{FLAGS.network}"
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
