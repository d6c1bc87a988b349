"""`get_config` of every network is what its constructor was given."""

import inspect

import keras
import pytest

import keras_flows as kf
from keras_flows.networks.described import DescribedModel

pytestmark = pytest.mark.once

N = kf.networks
VECTORS = {"b": [2, 5], "a": [2, 3]}
# The arguments without a default, with lists where shapes are meant.
REQUIRED = {
    N.MLP: {"dim": [4, 2]},
    N.DiT: {"image_shape": [8, 8, 3]},
    N.LightningDiT: {"image_shape": [8, 8, 3], "width": 48},
    N.DDT: {"image_shape": [8, 8, 3], "width": 48},
    N.SongUNet: {
        "image_shape": [16, 16, 3],
        "channel_mult": [1, 2],
        "channels": 16,
        "attn_resolutions": [8],
    },
    N.DhariwalUNet: {
        "image_shape": [16, 16, 3],
        "channel_mult": [1, 2],
        "channels": 16,
        "attn_resolutions": [8],
    },
    N.AutoencoderKL: {
        "image_shape": [8, 8, 3],
        "block_out_channels": [8, 8],
        "norm_groups": 4,
    },
    N.ChunkMLP: {"action_dim": 4, "horizon": 8, "condition_shape": [2, 5]},
    N.TemporalUNet: {
        "action_dim": 4,
        "horizon": 8,
        "condition_shape": [2, 5],
        "width_mult": [1, 2],
        "width": 8,
    },
    N.PolicyTransformer: {
        "action_dim": 4,
        "horizon": 8,
        "condition_shape": [2, 5],
    },
    N.PolicyDiT: {"action_dim": 4, "horizon": 8, "condition_shape": [2, 5]},
    N.PolicyRNN: {"action_dim": 4, "horizon": 8, "condition_shape": [2, 5]},
    N.IdentityEncoder: {"observation_shape": VECTORS},
    N.MLPEncoder: {"observation_shape": VECTORS},
    N.PerStepMLPEncoder: {"observation_shape": VECTORS},
    N.ImageEncoder: {
        "observation_shape": {"camera": [2, 32, 32, 3], **VECTORS},
        "crop_shape": [28, 28],
    },
}


def plain(value):
    """Lists as tuples, dicts by sorted key."""
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, dict):
        return {key: plain(value[key]) for key in sorted(value)}
    return value


def shallow(cls, arguments):
    """Small where the constructor lets it be."""
    names = inspect.signature(cls).parameters
    small = {"depth": 1, "encoder_depth": 1, "decoder_depth": 1}
    return {k: v for k, v in small.items() if k in names} | arguments


def test_every_network_is_here():
    described = {
        each
        for each in vars(N).values()
        if isinstance(each, type) and issubclass(each, DescribedModel)
    }
    assert described == set(REQUIRED)


@pytest.mark.parametrize("cls", REQUIRED, ids=lambda cls: cls.__name__)
def test_config_is_the_arguments(cls):
    given = shallow(cls, REQUIRED[cls])
    network = cls(**given)
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(cls).parameters.items()
    }
    expected = {**defaults, **{key: plain(given[key]) for key in given}}
    config = network.get_config()
    assert list(config) == list(defaults)
    assert config == expected
    # By position, and from a config that went through JSON.
    assert cls(*config.values()).get_config() == config
    saved = keras.saving.serialize_keras_object(network)
    again = keras.saving.deserialize_keras_object(saved)
    assert again.get_config() == config


def test_config_of_a_subclass_is_its_own():
    class Small(N.MLP):
        def __init__(self, dim, size=4, **kwargs):
            super().__init__(dim, width=size, depth=1, **kwargs)

    config = Small(2, two_times=True).get_config()
    assert config == {"dim": 2, "size": 4, "two_times": True}
    assert Small.from_config(config).get_config() == config


@pytest.mark.parametrize("arguments", [{}, {"dim": 2, "widht": 8}])
def test_wrong_arguments_are_named(arguments):
    missing = "widht" if arguments else "dim"
    with pytest.raises(TypeError, match=f"MLP.__init__.*'{missing}'"):
        N.MLP(**arguments)
