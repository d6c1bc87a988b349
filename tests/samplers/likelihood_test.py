"""Likelihoods and adaptive solves."""

import keras
import numpy as np
import pytest
from helpers.mixture import ENDS
from helpers.mixture import MIXTURE
from helpers.mixture import Exact
from helpers.mixture import array
from helpers.mixture import labelled
from helpers.mixture import model_of
from helpers.mixture import paths
from helpers.mixture import tensor
from helpers.mixture import walk
from published import solver_toy as toy
from scipy.stats import norm

import keras_flows as kf

LOOSE = kf.samplers.DormandPrince(1e-4, 1e-4)


def test_likelihood_is_exact():
    x = MIXTURE.sample(np.random.default_rng(1), 32)
    expected = MIXTURE.log_density(np, x, 1.0, 0.0)
    model = model_of(paths.Linear(0.0))
    found = array(kf.samplers.log_likelihood(model, x, trace="exact"))
    np.testing.assert_allclose(found, expected, atol=0.01)
    # 1 % of the mean, which is about -1.
    assert abs(found.mean() - expected.mean()) < 0.01 * abs(expected.mean())


@pytest.mark.once
@pytest.mark.parametrize("case", ["linear, noise at 1", "vp", "trigflow"])
def test_likelihood_on_other_paths(case):
    """VP's flow ends at sigma = 0.01 of the data's 0.3: 0.1 % of each."""
    x = MIXTURE.sample(np.random.default_rng(1), 16)
    expected = MIXTURE.log_density(np, x, 1.0, 0.0)
    found = array(
        kf.samplers.log_likelihood(
            model_of(ENDS[case]), x, trace="exact", sampler=LOOSE
        )
    )
    np.testing.assert_allclose(found, expected, atol=0.03)
    assert abs(found.mean() - expected.mean()) < 0.01 * abs(expected.mean())


@pytest.mark.once
def test_hutchinson_is_unbiased():
    """400 estimates for one example, by one and by four probes."""
    x = np.repeat(MIXTURE.sample(np.random.default_rng(2), 1), 400, axis=0)
    model = model_of(paths.Linear(1.0))
    one, four = (
        array(
            kf.samplers.log_likelihood(
                model, x, seed=3, probes=probes, sampler=LOOSE
            )
        )
        for probes in (1, 4)
    )
    expected = MIXTURE.log_density(np, x[:1], 1.0, 0.0)[0]
    assert one.std() > 0.02
    for found in (one, four):
        assert abs(found.mean() - expected) < 4 * found.std() / 20 + 1e-3
    assert 0.3 < four.std() / one.std() < 0.75


@pytest.mark.once
def test_likelihood_with_a_condition():
    """A velocity linear in x and the label has a closed form."""
    model = labelled(paths.Linear(1.0))
    dense = model.network.layers[2]
    assert isinstance(dense, keras.layers.Dense)
    dense.kernel.assign(np.zeros((2, 2)))
    x = np.random.default_rng(0).standard_normal((5, 2)).astype("float32")
    labels = np.array([0, 1, 2, 1, 0], dtype="int32")
    found = array(kf.samplers.log_likelihood(model, x, labels))
    # v is the label's number c: the noise is x + c, and div v = 0.
    c = np.array([0, 1, 2.5, 9])[labels][:, None]
    expected = norm.logpdf(x + c).sum(1)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    bits = kf.samplers.log_likelihood(model, x, labels, bits_per_dim=True)
    np.testing.assert_allclose(array(bits), -found / 2 / np.log(2.0), rtol=1e-5)


@pytest.mark.once
@pytest.mark.parametrize("case", ["linear, noise at 0", "vp", "ve"])
def test_dormand_prince_follows_the_flow(case):
    path, z = ENDS[case], toy.noises(0)[0].astype("float32")
    x = model_of(path).generate(
        noise=z, num_steps=1, sampler=kf.samplers.DormandPrince(1e-6, 1e-6)
    )
    sampler = kf.samplers.UniPC(3, grid="log_snr")
    start = array(path.initial(tensor(z)))
    expected = walk(sampler, Exact(path), start, sampler.times(path, 100))[-1]
    np.testing.assert_allclose(array(x), expected, atol=3e-4)
