"""The cache of compiled programs."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import pytest

import keras_flows as kf

# How often XLA compiled, and what came out.
PROGRAM = """
import json, sys
import jax
import keras
import numpy as np
import keras_flows as kf
keras.utils.set_random_seed(0)
events = []
jax.monitoring.register_event_listener(
    lambda name, **kwargs: events.append(name)
)
kf.training.compilation_cache(sys.argv[1])
model = kf.SiTInterface(kf.networks.MLP(2, 8, 1), seed=0)
model.compile("adam")
data = np.linspace(-1, 1, 64, dtype="float32").reshape(32, 2)
logs = model.fit(data, shuffle=False, verbose=0).history
print("FOUND" + json.dumps([
    sum(name.endswith("/cache_misses") for name in events),
    sum(name.endswith("/cache_hits") for name in events),
    logs["loss"],
]))
"""


@pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="JAX alone keeps programs"
)
def test_a_second_process_compiles_nothing(tmp_path):
    found = []
    for _ in range(2):
        text = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "kept")],
            env={**os.environ, "PYTHONPATH": str(
                pathlib.Path(kf.__file__).parents[1]
            )},
            check=True, stdout=subprocess.PIPE, text=True,
        ).stdout  # fmt: skip
        found.append(json.loads(text.split("FOUND")[1]))
    (misses, _, loss), (again, hits, same) = found
    assert misses > 0 and again == 0 and hits == misses
    assert loss == same


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="for the other backends"
)
@pytest.mark.once
def test_elsewhere_it_says_that_it_does_nothing(tmp_path):
    with pytest.warns(UserWarning, match="does nothing on the backend"):
        kf.training.compilation_cache(tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
