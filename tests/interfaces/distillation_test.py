"""`distil`: the student begins as its teacher, and learns its flow."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_flows as kf
from keras_flows.networks.second_time import with_second_time

NETWORKS = {
    "mlp": lambda: kf.networks.MLP((4, 4, 1), 8, 2, num_classes=3),
    "dit": lambda: kf.networks.DiT((4, 4, 1), 2, 8, 1, 2, num_classes=3),
    "lightning": lambda: kf.networks.LightningDiT(
        (4, 4, 1), 2, 8, 1, 2, num_classes=3
    ),
    "song": lambda: kf.networks.SongUNet(
        (4, 4, 1), 8, (1, 2), 1, (), num_classes=3
    ),
    "dhariwal": lambda: kf.networks.DhariwalUNet(
        (4, 4, 1), 8, (1, 2), 1, (), num_classes=3
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("name", NETWORKS)
def test_a_second_time_changes_nothing_at_first(name, rng):
    network = NETWORKS[name]()
    values = [
        0.3 * rng.standard_normal(v.shape).astype(v.dtype)
        for v in network.weights
    ]
    copy = with_second_time(network, values)
    network.set_weights(values)
    inputs = {
        "x": rng.standard_normal((5, 4, 4, 1)).astype("float32"),
        "t": np.linspace(0.1, 0.9, 5, dtype="float32"),
        "condition": np.arange(5) % 4,
    }
    expected = ops.convert_to_numpy(network(inputs))
    assert np.abs(expected).max() > 0.1
    found = copy({**inputs, "r": inputs["t"][::-1].copy()})
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, atol=1e-5)
    assert copy.trainable_variables


@pytest.mark.once
def test_networks_that_know_no_second_time_are_refused():
    x, t = keras.Input((2,), name="x"), keras.Input((), name="t")
    h = keras.layers.Concatenate()([x, keras.layers.Reshape((1,))(t)])
    own = keras.Model({"x": x, "t": t}, keras.layers.Dense(2)(h))
    with pytest.raises(ValueError, match="Give the student's network"):
        kf.distil(kf.SiTInterface(own), steps=1)
    two = with_second_time(kf.networks.MLP(2, 8, 1))
    again = with_second_time(two)
    np.testing.assert_array_equal(again.get_weights()[1], two.get_weights()[1])


# EDM's path is another; the student of either samples in one call.
@pytest.mark.parametrize("interface", [kf.SiTInterface, kf.EDMInterface])
def test_a_student_follows_the_flow_of_its_teacher(interface, capsys):
    """The teacher's moments in one call, and a table."""
    rng = np.random.default_rng(0)
    x = (0.5 * rng.standard_normal((2048, 2)) + [1.5, 0.0]).astype("float32")
    network = kf.networks.MLP(2, 32, 2, fourier_features=0)
    teacher = interface(network, ema=0.9, seed=0)
    teacher.compile(keras.optimizers.Adam(3e-3))
    teacher.fit(x, batch_size=128, epochs=12, verbose=0)
    student = kf.distil(
        teacher, x, steps=400, batch_size=128, learning_rate=3e-3, ema=0.9,
        metric=lambda s: abs(s.std() - x.std()), num_steps=(1, 2),
        num_samples=500, progress=False,
    )  # fmt: skip
    table = capsys.readouterr().out
    assert "| calls | 1 | 2 |" in table and "| student | " in table
    one = ops.convert_to_numpy(student.generate(2000, num_steps=1, seed=1))
    np.testing.assert_allclose(one.mean(0), [1.5, 0.0], atol=0.15)
    # The teacher's own deviation: its training is short.
    its = ops.convert_to_numpy(teacher.generate(2000, num_steps=32, seed=1))
    np.testing.assert_allclose(one.std(0), its.std(0), atol=0.12)
