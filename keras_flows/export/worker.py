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
    sampler = keras.saving.deserialize_keras_object(order["sampler"])
    settings = model._export_settings(
        order["num_steps"],
        sampler,
        order["guidance_scale"],
        order["guidance_channels"],
    )
    model._write_saved_model(
        pathlib.Path(order["folder"]), settings, order["use_ema"]
    )


if __name__ == "__main__":
    main()
