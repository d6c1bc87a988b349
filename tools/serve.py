"""Serve an export or a preset over HTTP.

    python tools/serve.py --export=served
    KERAS_BACKEND=jax python tools/serve.py --preset=lsd_checkerboard

POST /sample takes JSON, all of it optional but the condition of a conditional
model: {"num_samples": 16, "seed": 0, "condition": 3, "num_steps": 4,
"guidance_scale": 1.5, "encoding": "json"}. A page to try it lies at /, what is
served at /model, counters at /stats. docs/serving.md tells more.

Needs pip install 'keras_flows[serve]', and TensorFlow for a SavedModel.
"""

import importlib.util
import os

os.environ.setdefault(
    "KERAS_BACKEND", "jax" if importlib.util.find_spec("jax") else "tensorflow"
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import uvicorn
from absl import app
from absl import flags

import keras_flows as kf

FLAGS = flags.FLAGS
flags.DEFINE_string("export", None, "Folder of `model.export`, or its parent.")
flags.DEFINE_string("preset", None, "Preset: a name, a folder or a handle.")
flags.DEFINE_integer("num_steps", None, "Default steps of a preset.")
flags.DEFINE_float("guidance_scale", 1.0, "Default guidance of a preset.")
flags.DEFINE_string("host", "127.0.0.1", "Address to listen on.")
flags.DEFINE_integer("port", 8000, "Port to listen on.")
flags.DEFINE_list("sizes", ["1", "4", "16", "64"], "Static batch sizes.")
flags.DEFINE_float("wait_ms", 5.0, "How long a request waits for others.")
flags.DEFINE_integer("max_samples", 256, "Most samples of a request.")
flags.mark_flags_as_mutual_exclusive(["export", "preset"], required=True)


def main(_):
    if FLAGS.export is not None:
        source = kf.serving.from_export(FLAGS.export)
    else:
        source = kf.serving.from_preset(
            FLAGS.preset, FLAGS.num_steps, FLAGS.guidance_scale
        )
    service = kf.serving.create_app(
        source,
        sizes=[int(size) for size in FLAGS.sizes],
        wait_ms=FLAGS.wait_ms,
        max_samples=FLAGS.max_samples,
    )
    uvicorn.run(service, host=FLAGS.host, port=FLAGS.port, log_level="warning")


if __name__ == "__main__":
    app.run(main)
