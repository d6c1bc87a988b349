"""An exported file against the model that it was made from."""

import numpy as np
from keras import ops

from keras_flows.export import onnx
from keras_flows.export import saved_model

TOLERANCE = 1e-4
# What a free size of an input is compared by.
FREE = 16


def verify(plan, folder, format):
    """{endpoint: largest difference from this backend's own model}.

    Args:
        plan: the `Plan` that was written.
        folder: where the file lies.
        format: "tf_saved_model" or "onnx".

    Raises:
        RuntimeError: if a difference is above `TOLERANCE`.
    """
    load = onnx.load_onnx if format == "onnx" else saved_model.load_saved_model
    runs = load(folder)
    rng = np.random.Generator(np.random.Philox(0))

    def given(name, size):
        return {
            key: plan.example(
                key, (size, *(side or FREE for side in shape[1:])), dtype, rng
            )
            for key, (shape, dtype) in plan.endpoints[name].inputs.items()
        }

    def compare(name, inputs, asked=None, expected=None):
        found = runs[name](inputs if asked is None else asked)
        own = plan.expected[name if expected is None else expected](inputs)
        return _difference(found, own)

    parity = {
        "serve": max(compare("serve", given("serve", size)) for size in (7, 1))
    }
    if format == "tf_saved_model" and "velocity" in plan.endpoints:
        parity["velocity"] = compare("velocity", given("velocity", 7))
    if "from_seed" in runs:
        inputs = given("serve", 7)
        noise = saved_model.seeded_noise(5, 7, inputs["noise"].shape[1:])
        inputs["noise"] = noise.numpy()
        sizes = {"seed": np.int64(5), "batch_size": np.int32(7)}
        names = saved_model.seed_inputs(plan.endpoints["serve"].inputs)
        asked = {k: (inputs | sizes)[k] for k in names}
        parity["from_seed"] = compare("from_seed", inputs, asked, "serve")
    for name, difference in parity.items():
        if not difference <= TOLERANCE:
            own = plan.compared_with if name != "velocity" else "pred"
            raise RuntimeError(
                f"The exported endpoint '{name}' differs from `{own}` by "
                f"{difference:.2e}, more than {TOLERANCE}; nothing was "
                "written."
            )
    return parity


def _difference(found, expected):
    """Largest difference, as a share of the largest value if above 1."""
    expected = ops.convert_to_numpy(expected)
    if found.shape != expected.shape:
        raise RuntimeError(
            f"The exported model gives shape {found.shape}, the model itself "
            f"{expected.shape}; nothing was written."
        )
    scale = max(1.0, float(np.abs(expected).max()))
    return float(np.abs(found - expected).max()) / scale
