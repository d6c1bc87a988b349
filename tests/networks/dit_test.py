"""DiT against the published networks, its sizes, its derivatives."""

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


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sit_s_2", {"learn_sigma": True}),
        # Other weights of the same network.
        pytest.param("dit_s_2", {"learn_sigma": True}, marks=pytest.mark.once),
        pytest.param("repa_sit_s_2", {}, marks=pytest.mark.once),
        ("meanflow_dit_s_2", {"two_times": True}),
    ],
)
def test_equals_the_published_network(name, options):
    file = np.load(HERE / "published" / f"{name}.npz")
    network = kf.networks.DiT.from_size(
        "S/2", (32, 32, 4), num_classes=1000, **options
    )
    weights.converter("dit").convert(weights.state(file), network)
    x, t, r, labels = weights.inputs((32, 32, 4), 1000)
    inputs = {"x": x, "t": t, "condition": labels}
    if options.get("two_times"):
        inputs["r"] = r
    y = weights.output(network, **inputs)
    # The outputs are of order 1: sums of 1,536 products in another order.
    close(y, file["output"], 4.5)


@pytest.mark.parametrize("variant", ["", "_qk"])
def test_equals_lightning_dit(variant):
    file = np.load(HERE / "published" / f"lightning_dit{variant}.npz")
    network = kf.networks.LightningDiT(
        (32, 32, 4),
        patch_size=2,
        width=192,
        depth=4,
        num_heads=3,
        num_classes=1000,
        qk_norm=bool(variant),
        shift=not variant,
    )
    weights.converter("dit").convert(weights.state(file), network)
    x, t, _, labels = weights.inputs((32, 32, 4), 1000)
    y = weights.output(network, x=x, t=t, condition=labels)
    close(y, file["output"], 4.5)


@pytest.mark.once
@pytest.mark.parametrize(
    ("size", "millions"),
    # arXiv 2212.09748, table 4; XL/2 from 2401.08740.
    [("S/2", 33), ("B/2", 130), ("L/2", 458), ("XL/2", 675), ("XL/8", 676)],
)
def test_parameters_are_the_papers(size, millions):
    letter, _, patch = size.partition("/")
    width, depth, heads = kf.networks.DiT.SIZES[letter]

    def count(depth):
        return weights.num_parameters(
            lambda: kf.networks.DiT(
                (32, 32, 4),
                patch_size=int(patch),
                width=width,
                depth=depth,
                num_heads=heads,
                num_classes=1000,
                learn_sigma=True,
            )
        )

    # Every block has as many.
    one = count(1)
    total = one + (depth - 1) * (count(2) - one)
    assert abs(total / 1e6 - millions) < 1.0


def small(kind="DiT", **kwargs):
    options = {
        "image_shape": (8, 4, 3),
        "patch_size": 2,
        "width": 16,
        "depth": 2,
        "num_heads": 2,
        "num_classes": 5,
    }
    return getattr(kf.networks, kind)(**(options | kwargs))


def randomize(network, seed=0):
    """AdaLN-Zero hides most of a new network; take it away from zero."""
    rng = np.random.default_rng(seed)
    for v in network.trainable_variables:
        v.assign(0.3 * rng.standard_normal(v.shape))


def batch(rows=4, shape=(8, 4, 3)):
    rng = np.random.default_rng(1)
    return (
        rng.standard_normal((rows, *shape)).astype("float32"),
        np.arange(rows, dtype="int32"),
    )


def test_starts_as_the_zero_velocity():
    x, labels = batch()
    y = small()(
        {
            "x": ops.convert_to_tensor(x),
            "t": ops.full((4,), 0.3),
            "condition": ops.convert_to_tensor(labels),
        }
    )
    assert tuple(y.shape) == x.shape
    assert float(ops.max(ops.abs(y))) == 0.0


def test_patches_of_an_oblong_image_come_back():
    x, _ = batch()
    tokens = kf.networks.layers.patches.Patchify(2)(ops.convert_to_tensor(x))
    assert tuple(tokens.shape) == (4, 8, 12)
    # The second token lies right of the first, in the same row.
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(tokens[0, 1]), x[0, :2, 2:].ravel()
    )
    y = kf.networks.layers.patches.Unpatchify(2, (8, 4, 3))(tokens)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(y), x)


@pytest.mark.parametrize("objective", ["flow", "lsd"])
def test_remat_changes_no_gradient(objective):
    x, labels = batch()
    gradients = []
    for remat in (False, True):
        network = small(two_times=True, remat=remat, depth=1)
        randomize(network)
        model = kf.FlowMapInterface(
            network, objective, ema=None, seed=0, cond_drop_ratio=0.0
        )
        _, gradient = value_and_gradients(
            lambda m=model: ops.mean(m.loss(x, labels)["loss"]),
            network.trainable_variables,
        )
        gradients.append([keras.ops.convert_to_numpy(g) for g in gradient])
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1.0, np.abs(a).max()))
    assert max(np.abs(g).max() for g in gradients[0]) > 1e-3


@pytest.mark.parametrize("kind", ["DiT", "LightningDiT"])
def test_jvp_through_the_network_is_right(kind):
    network = small(kind, two_times=True, depth=1)
    randomize(network)
    model = kf.FlowMapInterface(network, "lsd", ema=None, seed=0)
    kf.check_jvp(model, batch())


@pytest.mark.once
def test_conditions_matter():
    """Label, t and r each change the output, and t = r is not special-cased."""
    network = small(two_times=True)
    randomize(network)
    x, labels = batch()

    def run(t=0.4, r=0.2, labels=labels):
        return weights.output(
            network,
            x=x,
            t=np.full(4, t, "float32"),
            r=np.full(4, r, "float32"),
            condition=labels,
        )

    base = run()
    for other in (run(t=0.5), run(r=0.3), run(labels=labels + 1)):
        assert np.abs(other - base).max() > 1e-3


@pytest.mark.parametrize("kind", ["DiT", "LightningDiT"])
def test_survives_its_config(kind):
    network = small(kind, two_times=True)
    randomize(network)
    copy = kf.networks.clone_network(network, "copy")
    x, labels = batch()
    inputs = {
        "x": ops.convert_to_tensor(x),
        "t": ops.full((4,), 0.4),
        "r": ops.full((4,), 0.1),
        "condition": ops.convert_to_tensor(labels),
    }
    a, b = (keras.ops.convert_to_numpy(n(inputs)) for n in (network, copy))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a).max() > 0.1


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="patch_size.*must divide"):
        small(patch_size=3)
    with pytest.raises(ValueError, match="`image_shape`"):
        small(image_shape=(8, 8))
    with pytest.raises(ValueError, match="`num_heads`"):
        small(num_heads=3)
    with pytest.raises(ValueError, match="`size`.*B/2"):
        kf.networks.DiT.from_size("S-2", (8, 8, 1))
    with pytest.raises(ValueError, match="`num_heads`.*rotary"):
        small("LightningDiT", num_heads=8)


@pytest.mark.once
def test_a_state_of_another_architecture_assigns_nothing():
    network = small()
    before = [keras.ops.convert_to_numpy(v) for v in network.variables]
    file = np.load(HERE / "published" / "sit_s_2.npz")
    with pytest.raises(ValueError, match="different architectures"):
        weights.converter("dit").convert(weights.state(file), network)
    for old, v in zip(before, network.variables, strict=True):
        np.testing.assert_array_equal(old, keras.ops.convert_to_numpy(v))
