"""Each wrong value is refused by the name of the argument it came as.

Not by that of an inner layer, sampler or law, and not with an error that Keras
or NumPy raises further on.
"""

import keras
import numpy as np
import pytest

import keras_flows as kf

pytestmark = pytest.mark.once

X = np.zeros((3, 2), "float32")
WORDS = np.array(["a", "b", "c"])
CONFIG = {"class_name": "Unknown"}


def mlp(**options):
    return kf.networks.MLP(2, 8, 1, **options)


def conditioned():
    return kf.SiTInterface(mlp(condition_dim=2), ema=None)


def flow_map():
    return kf.FlowMapInterface(mlp(two_times=True), ema=None)


def policy(**options):
    network = kf.networks.ChunkMLP(2, 4, (2, 2), width=8, depth=1)
    return kf.policies.Policy(
        kf.SiTInterface(network, ema=None), act_steps=2, **options
    )


def compiled():
    model = kf.SiTInterface(mlp(), ema=None)
    model.compile("sgd")
    return model


def function(model, batch):
    """An objective, never called."""


def objective(**options):
    return kf.objectives.FunctionObjective(function, **options)


def trig_teacher(sigma_d):
    teacher = kf.Interface(mlp(), kf.interpolants.TrigFlow(sigma_d), ema=None)
    teacher.trainable = False
    return teacher


def fit(**options):
    return compiled().fit(X, verbose=0, **options)


def evaluate(**options):
    return compiled().evaluate(X, verbose=0, **options)


def images(x):
    """A function as an extractor."""
    raise ValueError(f"`images` must be numbers. Received: {x.dtype}.")


def adapt(data):
    return kf.networks.normalizers.MinMax().adapt(data)


