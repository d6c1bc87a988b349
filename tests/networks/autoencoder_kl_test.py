"""The autoencoder against diffusers', its scale, its training."""

import functools
import pathlib

import keras
import numpy as np
import pytest
from helpers.close import close
from keras import ops
from published import weights

import keras_flows as kf
from keras_flows.ops import value_and_gradients

HERE = pathlib.Path(__file__).parents[1]
SHAPE = (32, 16, 3)


def small(**kwargs):
    options = {
        "image_shape": SHAPE,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "scaling_factor": 0.2,
        "shift_factor": 0.3,
    }
    return kf.networks.AutoencoderKL(**(options | kwargs))


@functools.cache
def published():
    """(diffusers' numbers, its weights, a network, its compiled methods)."""
    file = np.load(HERE / "published" / "vae.npz")
    network = small()
    methods = {
        name: kf.ops.compiled(getattr(network, name), network.variables)
        for name in ("encode", "decode", "__call__")
    }
    return file, weights.state(file), network, methods


@pytest.fixture
def network():
    """One network for all tests, each of which finds diffusers' weights."""
    _, state, network, _ = published()
    weights.converter("vae").convert(state, network)
    return network


def run(method, *arrays):
    arrays = [ops.convert_to_tensor(a) for a in arrays]
    output = published()[-1][method](*arrays)
    return keras.tree.map_structure(keras.ops.convert_to_numpy, output)


def values(network):
    return [keras.ops.convert_to_numpy(v) for v in network.variables]


def images():
    return weights.inputs(SHAPE, 1)[0]


def test_equals_diffusers_but_for_the_scale(network):
    file = published()[0]
    mean, logvar = run("encode", images())
    # Sums in another order: 4e-7 on PyTorch.
    close(mean, (file["mean"] - 0.3) * 0.2, 5)
    close(logvar, file["logvar"] + 2 * np.log(0.2), 5)
    raw = weights.inputs((16, 8, 4), 1, seed=1)[0]
    decoded = run("decode", (raw - 0.3) * 0.2)
    close(decoded, file["decoded"], 5)


@pytest.mark.once
def test_calling_is_the_reconstruction_from_the_mean(network):
    mean, _ = run("encode", images())
    close(run("__call__", images()), run("decode", mean), 6)


