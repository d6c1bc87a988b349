"""Run exports in environments that have a runtime and nothing else.

    python3.11 -m venv tfonly; tfonly/bin/pip install tensorflow-cpu
    tfonly/bin/pip uninstall -y keras
    python3.11 -m venv ort; ort/bin/pip install onnxruntime
    KERAS_BACKEND=jax python tests/alone_check.py tfonly/bin/python \\
        ort/bin/python

For the cases of helpers/exports.py: exported here, run there, batches of 7
and 1 against `generate` here. Prints the largest differences; they must be
below 1e-5 of the samples' size. The tests do the same in this environment,
with Keras barred.
"""

import pathlib
import subprocess
import sys
import tempfile

import keras
import numpy as np
from helpers import exports

ALONE = """
import importlib.util, sys
import numpy as np
folder, kind = sys.argv[1:]
inputs = dict(np.load(f'{folder}/inputs.npz'))
if kind == 'onnx':
    import onnxruntime
    session = onnxruntime.InferenceSession(f'{folder}/onnx/model.onnx')
    asked = {i.name for i in session.get_inputs()}
    run = lambda inputs: session.run(
        None, {k: v for k, v in inputs.items() if k in asked})[0]
    others = ('tensorflow', 'keras', 'jax', 'torch')
else:
    import tensorflow as tf
    loaded = tf.saved_model.load(f'{folder}/tf_saved_model')
    serve = loaded.signatures['serving_default']
    def run(inputs):
        inputs = {k: tf.constant(v) for k, v in inputs.items()}
        (output,) = serve(**inputs).values()
        return output.numpy()
    others = ('keras', 'jax', 'torch')
for size in (7, 1):
    samples = run({k: v[:size] for k, v in inputs.items()})
    np.save(f'{folder}/{kind}_{size}.npy', samples)
assert not [name for name in others if importlib.util.find_spec(name)]
"""


def main(tf_python, onnx_python):
    pythons = {"tf_saved_model": tf_python, "onnx": onnx_python}
    for case in exports.CASES:
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            model, settings = case()
            inputs = exports.given(model, 7)
            np.savez(folder / "inputs.npz", **inputs)
            samples = exports.expected(model, settings, inputs)
            scale = max(1.0, float(np.abs(samples).max()))
            found = {}
            for kind, python in pythons.items():
                model.export(folder / kind, kind, verbose=False, **settings)
                subprocess.run(
                    [python, "-c", ALONE, str(folder), kind], check=True
                )
                found[kind] = max(
                    float(
                        np.abs(
                            np.load(folder / f"{kind}_{size}.npy")
                            - samples[:size]
                        ).max()
                    )
                    for size in (7, 1)
                )
                assert found[kind] < 1e-5 * scale, (case.__name__, found)
            print(keras.backend.backend(), case.__name__, found, flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
