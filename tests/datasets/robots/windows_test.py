"""Windows of episodes."""

import numpy as np
import pytest
from helpers.policies import episodes
from helpers.policies import windows

from keras_flows.datasets import robots


@pytest.mark.once
def test_windows_by_hand():
    """Histories, chunks and padding at either end of an episode."""
    source = windows(episodes((10,)), shuffle=False, mask=True, batch_size=7)
    # Starts -1, 0, ..., 10 - 8 + 4 - 1 = 5.
    assert source.num_windows == 7 and len(source) == 1
    actions, observations, extras = source[0]
    assert actions.shape == (7, 8, 2) and observations.shape == (7, 2, 2)
    np.testing.assert_array_equal(actions[0, :, 0], [0, 0, 1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(observations[0, :, 0], [0, 0])
    np.testing.assert_array_equal(extras["mask"][0], [0, 1, 1, 1, 1, 1, 1, 1])
    np.testing.assert_array_equal(actions[6, :, 0], [5, 6, 7, 8, 9, 9, 9, 9])
    np.testing.assert_array_equal(observations[6, :, 0], [5, 6])
    np.testing.assert_array_equal(extras["mask"][6], [1, 1, 1, 1, 1, 0, 0, 0])
    # Each step of the episode is the present of one window.
    present = observations[:, -1, 0]
    np.testing.assert_array_equal(present, np.arange(7))


@pytest.mark.once
def test_windows_never_cross_an_episode_and_cover_an_epoch():
    source = windows(drop_remainder=False)
    batches = [source[i] for i in range(len(source))]
    actions = np.concatenate([batch[0] for batch in batches])
    assert len(actions) == source.num_windows == (20 - 3) + (13 - 3)
    owner = actions[..., 0] >= 100
    assert (owner.all(1) | ~owner.any(1)).all()
    starts = {(a[0, 0], a[-1, 0]) for a in actions}
    assert len(starts) == len(actions)


@pytest.mark.once
def test_windows_shuffle_by_seed_and_epoch():
    first, again, other = windows(), windows(), windows(seed=1)
    np.testing.assert_array_equal(first[0][0], again[0][0])
    assert (first[0][0] != other[0][0]).any()
    first.on_epoch_end()
    assert (first[0][0] != again[0][0]).any()
    endless = windows(repeat=True)
    np.testing.assert_array_equal(endless[len(endless)][0], first[0][0])


@pytest.mark.once
def test_short_episodes():
    data = episodes((20, 5))
    with pytest.raises(ValueError, match="number 1 of 5 steps"):
        windows(data)
    assert windows(data, short="drop").num_windows == 17
    padded = windows(data, short="pad", shuffle=False, mask=True, batch_size=23)
    assert padded.num_windows == 17 + 6
    np.testing.assert_array_equal(padded[0][2]["mask"][-1], [1] + [0] * 7)
    with pytest.raises(ValueError, match="All 1 episodes"):
        windows(episodes((5,)), short="drop")


@pytest.mark.once
def test_bad_demonstrations():
    with pytest.raises(ValueError, match="holds no demonstration"):
        windows([])
    data = episodes()
    data[1]["observation"][3, 0] = np.nan
    with pytest.raises(
        ValueError, match="Episode 1.*'observation' holds NaN at step 3"
    ):
        windows(data)
    data = episodes()
    data[0]["action"] = data[0]["action"][:-1]
    with pytest.raises(
        ValueError, match="Episode 0.*20 steps.*'action' has 19"
    ):
        windows(data)
    data = episodes()
    data[1]["action"] = data[1]["action"][:, :1]
    with pytest.raises(
        ValueError, match=r"Episode 1.*'action' has rows of shape \(1,\)"
    ):
        windows(data)
    with pytest.raises(ValueError, match="`horizon` must hold"):
        robots.Windows(episodes(), 4, 2, 4)
    with pytest.raises(ValueError, match="more than the 27 windows"):
        windows(batch_size=28)
