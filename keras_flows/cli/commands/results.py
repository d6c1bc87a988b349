"""`keras-flows results`."""

import json
import pathlib

from keras_flows.interfaces.distillation import table
from keras_flows.ops.files import write_text
from keras_flows.presets.files import METADATA


def run(flags):
    """Print one table for each metric."""
    tables = {}
    for path in flags.paths:
        name, found = read(pathlib.Path(path))
        rows = tables.setdefault(found["metric"], {})
        rows[name] = {int(k): v for k, v in found["values"].items()}
    parts = [
        f"{metric} by calls\n\n{table(rows)}" for metric, rows in tables.items()
    ]
    text = "\n\n".join(parts)
    print(text)
    if flags.out is not None:
        write_text(flags.out, text + "\n")


def read(path):
    """(name, figures) of a JSON file of `eval`, or of a student's preset."""
    file = path / METADATA if path.is_dir() else path
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} is neither a preset nor a JSON file: {error}."
        ) from error
    name = str(path) if path.is_dir() else str(found.get("model", path))
    found = found.get("figures", found)
    if not {"metric", "values"} <= set(found):
        raise ValueError(
            f"{path} has no figures: `keras-flows eval {path} DATA "
            "--out=figures.json` measures it."
        )
    return name, found
