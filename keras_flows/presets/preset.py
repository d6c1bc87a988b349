"""`save_to_preset` and `from_preset` for any registered `keras.Model`.

The folder holds config.json (class and arguments), model.weights.h5 (or
model.weights.json and its shards) and metadata.json, as KerasHub writes them,
and README.md, the model card.
"""

import collections
import contextlib
import dataclasses
import pathlib
import time
import warnings

import keras

from keras_flows._version import __version__
from keras_flows.ops import given
from keras_flows.ops.files import replacing
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import Optional
from keras_flows.ops.scalars import checked
from keras_flows.presets.card import Card
from keras_flows.presets.card import card_text
from keras_flows.presets.changes import carry_over
from keras_flows.presets.changes import with_arguments
from keras_flows.presets.files import CARD
from keras_flows.presets.files import CONFIG
from keras_flows.presets.files import INDEX
from keras_flows.presets.files import METADATA
from keras_flows.presets.files import WEIGHTS
from keras_flows.presets.files import halve
from keras_flows.presets.files import read_config
from keras_flows.presets.files import saved_shapes
from keras_flows.presets.files import weights_files
from keras_flows.presets.files import write_json
from keras_flows.presets.handles import preset_folder
from keras_flows.presets.initializers import skipped

# Packages whose classes Keras finds without a registration.
_KERAS = ("keras", "keras_hub", "keras_cv", "keras_nlp", "builtins")


@checked(
    preset_dir=given.path_of,
    max_shard_size=Optional(POSITIVE),
)
def save_to_preset(
    model,
    preset_dir,
    metadata=None,
    *,
    card=None,
    max_shard_size=None,
    weights_dtype=None,
):
    """Save a model to a folder that `from_preset` reads.

    The folder is written under a temporary name and then renamed, so a
    failure leaves no half of it; an earlier preset there is replaced.

    Args:
        model: a built `keras.Model` whose class is registered.
        preset_dir: folder to write.
        metadata: dict of JSON values kept in metadata.json.
        card: a `presets.Card`: description, licence, data, metrics and
            command for the model card, README.md.
        max_shard_size: None for one file of weights; else the most GB of one
            of several.
        weights_dtype: None, or "float16": the dtype on disk of what is
            float32 in the model. Half as large, good to three digits.

    Raises:
        ValueError: if the folder exists and is no preset, `weights_dtype`
            is unknown, a weight is too large for it, or a class that the
            model holds is not registered.
        OSError: if the folder cannot be written.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"`model` must be a keras.Model. Received: {type(model).__name__}."
        )
    if not isinstance(metadata, (dict, type(None))):
        raise ValueError(
            f"`metadata` must be a dict or None. Received: {metadata!r}."
        )
    if not isinstance(card, (Card, type(None))):
        raise ValueError(
            f"`card` must be a presets.Card or None. Received: {card!r}."
        )
    if weights_dtype is not None and weights_dtype != "float16":
        raise ValueError(
            "`weights_dtype` must be None, for the model's own, or 'float16'. "
            f"Received: {weights_dtype!r}."
        )
    target = pathlib.Path(preset_dir)
    if target.exists() and (target.is_file() or any(target.iterdir())):
        if not (target / CONFIG).is_file():
            raise ValueError(
                f"`preset_dir` {str(target)!r} exists and is not a "
                "preset; it is left alone. Name a new folder."
            )
    card = Card() if card is None else card
    with replacing(target) as temporary:
        temporary.mkdir()
        config = registered_config(model)
        for key in ("compile_config", "build_config"):
            config.pop(key, None)
        about = {
            "keras_version": keras.__version__,
            "keras_flows_version": __version__,
            "parameter_count": model.count_params(),
            "date_saved": time.strftime("%Y-%m-%d@%H:%M:%S"),
        }
        text = card_text(target.name, config, about, card)
        (temporary / CARD).write_text(text, encoding="utf-8")
        if card != Card():
            about["card"] = dataclasses.asdict(card)
        write_json(temporary, CONFIG, config)
        write_json(temporary, METADATA, {**about, **(metadata or {})})
        if max_shard_size is None:
            model.save_weights(str(temporary / WEIGHTS))
        else:
            model.save_weights(
                str(temporary / INDEX), max_shard_size=max_shard_size
            )
        if weights_dtype is not None:
            for path in sorted(temporary.glob("*.h5")):
                halve(path)


@checked(load_weights=FLAG)
def from_preset(
    preset, load_weights=True, dtype=None, cls=keras.Model, **arguments
):
    """Load a model of any class from a preset.

    With other arguments than the saved ones, say `num_classes=4`, it is built
    anew and gets every weight, averages too, whose path and shape are the
    same; a warning lists the others, which start afresh. The optimizer is
    not part of a preset.

    Args:
        preset: a built-in name (`kf.presets.names()`), a folder,
            "hf://org/repository[/folder][@revision]",
            "kaggle://owner/model/framework/variation[/version]" or
            "https://host/archive.tar.gz#sha256=<64 hex digits>".
        load_weights: whether to load the weights, or start afresh.
        dtype: dtype or dtype policy of the networks inside, such as
            "bfloat16" or "mixed_bfloat16"; None as they were saved. Averages
            and normalisers stay in float32.
        cls: class that the model must be of.
        arguments: other arguments of the model or of a model inside it, such
            as its network, by name; `**{"encoder.width": 64}` where several
            have one of that name.

    Returns:
        The model, of the class that was saved.

    Raises:
        ValueError: if there is no such preset, its class is not registered,
            its weights are missing or do not fit, or an argument is unknown
            or ambiguous.
        ImportError: if the handle needs a package that is not installed.
        OSError: if it cannot be downloaded (`ConnectionError`), or its cache
            or weights are damaged.
    """
    if not isinstance(cls, type):
        raise ValueError(f"`cls` must be a class. Received: {cls!r}.")
    folder = preset_folder(preset)
    config = read_config(folder)
    _check_registered(config, preset)
    if load_weights:
        # Before anything is built: missing weights are told at once.
        weights_files(folder)
    if dtype is not None:
        config = _with_dtype(config, dtype)
    made = _made(config, load_weights, cls, folder, preset)
    if not arguments:
        return made
    config = with_arguments(config, arguments, preset)
    new = keras.saving.deserialize_keras_object(config)
    if load_weights:
        carry_over(made, new, preset, arguments)
    return new


def _made(config, load_weights, cls, folder, preset):
    """The model of a config, with the preset's weights where asked for."""
    with skipped() if load_weights else contextlib.nullcontext():
        model = keras.saving.deserialize_keras_object(config)
    if not isinstance(model, cls):
        raise ValueError(
            f"Preset {str(preset)!r} holds a {type(model).__name__}, which is "
            f"no {cls.__name__}. kf.from_preset loads any class, without `cls`."
        )
    if load_weights:
        _load_weights(model, folder, preset)
    return model


