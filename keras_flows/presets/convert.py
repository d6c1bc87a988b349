"""`convert`: a published checkpoint becomes a preset.

Presets know no network of ours, so the converters, which do, stand above the
interfaces (`keras_flows/converters`) and register themselves here by kind.
Yours can, too.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import typing

import numpy as np

from keras_flows.ops import given
from keras_flows.presets.budget import at_most
from keras_flows.presets.card import Card
from keras_flows.presets.convert_files import read_checkpoint
from keras_flows.presets.initializers import skipped
from keras_flows.presets.preset import save_to_preset

if typing.TYPE_CHECKING:
    from typing import Any

    import keras

    from keras_flows.ops.types import Array
    from keras_flows.ops.types import PathLike

CONVERTERS = {}
# Numbers of tables that files leave out, such as positions: 64 MiB.
_SMALL = 1 << 24


class Owned(dict):
    """A state that nobody needs after its conversion, which may empty it.

    A large checkpoint is then in memory once, and not again in the model.
    """


@dataclasses.dataclass(frozen=True)
class Converter:
    """How checkpoints of one kind become models.

    Attributes:
        description: which checkpoints, in one line.
        build: function of (state, config, options) that gives the model;
            state is a dict of name to array, `Owned`, config the file beside
            it or {}, options overrule what is inferred. Random initial values
            are zeros meanwhile.
        output: function of (model, inputs) that gives the output of the
            published network, in its direction of time and with its sign.
        torch_state: function of a model that gives {name: array} as the
            published repository names it, or None where there is none.
        unused: beginnings of the names that the model has no use for.
    """

    description: str
    build: collections.abc.Callable
    output: collections.abc.Callable
    torch_state: collections.abc.Callable | None = None
    unused: tuple = ()


@dataclasses.dataclass(frozen=True)
class Conversion:
    """A converted model and what is to know of it.

    Attributes:
        model: an interface, or a network alone.
        weights: "ema", "model" (of the last step) or "only".
        dropped: names of weights left out, of heads for training alone.
        difference: largest difference from the golden output, or None.
    """

    model: object
    weights: str
    dropped: tuple
    difference: float | None


def register_converter(kind: str, converter: Any) -> None:
    """Add a `Converter` under the name of its kind."""
    CONVERTERS[kind] = converter


def convert(
    source: PathLike,
    kind: str,
    out: PathLike | None = None,
    *,
    ema: bool | None = None,
    options: dict[str, Any] | None = None,
    golden: PathLike | None = None,
    max_bytes: int | None = None,
) -> Conversion:
    """Convert a published checkpoint, and save it as a preset.

    Sizes come from the shapes of the weights. Time and sign become those of
    the interface: SiT's, LightningDiT's and DDT's files have data at t = 1,
    and v(x, t) = -v_file(x, 1 - t) here, by the weights themselves. No code of
    the file is run.

    Args:
        source: file, folder or handle: see `read_checkpoint`.
        kind: a name of `CONVERTERS`: "sit", "dit", "repa", "lightning_dit",
            "ddt", "rae", "meanflow", "edm", "vae", "policy".
        out: folder of the preset to write; None for none.
        ema: True for the averaged weights, False for the last ones, None for
            the averaged ones where the file has them.
        options: dict of arguments of the network that shapes do not tell,
            such as {"num_heads": 8}; they overrule what is inferred.
        golden: dict or .npz of the published network's inputs "x", "t"[, "r",
            "condition"] and its "output", images channels-last, times and
            sign as published; the difference is measured.
        max_bytes: most bytes that the weights may take: see
            `read_checkpoint`.

    Returns:
        A `Conversion`.

    Raises:
        ValueError: if the kind is unknown, the file cannot be read without
            running code, or is damaged, or its weights are of another
            architecture, or would make a larger network than the file.
    """
    given.choice("kind", kind, CONVERTERS)
    if not isinstance(options, (dict, type(None))):
        raise ValueError(
            f"`options` must be a dict or None. Received: {options!r}."
        )
    converter = CONVERTERS[kind]
    checkpoint = read_checkpoint(source, ema, max_bytes)
    expected = None if golden is None else _golden(golden)
    state = Owned(
        (name, value)
        for name, value in checkpoint.state.items()
        if not name.startswith(converter.unused)
    )
    numbers = sum(value.size for value in state.values())
    dropped = tuple(sorted(set(checkpoint.state) - set(state)))
    weights, config = checkpoint.weights, checkpoint.config
    # Arrays are let go as the model takes them.
    del checkpoint
    with _told(source, kind), at_most(2 * numbers + _SMALL), skipped():
        model = converter.build(state, config, dict(options or {}))
    difference = None
    if expected is not None:
        difference = _difference(converter, model, expected)
    if out is not None:
        save_to_preset(
            model,
            out,
            {
                "converted_from": str(source),
                "kind": kind,
                "weights": weights,
                "golden_difference": difference,
            },
            card=Card(description=f"Converted: {converter.description}."),
        )
    return Conversion(model, weights, dropped, difference)


@contextlib.contextmanager
def _told(source, kind):
    """Whatever goes wrong is a ValueError that names file and kind.

    Names, shapes and a config that are no such model's lead a converter
    anywhere; what it does not expect itself ends here.
    """
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        reason = str(error)
        if not isinstance(error, ValueError):
            reason = f"{type(error).__name__}: {reason}"
        raise ValueError(
            f"`source`: {str(source)!r} does not convert as `kind`={kind!r}: "
            f"{reason}"
        ) from error


def _golden(golden):
    """The dict of a published network's inputs and output."""
    if not isinstance(golden, dict):
        golden = read_checkpoint(golden).state
    if not {"x", "output"} <= set(golden):
        raise ValueError(
            "`golden` must have 'x' and 'output', beside other inputs. It has "
            f"{', '.join(map(repr, golden))}."
        )
    return golden


def _difference(converter, model, golden):
    inputs = dict(golden)
    expected = np.asarray(inputs.pop("output"))
    output = np.asarray(converter.output(model, inputs))
    if output.shape != expected.shape:
        raise ValueError(
            f"`golden` has an output of the shape {expected.shape}; the "
            f"network's is {output.shape}."
        )
    return float(np.abs(output - expected).max())


def torch_state(model: keras.Model, kind: str) -> dict[str, Array]:
    """The weights of a model as the published repository names them.

    Args:
        model: an interface or network that `convert` could have made.
        kind: a name of `CONVERTERS` that has a `torch_state`: "sit" or "dit".

    Returns:
        dict of name to array, in PyTorch's layout and the repository's
        direction of time; `network.load_state_dict` of its tensors fits.

    Raises:
        ValueError: if the kind is not written.
    """
    kinds = [k for k, c in CONVERTERS.items() if c.torch_state is not None]
    given.having("model", model, ("variables",), "an interface or network")
    given.choice("kind", kind, kinds)
    return CONVERTERS[kind].torch_state(model)
