"""The plugin of lerobot: the exported file in a loop, and as lerobot calls it.

The loop knows neither lerobot nor Keras, and is tested on its own. The classes
are tested where lerobot is installed.
"""

import importlib.util
import pathlib
import sys

import numpy as np
import pytest
from helpers.policies import HORIZON
from helpers.policies import dict_episodes
from helpers.policies import encoder_of_two
from helpers.policies import trained

pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")

pytestmark = pytest.mark.once

SOURCE = (
    pathlib.Path(__file__).parents[1]
    / "examples"
    / "lerobot_policy_keras_flows"
    / "src"
)


@pytest.fixture(scope="module")
def runner_class():
    spec = importlib.util.spec_from_file_location(
        "runner", SOURCE / "lerobot_policy_keras_flows" / "runner.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Runner


@pytest.fixture(scope="module")
def policy_and_folder(tmp_path_factory):
    policy = trained("flow", encoder=encoder_of_two(), data=dict_episodes())
    folder = tmp_path_factory.mktemp("policy") / "onnx"
    policy.export(folder, "onnx", num_steps=2, verbose=False)
    return policy, folder


def observations(policy, rows, steps):
    rng = np.random.default_rng(1)
    return [
        {
            name: rng.standard_normal((rows, *shape[1:])).astype("float32")
            for name, shape in policy.observation_spec.items()
        }
        for _ in range(steps)
    ]


def test_the_loop_acts_as_the_policy(policy_and_folder, runner_class):
    """Histories, queues and noise: action by action what the policy does."""
    policy, folder = policy_and_folder
    runner = runner_class(folder)
    assert (runner.obs_steps, runner.act_steps) == (
        policy.obs_steps, policy.act_steps,
    )  # fmt: skip
    runner.reset(seed=5)
    noise = np.random.default_rng(5)
    history, queue = None, []
    for seen in observations(policy, rows=3, steps=2 * policy.act_steps + 1):
        history = [*history[1:], seen] if history else [seen] * policy.obs_steps
        if not queue:
            chunk = policy.predict_chunk(
                {k: np.stack([h[k] for h in history], 1) for k in seen},
                noise=noise.standard_normal((3, HORIZON, 2), "float32"),
                num_steps=2,
            )[:, policy.obs_steps - 1 :]
            queue = [chunk[:, i] for i in range(policy.act_steps)]
        np.testing.assert_allclose(
            runner.act(seen), queue.pop(0), rtol=1e-4, atol=1e-3
        )


def test_one_robot_and_a_new_episode(policy_and_folder, runner_class):
    policy, folder = policy_and_folder
    runner = runner_class(folder)
    (seen,) = observations(policy, rows=1, steps=1)
    alone = {name: array[0] for name, array in seen.items()}
    first = runner.act(alone)
    assert first.shape == (2,)
    runner.act(alone)
    runner.reset(seed=0)
    np.testing.assert_array_equal(runner.act(alone), first)
    runner.reset(seed=1)
    assert np.abs(runner.act(alone) - first).max() > 1e-4


def test_what_does_not_fit_is_named(policy_and_folder, runner_class):
    policy, folder = policy_and_folder
    runner = runner_class(folder)
    (seen,) = observations(policy, rows=1, steps=1)
    name = next(iter(seen))
    with pytest.raises(ValueError, match=f"keys .*{name}.*Received: "):
        runner.act({"other": seen[name]})
    with pytest.raises(ValueError, match=rf"{name}'\]` must have"):
        runner.act({**seen, name: seen[name][..., :1]})
    with pytest.raises(ValueError, match="of one robot, or"):
        runner.act({**seen, name: seen[name][0]})


@pytest.fixture
def plugin(monkeypatch):
    pytest.importorskip("lerobot")
    monkeypatch.syspath_prepend(str(SOURCE))
    yield importlib.import_module("lerobot_policy_keras_flows")
    sys.modules.pop("lerobot_policy_keras_flows", None)


def test_as_lerobot_calls_it(policy_and_folder, plugin, runner_class, tmp_path):
    """Its factory finds class and processors by name; saved and loaded."""
    import torch
    from lerobot.policies import factory

    policy, folder = policy_and_folder
    config = factory.make_policy_config(
        "keras_flows", export=str(folder), device="cpu"
    )
    assert factory.get_policy_class("keras_flows") is plugin.KerasFlowsPolicy
    before, after = factory.make_pre_post_processors(config)
    (seen,) = observations(policy, rows=1, steps=1)
    batch = before(
        {f"observation.{k}": torch.from_numpy(v[0]) for k, v in seen.items()}
    )
    acting = plugin.KerasFlowsPolicy(config)
    action = after(acting.select_action(batch))
    expected = runner_class(folder).act(seen)
    np.testing.assert_allclose(action.numpy(), expected, atol=1e-5)
    acting.save_pretrained(tmp_path / "saved")
    again = plugin.KerasFlowsPolicy.from_pretrained(tmp_path / "saved")
    np.testing.assert_allclose(
        again.select_action(batch).numpy(), expected, atol=1e-5
    )
    wrong = {"observation.other": batch[f"observation.{next(iter(seen))}"]}
    with pytest.raises(ValueError, match="lerobot does not give"):
        acting.select_action(wrong)
