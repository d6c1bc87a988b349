"""Minari sets."""

import numpy as np
import pytest
from helpers.robots import assert_same

import keras_flows as kf

# Files and NumPy.
pytestmark = pytest.mark.once

robots = kf.datasets.robots


@pytest.fixture
def minari_sets(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    gymnasium = pytest.importorskip("gymnasium")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    spaces = gymnasium.spaces

    class Env(gymnasium.Env):
        """Observations and rewards tell the step."""

        def __init__(self, action_space):
            self.action_space = action_space
            box = spaces.Box(-100, 100, (2,), np.float64)
            self.observation_space = spaces.Dict(
                {"state": box, "goal": spaces.Dict({"position": box})}
            )

        def observation(self):
            state = np.full(2, 10.0 * self.start + self.t)
            return {"state": state, "goal": {"position": -state}}

        def reset(self, seed=None, options=None):
            super().reset(seed=seed)
            self.t, self.start = 0, seed
            return self.observation(), {}

        def step(self, action):
            self.t += 1
            done = self.t == 3 + self.start
            return self.observation(), float(self.t), done, False, {}

    def make(name, action_space):
        env = minari.DataCollector(Env(action_space))
        for seed in range(2):
            env.reset(seed=seed)
            for t in range(3 + seed):
                action = t % 2
                if isinstance(action_space, spaces.Box):
                    action = np.array([t, seed], "float64")
                env.step(action)
        env.create_dataset(name, algorithm_name="test")
        env.close()

    make("test/box-v0", spaces.Box(-9, 9, (2,), np.float64))
    make("test/discrete-v0", spaces.Discrete(2))
    return tmp_path / "sets"


@pytest.mark.filterwarnings("ignore")
def test_minari(minari_sets):
    read = robots.read_minari
    ours = read("test/box-v0")
    expected = []
    for seed in range(2):
        steps = np.arange(3 + seed, dtype="float32")
        state = np.repeat(10.0 * seed + steps[:, None], 2, 1).astype("float32")
        expected.append(
            {
                "action": np.stack([steps, 0 * steps + seed], 1),
                "reward": steps + 1,
                "termination": steps == steps[-1],
                "truncation": steps < 0,
            }
        )
        for key, value in ("state", state), ("goal/position", -state):
            np.testing.assert_array_equal(ours[seed]["observation"][key], value)
            assert ours[seed]["observation"][key].dtype == np.float32
    assert_same(ours, expected)
    folder = minari_sets / "test" / "box-v0"
    for place in (folder, folder / "data"):
        assert_same(read(place), expected)
    goals = read("test/box-v0", "goal/position")
    np.testing.assert_array_equal(
        goals[1]["observation"], ours[1]["observation"]["goal/position"]
    )
    with pytest.raises(ValueError, match=r"`keys` \['hand'\].*goal/position"):
        read("test/box-v0", ["hand"])
    with pytest.raises(ValueError, match="'action' must be.*Discrete actions"):
        read("test/discrete-v0")
    with pytest.raises(ValueError, match="'test/none-v0' is neither.*sets"):
        read("test/none-v0")
    with pytest.raises(ValueError, match="folder without a Minari dataset"):
        read(minari_sets)
