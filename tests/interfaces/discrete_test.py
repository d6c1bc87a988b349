"""The discrete interface: losses, predictions, training, errors."""

import keras
import numpy as np
import pytest
from helpers.discrete import EXPECTED
from helpers.discrete import KINDS
from helpers.discrete import array
from helpers.discrete import gaussian
from helpers.discrete import published
from helpers.discrete import tensor
from keras import ops
from published import ddpm_toy as toy

import keras_flows as kf


class Fixed(kf.DiscreteInterface):
    """Takes its noise and timesteps from the published batch."""

    def sample_n(self, shape):
        return tensor(toy.batch()[1])

    def sample_t(self, shape):
        return tensor((toy.batch()[2] + 1) / 1000)


@pytest.mark.parametrize("learn_sigma", [False, True])
@pytest.mark.parametrize("kind", ["eps", "x0"])
def test_losses_are_the_published(kind, learn_sigma):
    model = published(kind, learn_sigma, cls=Fixed)
    x, _, _, labels = toy.batch()
    terms = model.loss(tensor(x), ops.convert_to_tensor(labels))
    expected = EXPECTED[f"losses_{kind}_{learn_sigma}"]
    names = {"loss": 0, "mse": 1, "vlb": 2}
    assert set(terms) == set(list(names)[: 3 if learn_sigma else 2])
    for name, value in terms.items():
        # Up to 8 bits at k = 0; exponentials of float32 logarithms.
        np.testing.assert_allclose(
            array(value), expected[names[name]], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_exact(kind, rng):
    model, oracle = gaussian(kind)
    t = (rng.integers(0, 1000, 64) + 1) / 1000
    t[:2] = 0.001, 1.0
    x = oracle.sample(rng, t)
    x_t, at = tensor(x), tensor(t)
    data = array(model.denoise(x_t, at))
    # x = (x_t - sigma n) / alpha is 157 times as inexact at the noise end.
    slack = 1e-6 / (oracle.path.alpha(t)[:, None] if kind == "eps" else 1.0)
    assert np.all(np.abs(data - oracle.data(x, t)) < 1e-5 + slack)
    # And n = (x_t - alpha x) / sigma at the data end.
    sigma = oracle.path.sigma(t)[:, None]
    off = np.abs(array(model.score(x_t, at)) - oracle.score(x, t))
    assert np.all(off < 1e-4 + 1e-6 / sigma**2)
    k = np.rint(t * 1000).astype(int) - 1
    rate = 500 * np.log1p(-model.interpolant.betas[k])[:, None]
    # dx_t/dt = alpha' / alpha (x_t + score) when variance is preserved.
    velocity = rate * (x + oracle.score(x, t))
    np.testing.assert_allclose(
        array(model.pred(x_t, at)), velocity, rtol=2e-4, atol=2e-4
    )


@pytest.mark.once
@pytest.mark.parametrize(
    "kind, weighting",
    [(kind, "simple") for kind in KINDS] + [("v", "min_snr")],
)
def test_exact_network_has_the_least_loss(kind, weighting, rng):
    """E loss = E weight Var[target | x_t], and more when perturbed."""
    model, oracle = gaussian(kind, weighting=weighting, seed=1)
    rows, s2 = 20_000, np.array(oracle.s) ** 2
    times = []

    class Kept(type(model)):
        def sample_t(self, shape):
            times.append(super().sample_t(shape))
            return times[-1]

    model.__class__ = Kept
    x = tensor(oracle.sample_data(rng, rows))
    loss = array(model.loss(x)["loss"])
    t = array(times[0])
    k = np.rint(t * 1000)
    assert k.min() == 1 and k.max() == 1000
    np.testing.assert_allclose(k.mean(), 500.5, atol=5 * 289 / rows**0.5)
    alpha, sigma = oracle.path.alpha(t)[:, None], oracle.path.sigma(t)[:, None]
    snr = (alpha / sigma) ** 2
    spread = {
        "eps": alpha**2 * s2 / oracle.var(t),
        "x0": sigma**2 * s2 / oracle.var(t),
        "v": s2 / oracle.var(t),
    }[kind]
    if weighting == "min_snr":
        spread = (
            spread
            * np.minimum(snr, 5.0)
            / ({"eps": snr, "x0": 1.0, "v": snr + 1.0}[kind])
        )
    excess = loss - spread.mean(1)
    assert abs(excess.mean()) < 4 * excess.std() / rows**0.5
    other, _ = gaussian(kind, weighting=weighting, seed=1)  # the same draws
    other.network.scale.assign(1.3)
    worse = array(other.loss(x)["loss"]) - loss
    assert worse.mean() > 4 * worse.std() / rows**0.5


# Training, saving, errors.


def linear(learn_sigma):
    """The smallest labelled network there is."""
    inputs = {
        "x": keras.Input((2,), name="x"),
        "t": keras.Input((), name="t"),
        "condition": keras.Input((), dtype="int32", name="condition"),
    }
    label = keras.layers.Embedding(4, 2)(inputs["condition"])
    layer = keras.layers.Dense(4 if learn_sigma else 2, name="final")
    return keras.Model(inputs, layer(inputs["x"] + label))


@pytest.mark.parametrize(
    "kind, learn_sigma",
    [("eps", False), ("x0", False), ("v", False), ("eps", True)],
)
def test_fit_and_save(kind, learn_sigma, tmp_path, rng):
    model = kf.DiscreteInterface(
        linear(learn_sigma),
        np.linspace(0.01, 0.3, 20),
        prediction=kind,
        learn_sigma=learn_sigma,
        weighting="min_snr",
        time_scale=0.05,
        null_label=3,
        ema=0.5 if learn_sigma else None,
        seed=0,
    )
    model.compile("sgd")
    x = rng.standard_normal((8, 2)).astype("float32")
    history = model.fit(x, np.arange(8) % 3, epochs=1, verbose=0).history
    assert np.isfinite(history["loss"][0])
    assert ("vlb" in history) == learn_sigma
    assert model.default_num_steps == 20
    model.save_to_preset(tmp_path / "preset")
    loaded = kf.Interface.from_preset(tmp_path / "preset")
    configs = [m.get_config() for m in (loaded, model)]
    for config in configs:
        # A functional network's dict of inputs comes back in another order.
        del config["network"]
    assert configs[0] == configs[1]
    args = tensor(x), tensor(np.full(8, 0.35))
    for predictions in zip(
        *(m.denoise_and_share(*args, condition=np.arange(8) % 4)
          for m in (model, loaded)), strict=True,
    ):  # fmt: skip
        if predictions[0] is not None:
            np.testing.assert_allclose(*map(array, predictions), atol=1e-6)


def test_bound_trains_the_variances_alone(rng):
    model = kf.DiscreteInterface(
        linear(True), null_label=3, learn_sigma=True, ema=None
    )
    bias = model.network.get_layer("final").bias
    x, y = tensor(rng.standard_normal((4, 2))), ops.zeros((4,), "int32")

    def trained_by(name):
        _, (gradient,) = kf.ops.value_and_gradients(
            lambda: ops.mean(model.loss(x, y)[name]), [bias]
        )
        return list(array(gradient) != 0)

    assert trained_by("vlb") == [False] * 2 + [True] * 2
    assert trained_by("mse") == [True] * 2 + [False] * 2


def test_published_dit_has_all_its_channels():
    """What a converted DiT needs: its outputs before half are dropped."""
    dit = kf.networks.DiT(
        (4, 4, 2), 2, 16, 1, 2, num_classes=3, learn_sigma=True
    )
    whole = keras.Model(dit.input, dit.get_layer("unpatchify").output)
    model = kf.DiscreteInterface(
        whole, learn_sigma=True, null_label=3, ema=None
    )
    assert model.network.output.shape == (None, 4, 4, 4)
    with pytest.raises(
        ValueError, match=r"`network`.*2 times its chan.*4\).*2\)"
    ):
        kf.DiscreteInterface(dit, learn_sigma=True, ema=None)


def mlp(**kwargs):
    return kf.networks.MLP(2, 8, 1, **kwargs)


ERRORS = {
    "schedule": (
        lambda: kf.DiscreteInterface(mlp(), "quadratic"),
        "`schedule`.*cosine.*quadratic",
    ),
    "prediction": (
        lambda: kf.DiscreteInterface(mlp(), prediction="noise"),
        "`prediction`.*noise",
    ),
    "weighting": (
        lambda: kf.DiscreteInterface(mlp(), weighting="snr"),
        "`weighting`.*min_snr.*snr",
    ),
    "betas": (
        lambda: kf.DiscreteInterface(mlp(), [0.1, 1.0]),
        "betas.*between 0 and 1.*0.1 to 1",
    ),
    "few timesteps": (
        lambda: kf.DiscreteInterface(mlp(), num_timesteps=10),
        "betas.*between 0 and 1.*2",
    ),
    "betas and their number": (
        lambda: kf.DiscreteInterface(mlp(), [0.1, 0.2], 3),
        "`num_timesteps`.*3 for 2 betas",
    ),
    "channels": (
        lambda: kf.DiscreteInterface(mlp(), learn_sigma=True),
        r"`network`.*2 times its channels.*\(batch, 4\).*\(batch, 2\)",
    ),
    "num_steps": (
        lambda: kf.DiscreteInterface(mlp(), num_timesteps=50).generate(
            2, num_steps=51
        ),
        "`num_steps`.*50.*num_steps=51",
    ),
    "variance": (lambda: kf.samplers.DDPM("fixed"), "`variance`.*fixed"),
    "variance of a model without": (
        lambda: kf.SiTInterface(mlp(), ema=None).generate(
            2, num_steps=2, sampler=kf.samplers.DDPM("learned")
        ),
        "learned.*learn_sigma=True",
    ),
    "eta": (lambda: kf.samplers.DDIM(eta=2.0), "`eta`.*2.0"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    make, message = ERRORS[case]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        make()
