"""`keras-flows presets`."""

import keras_flows as kf


def run(flags):
    """Print what is known of one preset, or a line for each."""
    if flags.name is not None:
        print(kf.presets.describe(flags.name))
        return
    names = kf.presets.names()
    width = max(map(len, names))
    for name in names:
        print(f"{name:<{width}}  {kf.presets.BUILTIN[name].description}")
