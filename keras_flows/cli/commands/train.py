"""`keras-flows train`."""

import time

import keras

from keras_flows.cli import data
from keras_flows.cli import models
from keras_flows.cli import pictures
from keras_flows.interfaces.distillation import random_condition
from keras_flows.ops.files import replacing


def run(flags):
    """Train, save the preset, and put a picture of samples beside it."""
    found = data.read(flags.data, flags.image_size, flags.standardize)
    data.check_scale(found)
    model = models.build(found, flags)
    start = time.time()
    loss = models.fit(model, models.batches(model, found, flags), flags)
    training = {
        "data": flags.data,
        "kind": found.kind,
        "method": model.objective.name,
        "steps": flags.steps,
        "batch_size": flags.batch_size,
        "seed": flags.seed,
        "backend": keras.backend.backend(),
        "loss": loss,
        "seconds": round(time.time() - start, 1),
    }
    metadata = {"training": training}
    if found.scale is not None:
        metadata["scale"] = found.scale
    with replacing(flags.out) as temporary:
        model.save_to_preset(temporary, metadata)
        if found.kind != "episodes":
            count = 10_000 if found.kind == "points" else 16
            samples = pictures.samples_of(
                model, found.scale, count, **random_condition(model, count, 0)
            )
            pictures.write(temporary / "samples.png", samples)
    print(
        f"{flags.out}: {type(model).__name__} ({training['method']}) of "
        f"{model.count_params():,} parameters, {flags.steps:,} steps in "
        f"{training['seconds']:.0f} s, loss {loss:.4g}"
    )
    if found.kind != "episodes":
        print(f"Picture: {flags.out}/samples.png")
        if found.scale is not None:
            print(
                f"`keras-flows sample {flags.out}` undoes --standardize; "
                "kf.from_preset(...).generate does not."
            )
