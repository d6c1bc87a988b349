"""The commands and their flags; nothing heavy is imported for `--help`.

A flag means the same in every command that has it.
"""

from __future__ import annotations

import argparse

from keras_flows._backend import BACKENDS
from keras_flows._version import __version__
from keras_flows.cli import serving

OBJECTIVES = (
    "lsd", "psd", "esd", "mf", "shortcut", "imm", "sit", "edm", "mean_flow",
    "flow", "mip", "regression",
)  # fmt: skip
# Kinds of published checkpoints: those of `presets.CONVERTERS`.
CHECKPOINTS = (
    "sit", "dit", "repa", "lightning_dit", "ddt", "rae", "meanflow", "edm",
    "vae", "policy",
)  # fmt: skip
MODEL = "a preset: name, folder, hf://, kaggle:// or https:// handle"
DATA = (
    "a folder of images; a .npy or .npz file of points (n, d), windows "
    "(n, length, channels) or images (n, height, width, channels), with "
    "labels (n,) beside them; a folder of episodes, .npz files with `action`; "
    "or 'checkerboard' or 'digits'"
)


class Format(
    argparse.ArgumentDefaultsHelpFormatter,
    argparse.RawDescriptionHelpFormatter,
):
    """Defaults are told, and descriptions keep their lines."""


def parser() -> argparse.ArgumentParser:
    """The `argparse.ArgumentParser` of all commands."""
    found = argparse.ArgumentParser(
        "keras-flows",
        description="Few-step generative models from the command line.",
        epilog="keras-flows COMMAND --help tells the flags of a command.",
        allow_abbrev=False,
    )
    found.add_argument("--version", action="version", version=__version__)
    commands = found.add_subparsers(
        dest="command", required=True, metavar="COMMAND"
    )
    for name, (text, fill) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=text.partition("\n")[0],
            description=text,
            formatter_class=Format,
            allow_abbrev=False,
        )
        fill(command)
        shared = command.add_argument_group("of every command")
        shared.add_argument(
            "--backend", choices=BACKENDS, help="by default what Keras is set "
            "up for, or the one that is installed",
        )  # fmt: skip
        shared.add_argument(
            "--verbose", action="store_true", help="show what the frameworks "
            "say, and tracebacks",
        )  # fmt: skip
    return found


