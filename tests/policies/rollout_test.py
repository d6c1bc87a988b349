"""Rollout: evaluation, pools of environments, Meta-World."""

import functools
import itertools
import math

import keras
import numpy as np
import pytest
from helpers.policies import ACT_STEPS
from helpers.policies import HORIZON
from helpers.policies import OBS_STEPS

import keras_flows as kf
from keras_flows.datasets import robots

# Rollout.


class Line:
    """Walk along a line to its end at 1; the start state is a number."""

    action_dim = 2

    def reset(self, start):
        self.x = -(start % 7) / 7.0
        return self._observe()

    def step(self, action):
        self.x += float(np.clip(action[0], -0.25, 0.25))
        return self._observe(), 0.0, self.x >= 1.0

    def _observe(self):
        return np.array([self.x, 1.0], "float32")

    def expert_action(self):
        return np.array([0.25, 0.0], "float32")

    def render(self, size):
        return np.full((size, size, 3), int(100 + 50 * self.x), "uint8")


class Walker:
    """Walks where the start was not below `bound`."""

    clipped_actions = predicted_actions = 0

    def __init__(self, bound):
        self.bound = bound

    def reset(self, **options):
        self.options, self.goes = options, None

    def select_action(self, observations):
        if self.goes is None:
            self.goes = observations[..., 0] > self.bound
        return np.stack([0.25 * self.goes, 0.0 * self.goes], -1)


@pytest.mark.once
def test_evaluate_counts():
    starts = 700 + np.arange(10)
    found = kf.policies.evaluate(
        Walker(-0.5), [Line() for _ in range(4)], starts, max_steps=12
    )
    walks = (np.arange(10) % 7) / 7.0 < 0.5
    np.testing.assert_array_equal(found.success, walks)
    distance = 1 + (np.arange(10) % 7) / 7.0
    expected = np.where(walks, np.ceil(distance / 0.25), 12)
    np.testing.assert_array_equal(found.steps, expected)
    summary = found.summary()
    assert summary["success"] == walks.mean() and summary["episodes"] == 10
    expert = kf.policies.evaluate_expert([Line()], starts, max_steps=12)
    assert expert.rate == 1.0
    with pytest.raises(ValueError, match="at least one"):
        kf.policies.evaluate(Walker(0), [], starts)


def square_root(env, item):
    """What `EnvPool.imap` calls; raises below 0."""
    return env.action_dim, math.sqrt(item)


@pytest.mark.once
def test_env_pool():
    """The same episodes in processes of their own; errors come through."""
    starts = 700 + np.arange(10)
    ours = [Line() for _ in range(3)]
    with robots.EnvPool(Line, 3, processes=2) as pool:
        for evaluate in (
            functools.partial(kf.policies.evaluate, Walker(-0.5)),
            kf.policies.evaluate_expert,
        ):
            found, expected = (
                evaluate(envs, starts, max_steps=12) for envs in (pool, ours)
            )
            np.testing.assert_array_equal(found.steps, expected.steps)
            np.testing.assert_array_equal(found.success, expected.success)
        results = pool.imap(square_root, itertools.count())
        assert list(itertools.islice(results, 5)) == [
            (2, math.sqrt(i)) for i in range(5)
        ]
        results.close()
        with pytest.raises(RuntimeError, match="math domain error"):
            list(pool.imap(square_root, [4, 1, -1, -2, 9]))
        with pytest.raises(RuntimeError, match="TypeError"):
            pool.reset(["no number", 703, 704])
        # It goes on after all of these.
        np.testing.assert_array_equal(
            pool.reset(starts[:3]), [Line().reset(s) for s in starts[:3]]
        )
        assert list(pool.imap(square_root, [9])) == [(2, 3.0)]
        pool._processes[0].kill()
        pool._processes[0].join()
        with pytest.raises(RuntimeError, match="exit code -9"):
            pool.reset(starts[:3])
    with pytest.raises(ValueError, match="`num_envs`.*0"):
        robots.EnvPool(Line, 0)


@pytest.mark.once
def test_wilson_interval():
    """The published example of 81 in 263, and the ends."""
    low, high = kf.policies.wilson_interval(81, 263)
    assert low == pytest.approx(0.2553, abs=1e-4)
    assert high == pytest.approx(0.3662, abs=1e-4)
    assert kf.policies.wilson_interval(0, 10)[0] == 0.0
    assert kf.policies.wilson_interval(10, 10)[1] == 1.0


