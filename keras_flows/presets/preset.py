"""`save_to_preset` and `from_preset` for any registered `keras.Model`.

The folder holds config.json (class and arguments), model.weights.h5 and
metadata.json, as KerasHub writes them.
"""

import json
import os
import pathlib
import shutil
import tempfile
import time

import keras

from keras_flows.presets.registry import preset_folder

CONFIG = "config.json"
WEIGHTS = "model.weights.h5"
METADATA = "metadata.json"


def _write_json(folder, name, content):
    text = json.dumps(content, indent=2, sort_keys=True)
    (folder / name).write_text(text + "\n")


class Preset:
    """Mixin over `keras.Model` with presets."""

    def save_to_preset(self, preset_dir, metadata=None):
        """Save the model to a folder that `from_preset` reads.

        The folder is written under a temporary name and then renamed, so a
        failure leaves no half of it; an earlier preset there is replaced.

        Args:
            preset_dir: folder to write.
            metadata: dict of JSON values kept in metadata.json.

        Raises:
            ValueError: if the folder exists and is no preset.
            OSError: if the folder cannot be written.
        """
        target = pathlib.Path(preset_dir)
        if target.exists() and any(target.iterdir()):
            if not (target / CONFIG).is_file():
                raise ValueError(
                    f"`preset_dir` {str(target)!r} exists and is not a "
                    "preset; it is left alone. Name a new folder."
                )
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = pathlib.Path(
            tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent)
        )
        try:
            config = keras.saving.serialize_keras_object(self)
            for key in ("compile_config", "build_config"):
                config.pop(key, None)
            _write_json(temporary, CONFIG, config)
            _write_json(
                temporary,
                METADATA,
                {
                    "keras_version": keras.__version__,
                    "keras_flows_version": _version(),
                    "parameter_count": self.count_params(),
                    "date_saved": time.strftime("%Y-%m-%d@%H:%M:%S"),
                    **(metadata or {}),
                },
            )
            self.save_weights(str(temporary / WEIGHTS))
            _replace(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @classmethod
    def from_preset(cls, preset, load_weights=True):
        """Load a model from a preset.

        Args:
            preset: a built-in name such as "lsd_checkerboard", or a folder.
            load_weights: whether to load the weights, or start afresh.

        Raises:
            ValueError: if there is no such preset, or it holds a model of
                another class.
        """
        folder = preset_folder(preset)
        config = json.loads((folder / CONFIG).read_text())
        model = keras.saving.deserialize_keras_object(config)
        if not isinstance(model, cls):
            raise ValueError(
                f"Preset {str(preset)!r} holds a {type(model).__name__}, "
                f"which is no {cls.__name__}. Load it by "
                f"kf.{type(model).__name__}.from_preset."
            )
        if load_weights:
            model.load_weights(str(folder / WEIGHTS))
        return model


def _replace(temporary, target):
    """Put `temporary` in the place of `target`."""
    os.chmod(temporary, 0o755)
    if target.exists():
        old = target.with_name(f".{target.name}-old-{os.getpid()}")
        os.rename(target, old)
        try:
            os.rename(temporary, target)
        except OSError:
            os.rename(old, target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(temporary, target)


def _version():
    from importlib import metadata

    try:
        return metadata.version("keras_flows")
    except metadata.PackageNotFoundError:
        return "unknown"
