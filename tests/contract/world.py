"""The names that calls use: small models, data, and what they gave before."""

import itertools
import pathlib

import keras
import numpy as np
from helpers import policies as small
from keras import ops

import keras_flows as kf
from keras_flows.datasets import robots

STEPS = 2


def filled(shape, dtype="float32", value=None):
    """An array of some rising numbers below 3, or of one value."""
    size = int(np.prod(shape))
    values = np.arange(size) % 3
    if dtype in ("float32", "float64", "float16"):
        values = values * 0.4 - 0.5
    if value is not None:
        values = np.full(size, value)
    return values.reshape(shape).astype(dtype)


def mlp(**options):
    return kf.networks.MLP(2, width=8, depth=1, **options)


def conv():
    """A network of images (4, 4, 3)."""
    return kf.networks.DiT(
        (4, 4, 3), patch_size=2, width=8, depth=1, num_heads=2
    )


def frozen(model):
    model.trainable = False
    return model


def compiled(model):
    """With a learning rate of 0: training leaves its samples as they are."""
    model.compile(keras.optimizers.SGD(0.0))
    return model


def trained(model):
    """Loss, and two samples: the use of a model."""
    rng = np.random.default_rng(0)
    shape = model.sample_shape
    x = rng.standard_normal((4, *shape)).astype("float32")
    data = ops.convert_to_tensor(x)
    if isinstance(model, kf.StochasticInterpolantInterface):
        loss = model.loss((data, data))
        return loss, model.generate(noise=x[:2], seed=0, num_steps=STEPS)
    return model.loss(data), model.generate(2, seed=0)


def called(network, count=3):
    """The output of one of our networks for rows of its inputs."""
    inputs = network.input
    single = not isinstance(inputs, dict)
    rows = keras.tree.map_structure(
        lambda leaf: ops.ones((count, *leaf.shape[1:]), leaf.dtype), inputs
    )
    if not single and "t" in inputs:
        rows["t"] = 0.5 * rows["t"]
    return network(rows)


def sampled(space, sampler, **options):
    """Samples of a sampler on the shared model."""
    return space["sit"].generate(2, sampler=sampler, seed=0, **options)


def batches(data, count=2):
    """The first batches of a dataset."""
    return [data[i] for i in range(count)]


def samples(model):
    """What a shared model gives, always the same."""
    if isinstance(model, kf.policies.Policy):
        history = filled((2, *small.windows()[0][1].shape[1:]))
        return model.predict_chunk(history, seed=0)
    condition = {"condition": [0, 1]} if model.null_label is not None else {}
    made = model.generate(2, seed=0, num_steps=STEPS, **condition)
    return ops.convert_to_numpy(made)


def _policy():
    policy = small.make_policy("flow")
    policy.adapt(small.windows())
    return compiled(policy)


# Shared models: no call may change what they give.
SHARED = {
    "sit": lambda: compiled(kf.SiTInterface(mlp(), ema=0.9, seed=0)),
    "labelled": lambda: compiled(
        kf.SiTInterface(mlp(num_classes=3), ema=0.9, seed=0)
    ),
    "flow_map": lambda: compiled(
        kf.FlowMapInterface(
            mlp(two_times=True), ema=None, seed=0, max_skipped_steps=1000
        )
    ),
    "policy": _policy,
}


def renew(space, name):
    """Make a shared model anew."""
    keras.utils.set_random_seed(0)
    space[name] = SHARED[name]()
    space["before"][name] = samples(space[name])


class Environment:
    """A point that actions push, seen as it is."""

    def reset(self, start):
        self.place = np.full(2, float(start), "float32")
        return self.place

    def step(self, action):
        self.place = self.place + 0.01 * np.asarray(action)[:2]
        return self.place.astype("float32"), 0.0, False

    def render(self, size):
        return np.zeros((size, size, 3), "uint8")

    def expert_action(self):
        return np.zeros(2, "float32")


class Records:
    """A source with labels."""

    name, classes = "records", 3

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return filled((2,)) + index


def keep(record, generator):
    """A transform that changes nothing."""
    return (record,)


def feature_extractor():
    inputs = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    return keras.Model(inputs, keras.layers.Dense(4)(pooled))


def classifier():
    inputs = keras.Input((2,))
    return keras.Model(inputs, keras.layers.Dense(3)(inputs))


def statistics():
    made = kf.metrics.GaussianStatistics(2)
    made.update(np.random.default_rng(0).standard_normal((20, 2)))
    return made


def rotations(shape):
    """Numbers of which no two vectors are parallel."""
    return np.random.default_rng(0).standard_normal(shape)


def points(rows=20, dim=2):
    return np.random.default_rng(0).standard_normal((rows, dim))


def images(rows=3, size=8):
    return filled((rows, size, size, 3))


def space():
    """A dict of all names that calls use."""
    made = {
        "np": np, "keras": keras, "ops": ops, "kf": kf, "robots": robots,
        "pathlib": pathlib, "itertools": itertools, "small": small,
        "before": {}, "turns": itertools.count(),
    }  # fmt: skip
    made |= {
        thing.__name__: thing
        for thing in (
            filled, mlp, conv, frozen, compiled, trained, called, batches,
            samples, Environment, Records, keep, feature_extractor,
            classifier, statistics, rotations, points,
            images,
        )
    }  # fmt: skip
    made["sampled"] = lambda sampler, **options: sampled(
        made, sampler, **options
    )
    for name in SHARED:
        renew(made, name)
    return made
