"""One objective, three backends: the same loss and gradient.

Run once (not per backend): it starts a process for each of them.
"""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

HERE = pathlib.Path(__file__).parent
BACKENDS = ("jax", "tensorflow", "torch")
# Objectives whose gradient flows through a JVP.
DERIVATIVE = ("lsd", "esd", "mf", "lmd", "emd", "ayf", "sct", "scd")
# Objectives of the difference of two outputs near one another.
DIFFERENCE = ("cm", "ict", "ect", "scott", "imm", "progressive")


def run(backend, precision, out):
    root = HERE.parent.parent
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": path,
    }
    result = subprocess.run(
        [
            sys.executable,
            str(HERE / "compute.py"),
            precision,
            str(out),
        ],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return dict(np.load(out))


@pytest.mark.once
@pytest.mark.slow
@pytest.mark.parametrize(
    "precision, models",
    [
        # 15 objectives on both networks, 12 methods for few steps on one.
        ("float32", 15 + 15 + 12),
        ("float64", 15),
    ],
)
def test_loss_and_gradient_agree_across_backends(precision, models, tmp_path):
    found = {
        backend: run(backend, precision, tmp_path / f"{backend}.npz")
        for backend in BACKENDS
    }
    reference = found["jax"]
    assert len(reference) == 2 * models
    worst = {}
    for key in (k for k in reference if k.endswith("gradient")):
        norm = np.linalg.norm(reference[key])
        assert norm > 1e-3
        loss_key = key.replace("gradient", "loss")
        for backend in BACKENDS[1:]:
            error = np.linalg.norm(found[backend][key] - reference[key]) / norm
            loss = abs(found[backend][loss_key] - reference[loss_key]) / abs(
                reference[loss_key]
            )
            worst[key, backend] = max(error, loss)
    for (key, backend), error in worst.items():
        name = key.split("/")[1]
        limit = 1e-12
        if precision == "float32":
            limit = 1e-4 if name in DERIVATIVE else 1e-5
            limit = 3e-5 if name in DIFFERENCE else limit
        assert error <= limit, (key, backend, error)
    for network in ("transformer", "mlp"):
        errors = [v for (k, _), v in worst.items() if k.startswith(network)]
        if errors:
            print(f"{precision}, {network}: at most {max(errors)} apart")