@pytest.mark.once
def test_record_writes_a_gif(tmp_path):
    from PIL import Image

    path = tmp_path / "walk.gif"
    assert kf.policies.record(Walker(-9), Line(), 700, path, size=8)
    with Image.open(path) as image:
        assert image.n_frames == 5 and image.size == (8, 8)
    assert [p.name for p in tmp_path.iterdir()] == ["walk.gif"]


# Meta-World.


@pytest.mark.once
def test_metaworld_start_states_are_numbers():
    """The same number, the same episode; others are others, all disjoint."""
    pytest.importorskip("metaworld")
    with pytest.raises(ValueError, match="Near matches: reach-v3"):
        robots.make_env("reach")
    env, other = (robots.make_env("reach-v3") for _ in range(2))
    first = env.reset(robots.EVALUATION_START + 3)
    env.step(np.ones(4))
    env.reset(robots.EVALUATION_START + 4)
    np.testing.assert_array_equal(
        first, other.reset(robots.EVALUATION_START + 3)
    )
    made = robots.demonstrations("reach-v3", 3, seed=5)
    assert [e["seed"] for e in made] == [5_000_000, 5_000_001, 5_000_002]
    states = [e["observation"][0] for e in made] + [first]
    assert len({s.tobytes() for s in states}) == 4
    for episode in made:
        assert episode["success"][-1] and episode["action"].shape[1] == 4
        assert np.abs(episode["action"]).max() <= 1.0
        # The goal is visible, or no policy could reach it.
        assert np.abs(episode["observation"][:, 18:]).min() > 0
    with pytest.raises(ValueError, match="between 0 and 899"):
        robots.demonstrations("reach-v3", 1, seed=900)

    class Pool:
        def imap(self, function, items):
            return (function(env, item) for item in items)

    with pytest.raises(ValueError, match="`pool`.*'door-open-v3'.*'reach-v3'"):
        robots.demonstrations("door-open-v3", 1, pool=Pool())
    noisy = robots.demonstrations("reach-v3", 1, seed=5, noise=0.3)[0]
    np.testing.assert_array_equal(
        noisy["observation"][0], made[0]["observation"][0]
    )
    assert np.abs(noisy["observation"][3] - made[0]["observation"][3]).max() > 0


@pytest.mark.slow
@pytest.mark.once
def test_a_policy_learns_to_reach():
    """From 20 demonstrations in 400 steps: most start states succeed."""
    pytest.importorskip("metaworld")
    source = robots.Windows(
        robots.demonstrations("reach-v3", 20), HORIZON, OBS_STEPS, ACT_STEPS,
        batch_size=128, repeat=True,
    )  # fmt: skip
    network = kf.networks.ChunkMLP(
        4, HORIZON, (OBS_STEPS, 21), width=64, depth=1, dropout=0.0
    )
    policy = kf.policies.Policy(
        kf.FlowMapInterface(network, "mip", ema=0.99, seed=0),
        observation_normalizer=kf.networks.MinMax(floor=5e-4),
        act_steps=ACT_STEPS,
        action_low=-1.0,
        action_high=1.0,
    )
    policy.adapt(source)
    policy.compile(keras.optimizers.AdamW(2e-3))
    policy.fit(source, steps_per_epoch=400, verbose=0)
    envs = [robots.make_env("reach-v3") for _ in range(5)]
    starts = robots.EVALUATION_START + np.arange(10)
    trained = kf.policies.evaluate(policy, envs, starts, max_steps=150)
    assert trained.rate >= 0.8


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("name", ["mip_shelf_place", "flow_shelf_place"])
def test_shipped_policies_act(name):
    """On 20 start states; rates of 0.91 and 0.84 on the recipe's 100."""
    pytest.importorskip("metaworld")
    policy = kf.policies.Policy.from_preset(name)
    envs = [robots.make_env("shelf-place-v3") for _ in range(5)]
    starts = robots.EVALUATION_START + np.arange(20)
    found = kf.policies.evaluate(policy, envs, starts, max_steps=240)
    assert found.success.sum() >= 13
