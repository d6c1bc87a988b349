"""`keras-flows distil`."""

import time

import keras

import keras_flows as kf
from keras_flows.cli import data
from keras_flows.cli import figures
from keras_flows.cli.metadata import metadata_of
from keras_flows.interfaces.distillation import table

# Samples of the table.
MOST = 10_000


def run(flags):
    """Distil, save the student, and print both at several calls."""
    teacher = kf.Interface.from_preset(flags.model)
    scale = metadata_of(flags.model).get("scale")
    metric, batches = None, None
    if flags.data is not None:
        found = data.read(flags.data, flags.image_size)
        # In the data's own units, as `sample` writes them.
        metric = figures.metric_of(found, None, "pixels", MOST, flags.seed)
        data.rescale(found, scale)
        batches = found.batches(flags.batch_size, flags.seed)
    start = time.time()
    student = kf.distil(
        teacher,
        batches,
        steps=flags.steps,
        batch_size=flags.batch_size,
        learning_rate=flags.learning_rate,
        guidance_scale=flags.guidance_scale,
        ema=flags.ema,
        seed=flags.seed,
    )
    metadata = {
        "training": {
            "teacher": flags.model,
            "data": flags.data,
            "steps": flags.steps,
            "batch_size": flags.batch_size,
            "guidance_scale": flags.guidance_scale,
            "seed": flags.seed,
            "backend": keras.backend.backend(),
            "seconds": round(time.time() - start, 1),
        }
    }
    if scale is not None:
        metadata["scale"] = scale
    rows = {}
    if metric is not None:
        for name, model, guidance in (
            ("teacher", teacher, flags.guidance_scale),
            ("student", student, 1.0),
        ):
            rows[name] = figures.by_calls(
                model, metric, flags.num_steps, scale, MOST, 1000, flags.seed,
                guidance_scale=guidance,
            )  # fmt: skip
        metadata["figures"] = rows["student"]
    student.save_to_preset(flags.out, metadata)
    print(
        f"{flags.out}: the flow map of {flags.model}, {flags.steps:,} steps "
        f"in {metadata['training']['seconds']:.0f} s"
    )
    if rows:
        print(f"{metric.name} by calls")
        print(table({name: row["values"] for name, row in rows.items()}))