REFUSED = {
    # Times to jump to, of a map and of a model that knows the end alone.
    "r: word": lambda: flow_map().jump(X, 0.5, "a word"),
    "r: words": lambda: flow_map().jump(X, 0.5, WORDS),
    "r: none": lambda: flow_map().jump(X, 0.5, None),
    "r: two": lambda: flow_map().jump(X, 0.5, [0.6, 0.7]),
    "t: words": lambda: flow_map().jump(X, WORDS, 0.7),
    "r: of sct": lambda: kf.SCTInterface(mlp()).jump(X, 0.5, "a word"),
    "r: nothing": lambda: kf.SCTInterface(mlp()).jump(X, 0.5, []),
    # Conditions and observations.
    "condition: word": lambda: conditioned().pred(X, 0.5, condition="word"),
    "condition: words": lambda: conditioned().pred(
        X, 0.5, condition=np.stack([WORDS, WORDS], -1)
    ),
    "condition: number": lambda: conditioned().pred(X, 0.5, condition=1j),
    "condition: empty": lambda: conditioned().generate(condition={}),
    "observation: words": lambda: policy().loss(
        np.zeros((3, 4, 2), "float32"), np.full((3, 2, 2), "a")
    ),
    "observation: complex": lambda: policy().encode(
        np.zeros((3, 2, 2), "complex64")
    ),
    "observation: word": lambda: policy().encode("a word"),
    "batch: word": lambda: kf.check_jvp(flow_map(), "a word"),
    "batch: words": lambda: kf.check_jvp(flow_map(), WORDS),
    "batch: number": lambda: kf.check_jvp(flow_map(), 2),
    # Functions as objectives.
    "predicts: nan": lambda: objective(predicts=float("nan")),
    "predicts: word": lambda: objective(predicts="a word"),
    "sampler: number": lambda: objective(sampler=2),
    "sampler: word": lambda: kf.SiTInterface(
        mlp(), objective=objective(sampler="a word")
    ),
    "terms: word": lambda: objective(terms="a word"),
    "terms: number": lambda: objective(terms=(1,)),
    # Of Keras's own methods.
    "batch_size: word": lambda: evaluate(batch_size="2"),
    "batch_size: zero": lambda: evaluate(batch_size=0),
    "steps: word": lambda: evaluate(steps="a"),
    "initial_epoch: word": lambda: fit(initial_epoch="2"),
    "shuffle: word": lambda: fit(shuffle="no"),
    "validation_split: word": lambda: fit(validation_split="2"),
    "validation_batch_size: word": lambda: fit(validation_batch_size="2"),
    # Data for statistics.
    "data: a row": lambda: adapt(np.zeros(3)),
    "data: nothing": lambda: adapt(np.zeros((0,))),
    "data: two widths": lambda: adapt([np.zeros((2, 3)), np.zeros((2, 2))]),
    "reference: complex": lambda: kf.metrics.FrechetDistance(
        images, np.zeros((4, 2), "complex64"), name="own"
    ),
    "fake: one": lambda: kf.metrics.kernel_distance(
        np.zeros((4, 2)), np.zeros((1, 2)), 2, 2
    ),
    # Inner layers of networks.
    "time_features: odd": lambda: kf.networks.ChunkMLP(
        2, 4, (2, 2), time_features=1
    ),
    "time_features: zero": lambda: kf.networks.PolicyRNN(
        2, 4, (2, 2), time_features=0
    ),
    "embedding_width: 6": lambda: kf.networks.TemporalUNet(
        2, 4, (2, 2), embedding_width=6
    ),
    "width: 6": lambda: kf.networks.PolicyTransformer(
        2, 4, (2, 2), width=6, num_heads=2
    ),
    "num_heads: 2": lambda: kf.networks.DDT((4, 4, 3), width=4, num_heads=2),
    "num_heads: 3": lambda: kf.networks.LightningDiT(
        (4, 4, 3), width=12, num_heads=2
    ),
    "channels: 2": lambda: kf.networks.DhariwalUNet((8, 8, 3), channels=2),
    "channels: 14": lambda: kf.networks.SongUNet((8, 8, 3), channels=14),
    "channels: 13": lambda: kf.networks.SongUNet((8, 8, 3), channels=13),
    # Configs of what they are not.
    "train_time_dist_type: config": lambda: kf.MeanFlowInterface(
        mlp(two_times=True), train_time_dist_type={"class_name": "Beta"}
    ),
    "r_law: config": lambda: kf.MeanFlowInterface(
        mlp(two_times=True), r_law={**CONFIG, "config": {}}
    ),
    "interpolant: config": lambda: kf.SiTInterface(mlp(), interpolant=CONFIG),
    "interpolant: inner": lambda: kf.SiTInterface(
        mlp(),
        interpolant={
            "class_name": "Linear", "module": "keras_flows",
            "registered_name": "keras_flows>Linear", "config": 3,
        },
    ),  # fmt: skip
    "ema: config": lambda: kf.SiTInterface(mlp(), ema=CONFIG),
    "action_normalizer: config": lambda: policy(action_normalizer=CONFIG),
    "sampler: config": lambda: kf.SiTInterface(mlp(), ema=None).generate(
        2, sampler=CONFIG
    ),
    "schedule: ellipsis": lambda: kf.interpolants.DiscreteVariancePreserving(
        Ellipsis
    ),
    # One argument for another.
    "source: class": lambda: kf.datasets.prepare_latents(int, None, "out"),
    "noise_network: one time": lambda: kf.StochasticInterpolantInterface(
        mlp(two_times=True), mlp()
    ),
    "x_sigma: other": lambda: kf.SCDInterface(
        mlp(), trig_teacher(0.5), x_sigma=0.7
    ),
    "teacher_sampler: none": lambda: kf.ConsistencyInterface(
        mlp(), teacher_sampler=np.array(None)
    ),
    "robots: unknown": lambda: kf.datasets.robots.poses(
        {"robot0_eef_pos": X, "robot0_eef_quat": X}, robots=["other"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argument = case.partition(":")[0]
    with pytest.raises(ValueError, match=rf"`{argument}`"):
        REFUSED[case]()


def test_times_without_features():
    """`time_features=0` gives the times themselves to a ChunkMLP."""
    network = kf.networks.ChunkMLP(2, 4, (2, 2), width=8, time_features=0)
    assert network.get_layer("features").output.shape[-1] == 8 + 2 + 4


def test_rows_may_come_one_by_one():
    normalizer = kf.networks.normalizers.MinMax()
    normalizer.adapt([[0.0, 1.0], [2.0, 5.0]])
    offset = keras.ops.convert_to_numpy(normalizer.offset)
    np.testing.assert_allclose(offset, [1.0, 3.0])