class Preset:
    """Mixin over `keras.Model` with presets."""

    def save_to_preset(self, preset_dir, metadata=None, **kwargs):
        """Save the model to a folder: see `presets.save_to_preset`."""
        save_to_preset(self, preset_dir, metadata, **kwargs)

    @classmethod
    def from_preset(cls, preset, load_weights=True, dtype=None, **arguments):
        """Load a model of this class: see `presets.from_preset`.

        Raises:
            ValueError: also if the preset holds another class.
        """
        return from_preset(preset, load_weights, dtype, cls, **arguments)


def _load_weights(model, folder, preset):
    path, files = weights_files(folder)
    try:
        with warnings.catch_warnings():
            # Keras would go on, and leave a part of the model as it was.
            warnings.filterwarnings("error", "Skipping nested container")
            model.load_weights(str(path))
    except OSError as error:
        raise OSError(
            f"{path} cannot be read: truncated, or not HDF5 ({error})."
        ) from error
    except (ValueError, UserWarning) as error:
        raise ValueError(
            f"The weights of preset {str(preset)!r} do not fit its "
            f"{type(model).__name__}: {_first_misfit(model, files) or error}"
        ) from error


def _first_misfit(model, files):
    """The first variable of another shape than in the file, or None.

    Keras tells the layer, and of a layer that it reaches in two ways only
    that the second led nowhere.
    """
    saved = saved_shapes(files)
    seen = collections.Counter()
    for variable in model.variables:
        layer = variable.path.rpartition("/")[0]
        index, seen[layer] = seen[layer], seen[layer] + 1
        # Layers of one name in two networks: any of them may be meant.
        shapes = [
            each[index]
            for each in saved.get(layer.rpartition("/")[2], ())
            if index < len(each)
        ]
        if shapes and tuple(variable.shape) not in shapes:
            return (
                f"{variable.path} has the shape {tuple(variable.shape)}, and "
                f"the file holds {shapes[0]}."
            )
    return None


def serialized(config):
    """Every serialised object in a config, outer ones first."""
    if isinstance(config, dict):
        if "class_name" in config and "config" in config:
            yield config
        for value in config.values():
            yield from serialized(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from serialized(value)


def registered_config(model):
    """The config of a model, all of whose classes Keras finds again.

    Raises:
        ValueError: naming a class or function that is not registered.
    """
    config = keras.saving.serialize_keras_object(model)
    for each in serialized(config):
        module, name = each.get("module"), each.get("registered_name")
        if each["class_name"] == "function":
            name = each["config"]
        if (
            not module
            or module.split(".")[0] in _KERAS
            or not isinstance(name, str)
            or keras.saving.get_registered_object(name) is not None
        ):
            continue
        raise ValueError(
            f"`{each['class_name']}` of {module} is not registered, and what "
            "is saved with it could not be loaded: put "
            "@keras.saving.register_keras_serializable('my_package') above "
            "it, before the model is made."
        )
    return config


def _check_registered(config, preset):
    """Raise where Keras would not find a class or function."""
    for each in serialized(config):
        module, name = each.get("module"), each.get("registered_name")
        if each["class_name"] == "function":
            name = each["config"]
        if not isinstance(name, str) or ">" not in name:
            continue
        if keras.saving.get_registered_object(name) is not None:
            continue
        if module and module.split(".")[0] in _KERAS and module != "builtins":
            continue
        origin = "the module that registers it"
        if module and module not in ("__main__", "builtins"):
            origin = f"`import {module}`"
        raise ValueError(
            f"Preset {str(preset)!r} holds {name!r}, which is not registered "
            f"here. First run {origin}."
        )


def _with_dtype(config, dtype):
    """The config with every model in it at another dtype."""
    try:
        dtype = keras.dtype_policies.get(dtype).name
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            "`dtype` must be a dtype or dtype policy, such as 'bfloat16'. "
            f"Received: {dtype!r}."
        ) from error
    for each in serialized(config):
        arguments = each["config"]
        if not isinstance(arguments, dict):
            continue
        if each["class_name"] in ("Functional", "Sequential"):
            # These have no dtype of their own.
            for layer in arguments.get("layers", ()):
                if layer["class_name"] != "InputLayer":
                    layer["config"]["dtype"] = dtype
        cls = keras.saving.get_registered_object(
            each.get("registered_name") or ""
        )
        is_model = isinstance(cls, type) and issubclass(cls, keras.Model)
        if is_model and "dtype" in arguments:
            arguments["dtype"] = dtype
    return config
