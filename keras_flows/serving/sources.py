"""What the service samples from: an exported folder, or a preset.

An exported folder runs in TensorFlow or ONNX Runtime, a preset in Keras.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import typing

import keras
import numpy as np

from keras_flows.interfaces import Interface
from keras_flows.networks import input_specs
from keras_flows.ops import given
from keras_flows.ops.scalars import GUIDANCE
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Optional
from keras_flows.ops.scalars import checked
from keras_flows.policies import Policy

if typing.TYPE_CHECKING:
    from typing import Any

    from keras_flows.ops.types import PathLike


def never(num_steps: int) -> bool:
    """No noise is drawn in the steps, in how many ever."""
    return False


@dataclasses.dataclass(frozen=True)
class Source:
    """A sampler with all that a request is checked against.

    Attributes:
        name: what is served.
        noise: shape of the noise of one sample.
        inputs: {name: (shape of one row, dtype)} of what else goes in.
        run: function of ({"noise", ...}, num_steps, guidance_scale) to an
            array; a request may choose the last two where the source is not
            `fixed`. Where it draws in its steps it takes a seed after them,
            and all rows of a request in one call.
        num_steps: the default.
        guidance_scale: the default.
        fixed: whether steps and guidance are part of the file.
        null_label: the label that stands for none, or None; of several labels
            a dict of them, by the names of their inputs.
        highest_label: the highest label, the null label counted, or None
            where it is not known; a dict as well.
        value_range: what black and white are, of images.
        draws: function of num_steps to whether the sampler draws noise in so
            many steps; a ValueError where the model has no so many. `export`
            refuses such samplers, so that files never do.
    """

    name: str
    noise: tuple
    inputs: dict
    run: typing.Callable
    num_steps: int
    guidance_scale: float = 1.0
    fixed: bool = True
    null_label: int | dict | None = None
    highest_label: int | dict | None = None
    value_range: tuple = (-1.0, 1.0)
    draws: typing.Callable = never

    def __post_init__(self):
        if any(
            None in shape
            for shape in (self.noise, *(s for s, _ in self.inputs.values()))
        ):
            raise ValueError(
                "The service joins requests into batches, which needs fixed "
                f"sizes. {self.name} takes noise of shape {self.noise} and "
                f"{self.inputs}; build the network for one size."
            )


@checked(folder=given.path_of)
def from_export(folder: PathLike) -> Source:
    """The source of a folder written by `model.export`, or its last version.

    Raises:
        ValueError: if there is no export.
    """
    folder = pathlib.Path(folder)
    versions = [p for p in folder.glob("*/signature.json")]
    versions = [p.parent for p in versions if p.parent.name.isdigit()]
    if versions:
        folder = max(versions, key=lambda p: int(p.name))
    if not (folder / "signature.json").is_file():
        raise ValueError(
            f"No export at {str(folder)!r}: it has no signature.json. Write "
            "one by `keras-flows export` or model.export."
        )
    record = json.loads((folder / "signature.json").read_text())
    serve = record["endpoints"]["serve"]
    inputs = {
        name: (tuple(spec["shape"][1:]), spec["dtype"])
        for name, spec in serve["inputs"].items()
    }
    noise, _ = inputs.pop("noise")
    load = {"onnx": _onnx, "tf_saved_model": _saved_model}[record["format"]]
    run = load(folder)
    settings = record["settings"]
    null = record["null_label"]
    highest = record.get("highest_label", null)
    if isinstance(null, dict):
        null = {f"condition_{name}": part for name, part in null.items()}
        highest = null
    return Source(
        name=f"{record['model']}, {folder}",
        noise=noise,
        inputs=inputs,
        run=lambda given, num_steps, guidance_scale: run(given),
        num_steps=settings["num_steps"],
        guidance_scale=settings.get("guidance_scale", 1.0),
        null_label=null,
        highest_label=highest,
        value_range=tuple(settings["output_range"] or (-1.0, 1.0)),
    )


def _saved_model(folder):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))
    serve = loaded.signatures["serve"]

    # The signature dies with the object it came from.
    def run(inputs, keep=loaded):
        (output,) = serve(
            **{k: tf.constant(v) for k, v in inputs.items()}
        ).values()
        return output.numpy()

    return run


def _onnx(folder):
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    names = [i.name for i in session.get_inputs()]
    return lambda inputs: session.run(None, {n: inputs[n] for n in names})[0]


@checked(num_steps=Optional(SIZE), guidance_scale=GUIDANCE)
def from_preset(
    handle: str, num_steps: int | None = None, guidance_scale: float = 1.0
) -> Any:
    """The source of a preset, in Keras.

    Args:
        handle: see `Interface.from_preset`.
        num_steps: the default of requests; by default the objective's.
        guidance_scale: the default of requests.
    """
    model = Interface.from_preset(handle)
    policy = isinstance(model, Policy)
    if policy:
        spec = model.observation_spec
        spec = spec if isinstance(spec, dict) else {"observation": spec}
        inputs = {name: (shape, "float32") for name, shape in spec.items()}
    else:
        condition = input_specs(model.network).get("condition")
        several = isinstance(condition, dict)
        parts = condition if several else {"condition": condition}
        inputs = {
            name: (spec.shape, spec.dtype or "float32")
            for name, spec in parts.items()
            if spec is not None
        }

    @functools.lru_cache(256)
    def draws(num_steps):
        return model.sampling_times(None, num_steps)[0].draws(num_steps)

    def run(given, num_steps, guidance_scale, seed=None):
        given = dict(given)
        noise = given.pop("noise")
        if policy:
            observation = given if len(given) > 1 else given["observation"]
            return model.predict_chunk(
                observation, noise=noise, num_steps=num_steps
            )
        return keras.ops.convert_to_numpy(
            model.generate(
                noise=noise,
                condition=given if several else given.get("condition"),
                num_steps=num_steps,
                guidance_scale=guidance_scale,
                seed=seed,
            )
        )

    return Source(
        name=f"{type(model).__name__}, preset {handle}",
        noise=tuple(model.sample_shape),
        inputs=inputs,
        run=run,
        num_steps=model.default_num_steps if num_steps is None else num_steps,
        guidance_scale=guidance_scale,
        fixed=False,
        null_label=model.null_label,
        highest_label=_highest(model.labels()),
        draws=never if policy else draws,
    )


def _highest(labels):
    """The highest label, or a dict of those of several."""
    if isinstance(labels, dict):
        return {name: part.highest for name, part in labels.items()}
    return getattr(labels, "highest", None)


def rows_for_warming(source, size):
    """Inputs of `size` rows of zeros."""
    given = {"noise": np.zeros((size, *source.noise), dtype="float32")}
    for name, (shape, dtype) in source.inputs.items():
        given[name] = np.zeros((size, *shape), dtype=dtype)
    return given
