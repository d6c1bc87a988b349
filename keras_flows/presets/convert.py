"""`convert`: a published checkpoint becomes a preset.

Presets know no network of ours, so the converters, which do, stand above the
interfaces (`keras_flows/converters`) and register themselves here by kind.
Yours can, too.
"""

import collections.abc
import dataclasses

import numpy as np

from keras_flows.ops import given
from keras_flows.presets.card import Card
from keras_flows.presets.convert_files import read_checkpoint
from keras_flows.presets.preset import save_to_preset

CONVERTERS = {}


@dataclasses.dataclass(frozen=True)
class Converter:
    """How checkpoints of one kind become models.

    Attributes:
        description: which checkpoints, in one line.
        build: function of (state, config, options) that gives the model;
            state is a dict of name to array, config the file beside it or
            {}, options overrule what is inferred.
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


def register_converter(kind, converter):
    """Add a `Converter` under the name of its kind."""
    CONVERTERS[kind] = converter


def convert(source, kind, out=None, *, ema=None, options=None, golden=None):
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

    Returns:
        A `Conversion`.

    Raises:
        ValueError: if the kind is unknown, the file cannot be read without
            running code, or its weights are of another architecture.
    """
    given.choice("kind", kind, CONVERTERS)
    converter = CONVERTERS[kind]
    checkpoint = read_checkpoint(source, ema)
    state = {
        name: value
        for name, value in checkpoint.state.items()
        if not name.startswith(converter.unused)
    }
    model = converter.build(state, checkpoint.config, dict(options or {}))
    difference = None
    if golden is not None:
        if not isinstance(golden, dict):
            with np.load(golden, allow_pickle=False) as file:
                golden = dict(file)
        inputs = dict(golden)
        expected = inputs.pop("output")
        difference = float(
            np.abs(converter.output(model, inputs) - expected).max()
        )
    if out is not None:
        save_to_preset(
            model,
            out,
            {
                "converted_from": str(source),
                "kind": kind,
                "weights": checkpoint.weights,
                "golden_difference": difference,
            },
            card=Card(description=f"Converted: {converter.description}."),
        )
    dropped = tuple(sorted(set(checkpoint.state) - set(state)))
    return Conversion(model, checkpoint.weights, dropped, difference)


def torch_state(model, kind):
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
