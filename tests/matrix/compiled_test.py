"""Compiled as users run it, and from noise of another mean and deviation."""

import exact
import laws
import numpy as np
import pytest
from keras import ops
from laws import PATHS
from rows import ROWS
from rows import trained_for
from sampling_test import count
from sampling_test import expected
from sampling_test import run
from sampling_test import text
from sampling_test import tolerance

COMPILED = [
    ("sit", "linear0"), ("edm", "ve"), ("mean_flow", "linear1"),
    ("lsd", "vp"), ("consistency", "ve"), ("sct", "trigflow"),
    ("progressive", "vp"), ("dmd edm", "ve"), ("tsd", "linear0"),
    ("bridge", "brownian"),
]  # fmt: skip
CHAIN = ("discrete v", "chain")


@pytest.mark.parametrize(
    "name, path",
    [
        *(pytest.param(*cell, id="-".join(cell)) for cell in COMPILED),
        # 250 steps op by op; samplers/ddpm_test compiles it everywhere.
        pytest.param(*CHAIN, id="-".join(CHAIN), marks=pytest.mark.once),
    ],
)
def test_compiled_is_what_was_recorded(name, path):
    """The same samples from the same noise and seed, in float32 throughout."""
    row = ROWS[name]
    # Two steps of a jump model draw noise; many steps only take longer.
    steps = row.steps[:2][-1] if row.kind in ("map", "end", "step") else (
        row.steps[0]
    )  # fmt: skip
    recorded = run(name, path, True, steps)
    model = row.build(path, **trained_for(row, steps))
    noise = recorded.z
    if row.kind == "bridge":
        noise = np.array(laws.START_MEAN) + np.array(laws.START_STD) * noise
    x = model.generate(noise=noise.astype("float32"), num_steps=steps, seed=0)
    found = ops.convert_to_numpy(x).astype("float64")
    # Float32 loses digits where a path is singular, most of all on VE's 80.
    np.testing.assert_allclose(found, recorded.x, atol=2e-3)


SHIFTED = (0.3, 1.7)
NOISY = [
    *(("sit", path) for path in ROWS["sit"].on), ("edm", "ve"),
    ("flow", "linear0"), ("mean_flow", "linear1"), ("lsd", "linear0"),
    ("lsd", "vp"), ("consistency", "linear0"), ("consistency", "ve"),
    ("sct", "trigflow"), ("scd", "trigflow"), ("progressive", "linear1"),
    ("progressive", "vp"), ("progressive edm", "ve"), ("dmd", "linear1"),
    ("dmd edm", "ve"),
]  # fmt: skip


@pytest.mark.once
@pytest.mark.parametrize(
    "name, path", NOISY, ids=[f"{n}-{p}" for n, p in NOISY]
)
def test_noise_of_another_mean_and_deviation(name, path):
    """n ~ N(0.3, 1.7^2), `noise` being standard normal all the same."""
    row, wrong = ROWS[name], []
    # Euler with 50 steps is 6 % off; see the first samples for fewer.
    for steps in row.steps[-1:] if row.kind == "flow" else row.steps:
        model = row.build(path, noise=SHIFTED, **trained_for(row, steps))
        z = laws.even_noise(count(row, steps))
        with exact.recording():
            x = model.generate(noise=z, num_steps=steps, seed=0)
        x, want = ops.convert_to_numpy(x).astype("float64"), expected(name, z)
        # The noise is 1.7 times as wide.
        tol = tolerance(row, path, steps) + PATHS[path].end_ratio
        tol = tol * (1.7 if row.kind == "flow" else 1.0)
        error = np.abs(
            [x.mean(0) - want.mean(0), x.std(0) - want.std(0)]
        ) / np.array(laws.STD)
        if not error.max() < tol:
            wrong.append(
                f"{steps} steps: mean {text(x.mean(0))} std {text(x.std(0))}"
            )
    assert not wrong, "; ".join(wrong)
