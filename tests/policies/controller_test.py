"""Control: the queue of actions, ensembling."""

import numpy as np
import pytest
from helpers.close import close
from helpers.policies import HORIZON
from helpers.policies import OBS_STEPS
from helpers.policies import trained

import keras_flows as kf


class Counting:
    """A policy whose chunk number c is c * 100 + the action's number."""

    obs_steps, horizon, act_steps, observation_rank = OBS_STEPS, HORIZON, 4, 1

    def __init__(self):
        self.seen = []

    def predict_chunk(self, history, seed=None):
        self.seen.append(history)
        numbers = 100.0 * len(self.seen) + np.arange(HORIZON, dtype="float32")
        chunk = np.broadcast_to(
            numbers[:, None], (*history.shape[:-2], HORIZON, 2)
        )
        return chunk


@pytest.mark.once
@pytest.mark.parametrize("batch", [(), (3,)])
def test_the_queue_recedes(batch):
    policy = Counting()
    control = kf.policies.Controller(policy)
    actions = [control(np.full((*batch, 5), float(k))) for k in range(6)]
    assert [float(a.ravel()[0]) for a in actions] == [
        101, 102, 103, 104, 201, 202,
    ]  # fmt: skip
    assert actions[0].shape == (*batch, 2)
    first, second = (h[..., 0].reshape(-1, OBS_STEPS)[0] for h in policy.seen)
    np.testing.assert_array_equal(first, [0, 0])
    np.testing.assert_array_equal(second, [3, 4])


@pytest.mark.once
def test_ensembling_by_hand():
    control = kf.policies.Controller(Counting(), ensemble=0.5)
    actions = [float(control(np.zeros(5))[0]) for _ in range(8)]
    # Step 0: 101; step 1: the first chunk's 102 and the second's 201.
    w = np.exp(-0.5 * np.arange(8))
    assert actions[0] == 101
    assert actions[1] == pytest.approx((w[0] * 102 + w[1] * 201) / w[:2].sum())
    # A chunk of 8 reaches 7 steps; at step 7 the first no longer counts.
    last = [100 * c + 1 + (8 - c) for c in range(2, 9)]
    assert actions[7] == pytest.approx((w[:7] * last).sum() / w[:7].sum())


def test_select_action_is_the_chunks():
    policy = trained()
    with pytest.raises(RuntimeError, match="reset"):
        policy.select_action(np.zeros(2))
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((6, 2)).astype("float32")
    policy.reset(seed=3)
    actions = [policy.select_action(o) for o in observations]
    first = policy.predict_chunk(np.stack([observations[0]] * 2))
    second = policy.predict_chunk(observations[3:5])
    close(actions[:4], first[1:5], 6)
    close(actions[4:], second[1:3], 6)
    with pytest.raises(ValueError, match="`act_steps` must lie"):
        policy.reset(act_steps=HORIZON)
