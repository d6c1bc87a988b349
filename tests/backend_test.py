"""Import on a machine where the backend that Keras would take is missing."""

import os
import subprocess
import sys

import pytest

import keras_flows as kf

pytestmark = pytest.mark.once
ROOT = os.path.dirname(os.path.dirname(kf.__file__))


def imported(tmp_path, missing, backend=None, config=None):
    """Exit code and errors of `import keras_flows` without some packages."""
    if config:
        (tmp_path / "keras.json").write_text(config)
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    environment |= {"KERAS_HOME": str(tmp_path), "PYTHONPATH": ROOT}
    if backend:
        environment["KERAS_BACKEND"] = backend
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({missing!r})); "
        "import keras_flows; print(keras_flows.__version__)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
    )
    return run.returncode, run.stderr.strip().splitlines()


@pytest.mark.parametrize(
    "missing, backend, config, words",
    [
        (["tensorflow", "torch"], None, None, ["'tensorflow'", "default"]),
        (["torch"], "torch", None, ["'torch'", "KERAS_BACKEND)"]),
        (["torch"], None, '{"backend": "torch"}', ["'torch'", "keras.json"]),
        ([], "numpy", None, ["'numpy'", "has no training"]),
    ],
    ids=["default", "variable", "file", "no training"],
)
def test_the_import_says_which_line_to_add(
    tmp_path, missing, backend, config, words
):
    code, errors = imported(tmp_path, missing, backend, config)
    assert code
    for word in [
        *words,
        "installed: jax",
        'os.environ["KERAS_BACKEND"] = "jax"',
        "export KERAS_BACKEND=jax",
    ]:
        assert word in errors[-1]
    assert not any("keras/src" in line for line in errors)


def test_nothing_installed(tmp_path):
    code, errors = imported(tmp_path, ["jax", "tensorflow", "torch"])
    assert code and "pip install jax, tensorflow or torch" in errors[-1]
