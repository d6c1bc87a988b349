"""Run a SavedModel in plain TensorFlow and compare it with its reference.

    python tools/check_saved_model.py out/demo/lsd

The folder holds saved_model/ and reference.npz (noise, sample), as
recipes/checkerboard.py writes them. Keras is barred from the process.
"""

import pathlib
import sys

TOLERANCE = 1e-5


class _NoKeras:
    """An import hook that refuses Keras."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("keras", "keras_flows"):
            raise ImportError(f"{name} is barred from this process")
        return None


def main():
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        raise SystemExit(__doc__)
    sys.meta_path.insert(0, _NoKeras())
    import numpy as np
    import tensorflow as tf

    folder = pathlib.Path(sys.argv[1])
    reference = np.load(folder / "reference.npz")
    model = tf.saved_model.load(str(folder / "saved_model"))
    serve = model.signatures["serve"]
    worst = 0.0
    for size in (len(reference["noise"]), 7, 1):
        noise = tf.constant(reference["noise"][:size])
        (sample,) = serve(noise=noise).values()
        worst = max(
            worst, float(np.abs(sample - reference["sample"][:size]).max())
        )
    loaded = [m for m in sys.modules if m.split(".")[0] == "keras"]
    print(
        f"SavedModel in plain TensorFlow {tf.__version__}: largest difference "
        f"from generate {worst:.1e} (batches of 1, 7 and "
        f"{len(reference['noise'])}; Keras modules loaded: {len(loaded)})."
    )
    if worst > TOLERANCE:
        raise SystemExit(f"The difference is above {TOLERANCE}.")


if __name__ == "__main__":
    main()
