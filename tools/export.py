"""Export a preset, and measure the files.

    KERAS_BACKEND=jax python tools/export.py --preset=lsd_checkerboard \\
        --out=served --format=tf_saved_model --num_steps=4 --version=1

    KERAS_BACKEND=jax python tools/export.py --preset=lsd_checkerboard \\
        --num_steps=4 --measure=docs/results/export.json

    python tools/export.py --preset=sit_digits --web=digits_page

--preset is a built-in name, a folder or a handle, of a model or of a policy.
What a sample is decoded by (--decoder) is a preset or a Keras file of an
autoencoder with an attribute `decoder`.

--web=FOLDER writes a page that samples in the browser, by ONNX Runtime and
without a server of ours: index.html, model.onnx and signature.json. The page
loads ONNX Runtime from a CDN, or from beside it what --web_runtime copies.

--measure=FILE writes both formats to a temporary folder and adds to FILE, under
the preset's name, their size, and the milliseconds of a batch beside those of
`generate` (of `predict_chunk` for a policy) on this backend: medians over
interleaved rounds, whose ratios mean more than themselves on a busy machine.
"""

import functools
import json
import os
import pathlib
import tempfile
import time

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from absl import app
from absl import flags

import keras_flows as kf
from keras_flows.export import tensorflow_process
from keras_flows.serving import page

FLAGS = flags.FLAGS
flags.DEFINE_string("preset", None, "What to export.", required=True)
flags.DEFINE_string("out", None, "Folder to write.")
flags.DEFINE_string("web", None, "Folder of a page to write.")
flags.DEFINE_string("web_runtime", None, "node_modules/onnxruntime-web/dist")
flags.DEFINE_enum("format", "tf_saved_model", ["tf_saved_model", "onnx"], "")
flags.DEFINE_integer("version", None, "Write out/<version>.")
flags.DEFINE_integer("num_steps", None, "Steps; by default the objective's.")
flags.DEFINE_string("sampler", None, "Sampler; by default the objective's.")
flags.DEFINE_float("guidance_scale", 1.0, "Guidance; 1.0 is off.")
flags.DEFINE_list("guidance_interval", None, "low,high noise fractions.")
flags.DEFINE_integer("guidance_channels", None, "Channels that are guided.")
flags.DEFINE_string("decoder", None, "Autoencoder: a preset or a Keras file.")
flags.DEFINE_list("output_range", None, "low,high of what is served.")
flags.DEFINE_bool("use_ema", True, "Whether to export the averaged weights.")
flags.DEFINE_string("measure", None, "JSON file of sizes and latencies.")
flags.DEFINE_integer("rounds", 30, "Rounds of --measure.", lower_bound=1)

# Of a policy some flags have no meaning.
OF_SAMPLES = (
    "guidance_scale",
    "guidance_interval",
    "guidance_channels",
    "decoder",
    "output_range",
)


def settings_of(model):
    """The arguments of `export` that the flags give."""
    settings = {
        "num_steps": FLAGS.num_steps,
        "sampler": FLAGS.sampler,
        "use_ema": FLAGS.use_ema,
    }
    if isinstance(model, kf.policies.Policy):
        given = [name for name in OF_SAMPLES if FLAGS[name].present]
        if given:
            raise app.UsageError(f"A policy has no --{given[0]}; leave it out.")
        return settings

    def pair(values):
        return None if values is None else tuple(map(float, values))

    return settings | {
        "guidance_scale": FLAGS.guidance_scale,
        "guidance_interval": pair(FLAGS.guidance_interval),
        "guidance_channels": FLAGS.guidance_channels,
        "decoder": None if FLAGS.decoder is None else decoder(FLAGS.decoder),
        "output_range": pair(FLAGS.output_range),
    }


def decoder(path):
    """The decoder of an autoencoder's Keras file or preset."""
    if path.endswith(".keras"):
        return keras.saving.load_model(path, compile=False).decoder
    return kf.networks.AutoencoderKL.from_preset(path).decoder


def plan_of(model, settings):
    """What the file computes, for its inputs and the model's own answers."""
    from keras_flows.export import Served

    others = ("decoder", "output_range", "use_ema")
    options = {k: v for k, v in settings.items() if k not in others}
    return model.export_plan(Served(options, use_ema=settings["use_ema"]))


def inputs_of(plan, rows):
    """Random inputs of the endpoint `serve`."""
    rng = np.random.default_rng(0)
    return {
        name: plan.example(name, (rows, *shape[1:]), dtype, rng)
        for name, (shape, dtype) in plan.endpoints["serve"].inputs.items()
    }


def interleaved(runs, rounds):
    """{name: {median and ratio to the first}} of functions, in turn."""
    times = {name: [] for name in runs}
    for run in runs.values():
        for _ in range(3):
            run()
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - start))
    medians = {name: float(np.median(t)) for name, t in times.items()}
    first = next(iter(medians.values()))
    return {
        name: {"milliseconds": round(m, 3), "ratio": round(m / first, 3)}
        for name, m in medians.items()
    }


def measure(model, settings, rounds):
    """Sizes and latencies of both formats beside the model itself."""
    from keras_flows.export import onnx
    from keras_flows.export import saved_model

    load = {
        "tf_saved_model": saved_model.load_saved_model,
        "onnx": onnx.load_onnx,
    }
    plan = plan_of(model, settings)
    result = {
        "backend": keras.backend.backend(),
        "parameters": model.count_params(),
        "settings": {k: str(v) for k, v in settings.items() if v is not None},
        "formats": {},
        "latency": {},
    }
    with tempfile.TemporaryDirectory() as folder, tensorflow_process():
        served = {}
        for kind in load:
            path = pathlib.Path(folder) / kind
            start = time.perf_counter()
            model.export(path, kind, verbose=False, **settings)
            record = json.loads((path / "signature.json").read_text())
            result["formats"][kind] = {
                "bytes": sum(
                    p.stat().st_size for p in path.rglob("*") if p.is_file()
                ),
                "parity": record["parity"],
                "seconds_to_export": round(time.perf_counter() - start, 1),
            }
            served[kind] = load[kind](path)["serve"]
        for rows in (1, 64):
            inputs = inputs_of(plan, rows)
            own = functools.partial(own_answer, plan, inputs)
            runs = {plan.compared_with: own}
            for kind, run in served.items():
                runs[kind] = lambda run=run, inputs=inputs: run(inputs)
            result["latency"][f"batch {rows}"] = interleaved(runs, rounds)
    return result


def own_answer(plan, inputs):
    """The model's own `generate` or `predict_chunk`, to NumPy."""
    return keras.ops.convert_to_numpy(plan.expected["serve"](inputs))


def main(_):
    if FLAGS.out is None and FLAGS.measure is None and FLAGS.web is None:
        raise app.UsageError("Name a folder to write, --out or --web.")
    model = kf.Interface.from_preset(FLAGS.preset)
    settings = settings_of(model)
    if FLAGS.out is not None:
        model.export(FLAGS.out, FLAGS.format, version=FLAGS.version, **settings)
    if FLAGS.web is not None:
        page.write_page(model, FLAGS.web, FLAGS.web_runtime, **settings)
    if FLAGS.measure is not None:
        if settings.get("decoder") or settings.get("output_range"):
            raise app.UsageError("--measure is of samples, without a decoder.")
        file = pathlib.Path(FLAGS.measure)
        figures = json.loads(file.read_text()) if file.exists() else {}
        found = measure(model, settings, FLAGS.rounds)
        figures[f"{FLAGS.preset}, {found['backend']}"] = found
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(figures, indent=2) + "\n")
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    app.run(main)