@pytest.mark.once
def test_old_names_of_attention_are_the_same_weights(network):
    state, expected = published()[1], values(network)
    old = {}
    for name, value in state.items():
        for new, was in (
            ("to_q", "query"),
            ("to_k", "key"),
            ("to_v", "value"),
            ("to_out.0", "proj_attn"),
        ):
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{was}.")
        old[name] = value
    assert len(set(old) - set(state)) == 16
    for v in network.variables:
        v.assign(np.full(v.shape, 7.0))
    weights.converter("vae").convert(old, network)
    for a, b in zip(expected, values(network), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.once
def test_a_state_of_another_architecture_assigns_nothing(network):
    state = {k: 2.0 * v for k, v in published()[1].items()}
    before = values(network)
    for wrong in (
        {k: v for k, v in state.items() if "to_q" not in k},
        {**state, "extra.weight": np.zeros(3)},
        {**state, "decoder.conv_in.weight": np.zeros((64, 8, 3, 3))},
    ):
        with pytest.raises(ValueError, match="different architectures"):
            weights.converter("vae").convert(wrong, network)
    for a, b in zip(before, values(network), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.once
def test_parameters_are_stable_diffusions():
    count = weights.num_parameters(kf.networks.AutoencoderKL)
    assert count == 83_653_863


@pytest.mark.once
def test_samples_have_the_posteriors_moments(network):
    mean = np.full((2, 64, 64, 4), 0.5, "float32")
    logvar = np.full_like(mean, np.log(0.09))
    z, again, other = (
        keras.ops.convert_to_numpy(network.sample(mean, logvar, seed=seed))
        for seed in (3, 3, 4)
    )
    # 32,768 draws: four standard errors.
    assert abs(z.mean() - 0.5) < 4 * 0.3 / np.sqrt(z.size)
    assert abs(z.std() - 0.3) < 4 * 0.3 / np.sqrt(2 * z.size)
    np.testing.assert_array_equal(z, again)
    assert np.abs(z - other).max() > 0.1


@pytest.mark.once
def test_log_variance_is_clipped_and_the_divergence_unscales(network):
    weight = {v.path: v for v in network.variables}
    kernel = weight["quantize/kernel"]
    kernel.assign(np.zeros(kernel.shape))
    # Raw means 2, raw log variances 100 and -100, twice each.
    weight["quantize/bias"].assign([2.0] * 4 + [100.0, -100.0] * 2)
    mean, logvar = run("encode", images())
    np.testing.assert_allclose(mean, (2.0 - 0.3) * 0.2, rtol=1e-6)
    np.testing.assert_allclose(
        logvar[0, 0, 0],
        np.array([20.0, -30.0] * 2) + 2 * np.log(0.2),
        rtol=1e-6,
    )
    # Scaled log variances of 0 are raw variances of 25, of 512 latents.
    kl = network.kl_divergence(*map(ops.convert_to_tensor, (mean, 0 * mean)))
    each = 0.5 * (2.0**2 + 25.0 - 1.0 - np.log(25.0))
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(kl), 512 * each, rtol=1e-5
    )


@pytest.mark.once
def test_trains_every_weight():
    # One channel a group, as above, would take away the biases before it.
    network = small(
        image_shape=(8, 4, 3), block_out_channels=(8, 16), norm_groups=2
    )
    x, noise = (
        ops.convert_to_tensor(weights.inputs(shape, 1)[0])
        for shape in ((8, 4, 3), (4, 2, 4))
    )

    def loss():
        mean, logvar = network.encode(x)
        y = network.decode(mean + ops.exp(0.5 * logvar) * noise)
        return ops.mean((x - y) ** 2) + 0.01 * ops.mean(
            network.kl_divergence(mean, logvar)
        )

    _, gradients = value_and_gradients(loss, network.trainable_variables)
    assert len(gradients) == len(network.variables)
    for v, g in zip(network.trainable_variables, gradients, strict=True):
        g = keras.ops.convert_to_numpy(g)
        assert np.isfinite(g).all() and np.abs(g).max() > 1e-7, v.path


@pytest.mark.once
def test_comes_back_from_a_file(network, tmp_path):
    network.save(tmp_path / "vae.keras")
    copy = keras.saving.load_model(tmp_path / "vae.keras")
    assert copy.get_config() == network.get_config()
    assert [v.path for v in copy.variables] == [
        v.path for v in network.variables
    ]
    for a, b in zip(values(network), values(copy), strict=True):
        np.testing.assert_array_equal(a, b)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="`image_shape`.*multiple of 2 pix"):
        small(image_shape=(33, 32, 3))
    with pytest.raises(ValueError, match="`image_shape`.*height, width"):
        small(image_shape=(32, 32))
    with pytest.raises(ValueError, match=r"`norm_groups` \(32\).*divide"):
        small(block_out_channels=(48, 64))
    with pytest.raises(ValueError, match="`block_out_channels`"):
        small(block_out_channels=())
    with pytest.raises(ValueError, match="`scaling_factor`.*above 0"):
        small(scaling_factor=0.0)


@pytest.mark.once
def test_inputs_of_another_shape_are_named(network):
    with pytest.raises(ValueError, match=r"`x`.*last.*\('batch', 32, 16, 3\)"):
        network.encode(np.zeros((2, 3, 32, 16), "float32"))
    with pytest.raises(ValueError, match=r"`x`.*\(2, 32, 16, 1\)"):
        network.latents(np.zeros((2, 32, 16, 1), "float32"))
    with pytest.raises(ValueError, match=r"`latents`.*\('batch', 16, 8, 4\)"):
        network.decode(np.zeros((2, 32, 16, 3), "float32"))
