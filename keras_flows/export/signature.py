"""signature.json beside an export: what it takes, gives and was made from."""

import hashlib
import json

import keras

from keras_flows._version import __version__
from keras_flows.export import saved_model
from keras_flows.export.parity import TOLERANCE

SIGNATURE = "signature.json"


def write_signature(folder, model, plan, format, parity):
    """Write signature.json, with the SHA-256 of every other file."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    settings = dict(plan.settings)
    record = {
        "format": format,
        "model": type(model).__name__,
        "sample_shape": list(model.sample_shape),
        **{
            name: settings.pop(name)
            for name in (
                "interpolant",
                "null_label",
                "highest_label",
                "decoder",
                "weights",
            )
        },
        "settings": settings,
        "versions": {
            "keras_flows": __version__,
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
        },
        "endpoints": _described(plan.endpoints, format),
        "parity": parity,
        "tolerance": TOLERANCE,
        "files": {
            p.relative_to(folder).as_posix(): hashlib.sha256(
                p.read_bytes()
            ).hexdigest()
            for p in files
        },
    }
    text = json.dumps(record, indent=2)
    (folder / SIGNATURE).write_text(text + "\n")


def _described(endpoints, format):
    """Inputs and outputs of all endpoints as JSON."""

    def tensors(specs):
        return {
            name: {"shape": list(shape), "dtype": dtype}
            for name, (shape, dtype) in specs.items()
        }

    if format == "onnx":
        endpoints = {"serve": endpoints["serve"]}
    described = {
        name: {
            "inputs": tensors(e.inputs),
            "outputs": tensors({e.output: (e.shape, "float32")}),
        }
        for name, e in endpoints.items()
    }
    if format == "tf_saved_model" and saved_model.has_seed(endpoints["serve"]):
        serve = endpoints["serve"]
        described["from_seed"] = described["serve"] | {
            "inputs": tensors(saved_model.seed_inputs(serve.inputs))
        }
    return described
