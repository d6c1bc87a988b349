"""Exported policies act as they did."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from helpers.policies import HORIZON
from helpers.policies import dict_episodes
from helpers.policies import encoder_of_two
from helpers.policies import trained
from helpers.policies import windows

import keras_flows as kf
from keras_flows.datasets import robots


@pytest.fixture(scope="module", autouse=True)
def _one_tensorflow_process():
    """PyTorch's exports share a process: the start takes the most time."""
    with kf.export.tensorflow_process():
        yield


SERVE = """
import sys
import numpy as np, tensorflow as tf
sys.modules['keras'] = None
file = np.load(sys.argv[2])
serve = tf.saved_model.load(sys.argv[1]).signatures['serve']
worst = 0.0
for size in (7, 1):
    inputs = {k: tf.constant(v[:size]) for k, v in file.items() if k != 'chunk'}
    (out,) = serve(**inputs).values()
    worst = max(worst, float(np.abs(out.numpy() - file['chunk'][:size]).max()))
print('WORST', worst)
"""


@pytest.mark.parametrize(
    "kind", [pytest.param("mip", marks=pytest.mark.once), "flow"]
)
def test_saved_model_equals_the_policy(kind, tmp_path):
    """On its observations, in a process without Keras; dict and array."""
    data = dict_episodes() if kind == "flow" else None
    encoder = encoder_of_two() if kind == "flow" else None
    policy = trained(kind, encoder=encoder, data=data, action_high=60.0)
    policy.export(tmp_path / "policy", num_steps=2, verbose=False)
    observation = windows(data)[0][1]
    if not isinstance(observation, dict):
        observation = {"observation": observation}
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((8, HORIZON, 2)).astype("float32")
    chunk = policy.predict_chunk(
        observation if kind == "flow" else observation["observation"],
        noise=noise,
        num_steps=2,
    )
    np.savez(tmp_path / "io.npz", **observation, noise=noise, chunk=chunk)
    result = subprocess.run(
        [
            sys.executable, "-c", SERVE, str(tmp_path / "policy"),
            str(tmp_path / "io.npz"),
        ],
        capture_output=True, text=True, cwd=pathlib.Path(__file__).parents[1],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert "WORST" in result.stdout, result.stderr[-2000:]
    # Actions of size 100: 1e-5 of that.
    assert float(result.stdout.split()[-1]) < 1e-3


class Served:
    """A policy's SavedModel in the place of the policy, in closed loop."""

    def __init__(self, policy, folder):
        import tensorflow as tf

        self.tf, self.seen = tf, []
        # The endpoint dies with the object it came from.
        self.loaded = tf.saved_model.load(str(folder))
        self.serve = self.loaded.signatures["serve"]
        for name in ("obs_steps", "horizon", "act_steps", "observation_rank"):
            setattr(self, name, getattr(policy, name))
        self.noise = (policy.horizon, policy.action_dim)

    def predict_chunk(self, history, seed=None):
        self.seen.append(history)
        noise = self.tf.zeros((len(history), *self.noise))
        observation = self.tf.constant(history, "float32")
        (chunk,) = self.serve(observation=observation, noise=noise).values()
        return chunk.numpy()

    def reset(self, **options):
        self.control = kf.policies.Controller(self, **options)

    def select_action(self, observation):
        return self.control(observation)


@pytest.mark.slow
@pytest.mark.once
def test_saved_model_acts_as_the_policy(tmp_path):
    """The same chunks on whole episodes, and so the same successes."""
    pytest.importorskip("metaworld")
    policy = kf.policies.Policy.from_preset("mip_shelf_place")
    policy.export(tmp_path / "policy", verbose=False)
    served = Served(policy, tmp_path / "policy")
    envs = [robots.make_env("shelf-place-v3") for _ in range(5)]
    starts = robots.EVALUATION_START + np.arange(5)
    theirs = kf.policies.evaluate(served, envs, starts)
    ours = kf.policies.evaluate(policy, envs, starts)
    for history in list(served.seen):
        np.testing.assert_allclose(
            policy.predict_chunk(history),
            served.predict_chunk(history),
            atol=1e-5,
        )
    assert abs(int(theirs.success.sum()) - int(ours.success.sum())) <= 1
