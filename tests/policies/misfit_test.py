"""Demonstrations that an encoder has no inputs for."""

import keras
import numpy as np
import pytest
from helpers import policies as small

import keras_flows as kf

pytestmark = pytest.mark.once

SHAPES = {"arm": (2, 3), "object": (2, 2)}
ENCODERS = {
    "one array": ((2, 5), "`windows`.*\\['arm', 'object'\\].*dict of shapes"),
    "others": ({"hand": (2, 3)}, "`windows`.*'object'.*\\['hand'\\]"),
    "fewer": ({"arm": (2, 3)}, "`windows`.*'object'.*\\['arm'\\]"),
    "more": (SHAPES | {"hand": (2, 1)}, "`windows`.*'hand'"),
}


def policy_of(shape):
    encoder = kf.networks.MLPEncoder(shape, width=4)
    network = kf.networks.ChunkMLP(2, small.HORIZON, (2, 4), width=8, depth=1)
    return kf.policies.Policy(
        kf.FlowMapInterface(network, "mip", ema=None), encoder, act_steps=4
    )


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("name", ENCODERS)
def test_one_sentence_says_what_does_not_fit(name, cut):
    shape, message = ENCODERS[name]
    data = small.dict_episodes()
    if cut:
        data = small.windows(data)
    with pytest.raises(ValueError, match=message):
        policy_of(shape).adapt(data)


def test_arrays_where_names_are_wanted():
    with pytest.raises(ValueError, match="`windows`.*one array.*'arm'"):
        policy_of(SHAPES).adapt(small.windows())


def test_a_reader_s_dict_fits_an_encoder_of_its_shapes():
    policy, data = policy_of(SHAPES), small.windows(small.dict_episodes())
    policy.adapt(data)
    policy.compile(keras.optimizers.SGD(0.1))
    policy.fit(data, verbose=0)
    history = {k: np.zeros((1, *s), "float32") for k, s in SHAPES.items()}
    assert np.isfinite(policy.predict_chunk(history, seed=0)).all()


@pytest.mark.parametrize("windows", [[{"a": 1}], [], np.zeros((3, 2)), None])
def test_what_is_no_demonstration(windows):
    with pytest.raises(ValueError, match="`windows`"):
        policy_of((2, 2)).adapt(windows)