def _whole(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


def _wholes(text):
    return [_whole(part) for part in text.split(",")]


def _pair(text):
    low, high = map(float, text.split(","))
    return low, high


def _labels(text):
    return [int(part) for part in text.split(",")]


def _out(command, text, required=True, default=None):
    command.add_argument("--out", required=required, default=default, help=text)
    command.add_argument(
        "--overwrite", action="store_true", help="replace --out if it exists"
    )


def _seed(command):
    command.add_argument("--seed", type=int, default=0, help="seed")


def _batch(command, default, text="rows at once"):
    command.add_argument(
        "--batch-size", type=_whole, default=default, help=text
    )


def _sampling(command, steps=True):
    """The flags of `generate`, by its names."""
    add = command.add_argument
    if steps:
        add("--num-steps", "--steps", type=_whole, dest="num_steps",
            help="network calls; by default the model's")  # fmt: skip
    add("--sampler", help="by default the objective's")
    add("--guidance-scale", type=float, default=1.0, help="1 is off")
    add("--guidance-interval", type=_pair, help="low,high levels of noise")
    add("--guidance-channels", type=_whole, help="channels that are guided")
    add("--no-ema", dest="use_ema", action="store_false",
        help="the trained weights, not their average")  # fmt: skip


def _images(command):
    command.add_argument(
        "--image-size", type=_whole, help="pixels a side to crop a folder's "
        "images to; 32 where it is not told",
    )  # fmt: skip


def _training(command, steps, rate):
    add = command.add_argument
    add("--steps", type=_whole, default=steps, help="training steps")
    _batch(command, 256, "rows of a batch")
    add("--learning-rate", type=float, default=rate, help="peak of the cosine")
    add("--ema", type=float, default=0.999, help="decay of the average")
    _seed(command)


def _presets(command):
    command.add_argument("name", nargs="?", help="a preset to describe")


def _sample(command):
    command.add_argument("model", help=MODEL)
    _out(command, "picture .png, or arrays .npz or .npy", False, "samples.png")
    command.add_argument(
        "--num-samples", type=_whole, help="16; one for each condition"
    )
    command.add_argument(
        "--condition", type=_labels, help="label, or labels with commas"
    )
    command.add_argument(
        "--observation", help="of a policy: .npz or .npy of histories"
    )
    _sampling(command)
    _seed(command)
    _batch(command, 1000)


def _train(command):
    add = command.add_argument
    add("data", help=DATA)
    _out(command, "folder of the trained preset")
    add("--method", choices=OBJECTIVES, help="lsd; for episodes mip")
    add("--network", choices=("dit", "unet", "mlp"), help="for images dit, "
        "else mlp")  # fmt: skip
    add("--width", type=_whole, help="channels of the network")
    add("--depth", type=_whole, help="layers or blocks of the network")
    _images(command)
    add("--standardize", action="store_true", help="bring columns or "
        "channels to mean 0 and deviation 1; `sample` undoes it")  # fmt: skip
    add("--horizon", type=_whole, default=16, help="actions of a chunk")
    add("--obs-steps", type=_whole, default=2, help="observations a policy "
        "sees")  # fmt: skip
    add("--act-steps", type=_whole, default=8, help="actions of a chunk that "
        "are executed")  # fmt: skip
    _training(command, 5000, 2e-3)


def _evaluate(command):
    add = command.add_argument
    add("model", help=MODEL)
    add("data", help=f"what to compare with: {DATA}")
    _out(command, "JSON file of the figures", required=False)
    add("--num-steps", "--steps", dest="num_steps", type=_wholes,
        default=[1, 2, 4, 8], help="calls, with commas")  # fmt: skip
    add("--metric", choices=("kl", "frechet", "error"), help="kl for points "
        "in the plane, error for episodes, else frechet")  # fmt: skip
    add("--features", default="pixels", help="of frechet: pixels, inception "
        "or dinov2")  # fmt: skip
    add("--num-samples", type=_whole, default=10_000, help="at most so many")
    _images(command)
    _sampling(command, steps=False)
    _seed(command)
    _batch(command, 1000)


def _export(command):
    add = command.add_argument
    add("model", help=MODEL)
    _out(command, "folder to write", required=False)
    add("--format", choices=("tf_saved_model", "onnx", "web"),
        default="tf_saved_model", help="web is a page that samples in the "
        "browser, by ONNX")  # fmt: skip
    add("--version", type=int, help="write --out/VERSION beside others")
    add("--decoder", help="autoencoder: a preset or a .keras file")
    add("--output-range", type=_pair, help="low,high of what is served")
    add("--web-runtime", help="of web: folder node_modules/onnxruntime-web/"
        "dist to copy; by default a CDN")  # fmt: skip
    add("--measure", metavar="FILE", help="JSON file that gets sizes and "
        "latencies of both formats")  # fmt: skip
    add("--rounds", type=_whole, default=30, help="rounds of --measure")
    _sampling(command)


def _convert(command):
    add = command.add_argument
    add("source", help="file, folder, hf:// or https:// handle; with "
        "--to-torch a preset")  # fmt: skip
    add("--kind", choices=CHECKPOINTS, required=True, help="of checkpoint")
    _out(command, "folder of the preset; with --to-torch a .npz file")
    add("--ema", action=argparse.BooleanOptionalAction, help="averaged "
        "weights; by default where there are any")  # fmt: skip
    add("--options", default="{}", help="JSON of what shapes do not tell")
    add("--golden", help=".npz of inputs x, t[, r, condition] and the "
        "published output, to compare")  # fmt: skip
    add("--max-bytes", type=_whole, help="most bytes of weights; by default "
        "16 GiB and 20 times the file")  # fmt: skip
    add("--to-torch", action="store_true", help="from a preset to PyTorch's "
        "names")  # fmt: skip


def _check_jvp(command):
    add = command.add_argument
    add("model", help="a preset, a .keras file, or an import path such as "
        "package.module:Network: an interface, a Keras network or a "
        "torch.nn.Module, or what makes one without arguments")  # fmt: skip
    add("--shape", type=_wholes, help="of one example, such as 32,32,3, "
        "where the model does not tell")  # fmt: skip
    add("--tolerance", type=float, default=0.02, help="largest relative error")
    _batch(command, 4)
    _seed(command)


def _results(command):
    command.add_argument(
        "paths", nargs="+", help="presets that `train` and `distil` wrote, "
        "and JSON files of `eval`",
    )  # fmt: skip
    _out(command, "Markdown file of the table", required=False)


def _distil(command):
    add = command.add_argument
    add("model", metavar="teacher", help=MODEL)
    _out(command, "folder of the student's preset")
    add("--data", help=f"{DATA}; by default the teacher's own samples")
    add("--guidance-scale", type=float, default=1.0, help="of the teacher")
    add("--num-steps", dest="num_steps", type=_wholes, default=[1, 2, 4, 8],
        help="calls of the table, with commas")  # fmt: skip
    _images(command)
    _training(command, 5000, 1e-3)


COMMANDS = {
    "presets": (
        "List the trained models that come with the package, or describe one.",
        _presets,
    ),
    "sample": (
        "Sample a model to a picture or an array.\n\n"
        "    keras-flows sample lsd_checkerboard --num-samples=20000\n"
        "    keras-flows sample sit_digits --condition=0,1,2 --out=a.npz",
        _sample,
    ),
    "train": (
        "Train a model on your own data.\n\n"
        "    keras-flows train photos --out=my_model --image-size=32\n"
        "    keras-flows train points.npz --out=my_model\n"
        "    keras-flows train episodes --out=my_policy",
        _train,
    ),
    "eval": (
        "Measure a model at several numbers of calls.\n\n"
        "    keras-flows eval lsd_checkerboard checkerboard",
        _evaluate,
    ),
    "export": (
        "Write a SavedModel, ONNX or a page that runs without Keras.\n\n"
        "    keras-flows export sit_digits --out=served --num-steps=8",
        _export,
    ),
    "serve": (serving.TEXT, serving.add_arguments),
    "convert": (
        "Convert a published checkpoint to a preset, or one to PyTorch.\n\n"
        "    keras-flows convert SiT-XL-2.pt --kind=sit --out=sit_xl_2\n\n"
        "No code of a file is run. --to-torch writes {name: array} as .npz.",
        _convert,
    ),
    "check-jvp": (
        "Hold a network's forward derivatives to differences.\n\n"
        "    keras-flows check-jvp my_package.networks:Net --shape=32,32,3",
        _check_jvp,
    ),
    "results": (
        "One table of what models reached.\n\n"
        "    keras-flows results runs/* --out=table.md",
        _results,
    ),
    "distil": (
        "Make a flow model one of a few steps.\n\n"
        "    keras-flows distil sit_digits --out=fast_digits",
        _distil,
    ),
}
