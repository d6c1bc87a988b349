"""`keras-flows convert`."""

import json

import numpy as np

import keras_flows as kf
from keras_flows.ops.files import replacing


def run(flags):
    """A published checkpoint to a preset, or a preset to PyTorch's names."""
    if flags.to_torch:
        state = kf.presets.torch_state(kf.from_preset(flags.source), flags.kind)
        with replacing(flags.out) as temporary, temporary.open("wb") as file:
            np.savez(file, **state)
        print(f"{flags.out}: {len(state)} arrays")
        return
    try:
        options = json.loads(flags.options)
    except json.JSONDecodeError as error:
        raise ValueError(f"--options must be JSON: {error}.") from error
    try:
        converted = kf.presets.convert(
            flags.source,
            flags.kind,
            flags.out,
            ema=flags.ema,
            options=options,
            golden=flags.golden,
            max_bytes=flags.max_bytes,
        )
    except ValueError as error:
        raise ValueError(f"Not converted. {error}") from error
    model = converted.model
    network = getattr(model, "network", model)
    print(f"{flags.out}: {type(model).__name__} of {type(network).__name__}")
    print(f"{model.count_params():,} parameters, weights: {converted.weights}")
    if converted.dropped:
        print(
            f"left out {len(converted.dropped)} weights that sampling does "
            f"not use, such as {converted.dropped[0]}"
        )
    if converted.difference is not None:
        print(f"largest difference: {converted.difference:.2e}")
