"""Convert a published checkpoint to a preset, or a preset back to PyTorch.

    KERAS_BACKEND=jax python tools/convert_checkpoint.py --kind=sit \\
        --source=SiT-XL-2-256x256.pt --out=sit_xl_2

    KERAS_BACKEND=jax python tools/convert_checkpoint.py --kind=dit \\
        --source=hf://facebook/DiT-XL-2-256/transformer --out=dit_xl_2

    KERAS_BACKEND=torch python tools/convert_checkpoint.py --kind=sit \\
        --to_torch --source=sit_xl_2 --out=sit_xl_2.npz

Kinds: docs/presets.md. No code of a file is run. --golden=FILE.npz holds the
published network's inputs x, t[, r, condition] and its output, and the largest
difference is printed. --to_torch writes {name: array} as .npz, which
{k: torch.from_numpy(v) for k, v in numpy.load(FILE).items()} reads.
"""

import json
import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from absl import app
from absl import flags

import keras_flows as kf

FLAGS = flags.FLAGS
flags.DEFINE_enum("kind", None, list(kf.presets.CONVERTERS), "Kind of file.")
flags.DEFINE_string("source", None, "File, folder, hf:// or https:// handle.")
flags.DEFINE_string("out", None, "Folder of the preset; a file --to_torch.")
flags.DEFINE_bool(
    "ema", None, "Averaged weights, or --noema; by default where they are."
)
flags.DEFINE_string("options", "{}", "JSON of what shapes do not tell.")
flags.DEFINE_string("golden", None, ".npz of inputs and output to compare.")
flags.DEFINE_integer(
    "max_bytes", None, "Most bytes of weights; by default 16 GiB, 20 x file."
)
flags.DEFINE_bool("to_torch", False, "From a preset to PyTorch's names.")
flags.mark_flags_as_required(["kind", "source", "out"])


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Flags only. Received: {argv[1:]}.")
    if FLAGS.to_torch:
        model = kf.from_preset(FLAGS.source)
        state = kf.presets.torch_state(model, FLAGS.kind)
        np.savez(FLAGS.out, **state)
        print(f"{FLAGS.out}: {len(state)} arrays")
        return
    try:
        options = json.loads(FLAGS.options)
    except json.JSONDecodeError as error:
        raise app.UsageError(f"--options must be JSON: {error}.") from error
    try:
        converted = kf.presets.convert(
            FLAGS.source,
            FLAGS.kind,
            FLAGS.out,
            ema=FLAGS.ema,
            options=options,
            golden=FLAGS.golden,
            max_bytes=FLAGS.max_bytes,
        )
    except ValueError as error:
        raise SystemExit(f"Not converted. {error}") from error
    model = converted.model
    network = getattr(model, "network", model)
    print(f"{FLAGS.out}: {type(model).__name__} of {type(network).__name__}")
    print(f"{model.count_params():,} parameters, weights: {converted.weights}")
    if converted.dropped:
        print(
            f"left out {len(converted.dropped)} weights that sampling does "
            f"not use, such as {converted.dropped[0]}"
        )
    if converted.difference is not None:
        print(f"largest difference: {converted.difference:.2e}")


if __name__ == "__main__":
    app.run(main)
