"""Run a SavedModel in plain TensorFlow and compare it with its reference.

    python tools/check_saved_model.py out/demo/lsd

The folder holds saved_model/ and reference.npz (noise, sample), as
recipes/checkerboard.py writes them. Keras is barred from the process.
"""

import importlib.machinery
import pathlib
import runpy
import sys

ROOT = pathlib.Path(__file__).parents[1]
TOLERANCE = 1e-5


class NoKeras:
    """An import hook under which Keras is found but cannot be imported.

    TensorFlow looks for Keras's folder when it starts, and imports it where
    it can; it does not need it.
    """

    BARRED = ("keras", "keras_flows", "tf_keras")

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in self.BARRED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None:
            spec.loader = self
        return spec

    def create_module(self, spec):
        raise ImportError(f"{spec.name} is barred from this process")

    def exec_module(self, module):
        raise ImportError(f"{module} is barred from this process")


def main():
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        raise SystemExit(__doc__)
    quiet = runpy.run_path(str(ROOT / "keras_flows" / "_quiet.py"))
    sys.meta_path.insert(0, NoKeras())
    import numpy as np

    with quiet["muted"]():
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
