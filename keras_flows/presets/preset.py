"""`save_to_preset` and `from_preset` for any registered `keras.Model`.

The folder holds config.json (class and arguments), model.weights.h5 (or
model.weights.json and its shards) and metadata.json, as KerasHub writes them,
and README.md, the model card.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import time
import typing

import keras

from keras_flows._version import __version__
from keras_flows.ops import given
from keras_flows.ops.files import replacing
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import Optional
from keras_flows.ops.scalars import checked
from keras_flows.presets import weights
from keras_flows.presets.budget import check_shapes
from keras_flows.presets.budget import within
from keras_flows.presets.card import Card
from keras_flows.presets.card import card_text
from keras_flows.presets.changes import carry_over
from keras_flows.presets.changes import with_arguments
from keras_flows.presets.configs import check_registered
from keras_flows.presets.configs import registered_config
from keras_flows.presets.configs import with_dtype
from keras_flows.presets.files import CARD
from keras_flows.presets.files import CHECKSUMS
from keras_flows.presets.files import CONFIG
from keras_flows.presets.files import INDEX
from keras_flows.presets.files import METADATA
from keras_flows.presets.files import RESERVED
from keras_flows.presets.files import WEIGHTS
from keras_flows.presets.files import check_files
from keras_flows.presets.files import checksums
from keras_flows.presets.files import halve
from keras_flows.presets.files import read_config
from keras_flows.presets.files import read_metadata
from keras_flows.presets.files import reserve
from keras_flows.presets.files import weights_files
from keras_flows.presets.files import write_json
from keras_flows.presets.handles import preset_folder
from keras_flows.presets.initializers import skipped

if typing.TYPE_CHECKING:
    from typing import Any

    from keras_flows.ops.types import PathLike


@checked(
    preset_dir=given.path_of,
    max_shard_size=Optional(POSITIVE),
)
def save_to_preset(
    model: keras.Model,
    preset_dir: PathLike,
    metadata: dict[str, Any] | None = None,
    *,
    card: Card | None = None,
    max_shard_size: float | None = None,
    weights_dtype: str | None = None,
) -> None:
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
    own = sorted(set(metadata or ()) & set(RESERVED))
    if own:
        raise ValueError(
            f"`metadata` must not have the keys {', '.join(own)}, which are "
            "written anyway: name yours otherwise."
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
    if not model.built:
        raise ValueError(
            "`model` is not built and has no weights yet: call it on a batch."
        )
    try:
        with replacing(target) as temporary:
            temporary.mkdir()
            _write(
                model,
                temporary,
                metadata or {},
                Card() if card is None else card,
                max_shard_size,
                weights_dtype,
            )
    except OSError as error:
        raise OSError(
            f"Preset {str(target)!r} cannot be saved "
            f"({error.strerror or error}); what was there is as it was."
        ) from error


def _write(model, folder, metadata, card, max_shard_size, weights_dtype):
    size = weights.needed(model)
    # The file of half the size is written beside.
    reserve(folder, size if weights_dtype is None else 2 * size)
    config = registered_config(model)
    for key in ("compile_config", "build_config"):
        config.pop(key, None)
    about = {
        "keras_version": keras.__version__,
        "keras_flows_version": __version__,
        "parameter_count": _parameters(model),
        "date_saved": time.strftime("%Y-%m-%d@%H:%M:%S"),
    }
    text = card_text(folder.name, config, about, card)
    (folder / CARD).write_text(text, encoding="utf-8")
    if card != Card():
        about["card"] = dataclasses.asdict(card)
    write_json(folder, CONFIG, config)
    if max_shard_size is None:
        model.save_weights(str(folder / WEIGHTS))
    else:
        model.save_weights(str(folder / INDEX), max_shard_size=max_shard_size)
    if weights_dtype is not None:
        for path in sorted(folder.glob("*.h5")):
            halve(path)
    about[CHECKSUMS] = checksums(folder)
    write_json(folder, METADATA, {**about, **metadata})


@checked(load_weights=FLAG)
def from_preset(
    preset: PathLike,
    load_weights: bool = True,
    dtype: str | keras.DTypePolicy | None = None,
    cls=keras.Model,
    **arguments: Any,
) -> Any:
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
    check_files(folder, load_weights)
    config = read_config(folder)
    check_registered(config, preset)
    # Before anything is built: what is no weights is told at once.
    saved = weights.arrays(weights_files(folder)[1]) if load_weights else None
    if dtype is not None:
        config = with_dtype(config, dtype)
    made = _built(config, saved, folder, preset)
    if not isinstance(made, cls):
        raise ValueError(
            f"Preset {str(preset)!r} holds a {type(made).__name__}, which is "
            f"no {cls.__name__}. kf.from_preset loads any class, without `cls`."
        )
    if load_weights:
        _load_weights(made, folder, saved, dtype, preset)
    if not arguments:
        return made
    config = with_arguments(config, arguments, preset)
    new = keras.saving.deserialize_keras_object(config)
    if load_weights:
        carry_over(made, new, preset, arguments)
    return new


def _built(config, saved, folder, preset):
    """The model of a config, no larger than what was saved of it."""
    with contextlib.ExitStack() as stack:
        if saved is not None:
            check_shapes(config, saved, folder / CONFIG)
            stack.enter_context(within(saved))
            stack.enter_context(skipped())
        try:
            return keras.saving.deserialize_keras_object(config)
        except ImportError:
            raise
        except Exception as error:
            # Whatever a constructor raises where its arguments are none.
            raise ValueError(
                f"Preset {str(preset)!r} cannot be built from its {CONFIG}: "
                f"{_reason(error)}"
            ) from error


def _reason(error):
    """What went wrong, without the whole config that Keras prints."""
    text = str(error).rpartition("Exception encountered: ")[2]
    return text.partition("\n")[0] or type(error).__name__


class Preset:
    """Mixin over `keras.Model` with presets."""

    def save_to_preset(
        self,
        preset_dir: PathLike,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Save the model to a folder: see `presets.save_to_preset`."""
        save_to_preset(self, preset_dir, metadata, **kwargs)

    @classmethod
    def from_preset(
        cls,
        preset: PathLike,
        load_weights: bool = True,
        dtype: str | keras.DTypePolicy | None = None,
        **arguments: Any,
    ) -> Any:
        """Load a model of this class: see `presets.from_preset`.

        Raises:
            ValueError: also if the preset holds another class.
        """
        return from_preset(preset, load_weights, dtype, cls, **arguments)


def _load_weights(model, folder, saved, dtype, preset):
    path, _ = weights_files(folder)
    kind = type(model).__name__
    try:
        weights.fit(model, saved, narrower=dtype is not None)
        weights.load(model, path)
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error}") from error
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ValueError(
            f"The weights of preset {str(preset)!r} do not fit its {kind}: "
            f"{error}"
        ) from error
    about, own = read_metadata(folder), _parameters(model)
    count = about.get("parameter_count", own)
    # Before there were checksums, REPA's encoder was counted too.
    if count < own or (count > own and "sha256" in about):
        raise ValueError(
            f"{folder / METADATA} has a 'parameter_count' of {count:,}, and "
            f"the {kind} has {own:,}."
        )


def _parameters(model):
    """How many there are, but for layers that are not saved."""
    return model.count_params() - sum(
        layer.count_params()
        for layer in model._flatten_layers()
        if not getattr(layer, "saved", True)
    )
