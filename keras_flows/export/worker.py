"""The TensorFlow process that exports a PyTorch model; reads an order."""

import json
import pathlib
import sys


def main():
    """Export as the JSON order on standard input says."""
    import keras

    import keras_flows as kf

    order = json.load(sys.stdin)
    model = kf.Interface.from_preset(order["preset"])
    settings = {
        key: keras.saving.deserialize_keras_object(value)
        if isinstance(value, dict)
        else value
        for key, value in order["settings"].items()
    }
    model._write_saved_model(
        pathlib.Path(order["folder"]), settings, order["use_ema"]
    )


if __name__ == "__main__":
    main()
