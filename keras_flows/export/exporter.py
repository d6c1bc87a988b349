"""Writing an export: beside its place, compared, then moved into it."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import shutil
import tempfile
import typing

import keras
import numpy as np

from keras_flows.export import onnx
from keras_flows.export import saved_model
from keras_flows.export import worker
from keras_flows.export.objects import own_objects
from keras_flows.export.objects import send_objects
from keras_flows.export.parity import verify
from keras_flows.export.signature import write_signature
from keras_flows.ops import given
from keras_flows.ops.bars import Bar
from keras_flows.presets import registered_config

if typing.TYPE_CHECKING:
    from typing import Any

    from keras_flows.ops.types import PathLike

# What each format needs beside Keras, and the file by which it is known.
FORMATS = {
    "tf_saved_model": (("tensorflow",), "saved_model.pb"),
    "onnx": (("tensorflow", "tf2onnx", "onnxruntime"), onnx.MODEL),
}


def export(
    model: keras.Model,
    served: Any,
    filepath: PathLike,
    format: str,
    version: int | None,
    verbose: bool,
) -> None:
    """Write, compare, then move into place; see `Generator.export`.

    Args:
        model: a `Generator`, with `export_plan`.
        served: a `Served`.
        filepath, format, version, verbose: of `Generator.export`.
    """
    _check_format(format)
    plan = model.export_plan(served)
    target = target_of(filepath, version)
    # Planned, written, compared.
    bar = Bar(3, "part", verbose)
    bar.advance()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(
        tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent)
    )
    try:
        folder = temporary / "export"
        if _writes_itself(format):
            write(plan, folder, format)
        else:
            _order(model, served, temporary, folder, format)
        bar.advance()
        parity = verify(plan, folder, format)
        bar.advance()
        write_signature(folder, model, plan, format, parity)
        _move(folder, target, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if verbose:
        print(
            f"Exported to {target}: {plan.settings['num_steps']} steps, "
            f"largest difference from {plan.compared_with} "
            f"{max(parity.values()):.1e}."
        )


def write(plan, folder, format):
    """Write the file in this process."""
    if format == "onnx":
        onnx.write_onnx(folder, plan.endpoints)
        return
    saved_model.write_saved_model(folder, plan.endpoints, plan.variables)


def _order(model, served, temporary, folder, format):
    """Save a preset, and have a TensorFlow process write the file."""
    preset = temporary / "preset"
    model.start_averages()
    model.save_to_preset(preset)
    decoder = None
    if served.decoder is not None:
        decoder = str(temporary / "decoder.keras")
        served.decoder.save(decoder)
    options = {
        key: keras.saving.serialize_keras_object(value)
        if hasattr(value, "get_config")
        else value
        for key, value in served.options.items()
    }
    classes = temporary / "classes"
    send_objects(own_objects([registered_config(model), options]), classes)
    worker.order(
        classes=str(classes),
        preset=str(preset),
        decoder=decoder,
        folder=str(folder),
        format=format,
        options=options,
        output_range=served.output_range,
        use_ema=served.use_ema,
    )


def _check_format(format):
    given.choice("format", format, FORMATS)

    packages, _ = FORMATS[format]
    missing = [p for p in packages if importlib.util.find_spec(p) is None]
    if missing:
        extra = "export" if format == "tf_saved_model" else "onnx"
        raise ImportError(
            f"Format '{format}' needs {' and '.join(missing)}: pip install "
            f"'keras_flows[{extra}]'."
        )


def _writes_itself(format):
    """Whether this process's backend can write the format."""
    backend = keras.backend.backend()
    return backend == "tensorflow" or (
        backend == "jax" and format == "tf_saved_model"
    )


def target_of(filepath, version):
    """The folder that the export will be, checked."""
    target = pathlib.Path(filepath)
    if version is not None:
        if isinstance(version, bool) or not (
            isinstance(version, (int, np.integer)) and version >= 0
        ):
            raise ValueError(
                "`version` must be an int of at least 0, or None for no "
                f"folders of versions. Received: {version!r}."
            )
        target = target / str(int(version))
    known = [target / name for _, name in FORMATS.values()]
    if target.exists() and not target.is_dir():
        raise ValueError(
            f"`filepath` must name a folder; {str(target)!r} is a file."
        )
    if (
        target.exists()
        and any(target.iterdir())
        and not any(file.is_file() for file in known)
    ):
        raise ValueError(
            f"`filepath` {str(target)!r} exists and is not an export; it is "
            "left alone. Name a new folder, or a `version` in it."
        )
    return target


def _move(folder, target, temporary):
    """Put `folder` in the place of `target`, whose old content goes."""
    os.chmod(folder, 0o755)
    if target.exists():
        old = temporary / "old"
        os.rename(target, old)
        try:
            os.rename(folder, target)
        except OSError:
            os.rename(old, target)
            raise
    else:
        os.rename(folder, target)
