"""Sizes and latencies of an export beside the model that it was made from.

Both formats are written to a temporary folder. Milliseconds of a batch stand
beside those of `generate` (of `predict_chunk` for a policy) on this backend:
medians over interleaved rounds, whose ratios mean more than themselves on a
busy machine.
"""

import functools
import json
import pathlib
import tempfile
import time

import keras
import numpy as np

from keras_flows.export import Served
from keras_flows.export import onnx
from keras_flows.export import saved_model
from keras_flows.export import tensorflow_process


def plan_of(model, settings):
    """What the file computes, for its inputs and the model's own answers."""
    others = ("decoder", "output_range", "use_ema")
    options = {k: v for k, v in settings.items() if k not in others}
    return model.export_plan(Served(options, use_ema=settings["use_ema"]))


def inputs_of(plan, rows):
    """Random inputs of the endpoint `serve`."""
    rng = np.random.default_rng(0)
    return {
        name: plan.example(name, (rows, *shape[1:]), dtype, rng)
        for name, (shape, dtype) in plan.endpoints["serve"].inputs.items()
    }


def interleaved(runs, rounds):
    """{name: {median and ratio to the first}} of functions, in turn."""
    times = {name: [] for name in runs}
    for run in runs.values():
        for _ in range(3):
            run()
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - start))
    medians = {name: float(np.median(t)) for name, t in times.items()}
    first = next(iter(medians.values()))
    return {
        name: {"milliseconds": round(m, 3), "ratio": round(m / first, 3)}
        for name, m in medians.items()
    }


def measure(model, settings, rounds):
    """Sizes and latencies of both formats beside the model itself."""
    load = {
        "tf_saved_model": saved_model.load_saved_model,
        "onnx": onnx.load_onnx,
    }
    plan = plan_of(model, settings)
    result = {
        "backend": keras.backend.backend(),
        "parameters": model.count_params(),
        "settings": {k: str(v) for k, v in settings.items() if v is not None},
        "formats": {},
        "latency": {},
    }
    with tempfile.TemporaryDirectory() as folder, tensorflow_process():
        served = {}
        for kind in load:
            path = pathlib.Path(folder) / kind
            start = time.perf_counter()
            model.export(path, kind, verbose=False, **settings)
            record = json.loads((path / "signature.json").read_text())
            result["formats"][kind] = {
                "bytes": sum(
                    p.stat().st_size for p in path.rglob("*") if p.is_file()
                ),
                "parity": record["parity"],
                "seconds_to_export": round(time.perf_counter() - start, 1),
            }
            served[kind] = load[kind](path)["serve"]
        for rows in (1, 64):
            inputs = inputs_of(plan, rows)
            own = functools.partial(own_answer, plan, inputs)
            runs = {plan.compared_with: own}
            for kind, run in served.items():
                runs[kind] = lambda run=run, inputs=inputs: run(inputs)
            result["latency"][f"batch {rows}"] = interleaved(runs, rounds)
    return result


def own_answer(plan, inputs):
    """The model's own `generate` or `predict_chunk`, to NumPy."""
    return keras.ops.convert_to_numpy(plan.expected["serve"](inputs))
