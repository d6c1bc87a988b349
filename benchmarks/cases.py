"""The networks, data and models that the suites measure."""

import functools

import keras
import numpy as np

import keras_flows as kf
from benchmarks import native

LATENT = (32, 32, 4)
CLASSES = 1000


class Fixed(keras.utils.PyDataset):
    """The same eight batches over and over, drawn before training."""

    def __init__(self, batches, steps):
        super().__init__()
        self.batches, self.steps = batches, steps

    @property
    def num_batches(self):
        return self.steps

    def __getitem__(self, index):
        return self.batches[index % len(self.batches)]


def points(batch_size, seed=0):
    """Eight batches (x,) of points of a plane."""
    rng = np.random.default_rng(seed)
    return [
        (rng.standard_normal((batch_size, 2), dtype="float32"),)
        for _ in range(8)
    ]


def latents(batch_size, seed=0):
    """Eight batches (x, labels) of latents of 32 x 32 x 4."""
    rng = np.random.default_rng(seed)
    shape = (batch_size, *LATENT)
    return [
        (
            rng.standard_normal(shape, dtype="float32"),
            rng.integers(0, CLASSES, batch_size).astype("int32"),
        )
        for _ in range(8)
    ]


# name: (network of two_times, eight batches of a size)
CASES = {
    "tiny": (
        functools.partial(kf.networks.MLP, 2, 64, 2), "mlp", points, 64,
    ),
    "mlp": (
        functools.partial(kf.networks.MLP, 2, 512, 4), "mlp", points, 2048,
    ),
    "dit": (
        functools.partial(
            kf.networks.DiT.from_size, "S/2", LATENT, num_classes=CLASSES
        ),
        "dit", latents, 8,
    ),
}  # fmt: skip


class Case:
    """One network, its data and what trains on it.

    Args:
        name: one of `CASES`.
        batch_size: None for the case's own.
        seed: int.
        options: of the network.
    """

    def __init__(self, name, batch_size=None, seed=0, **options):
        self.build, self.peer, data, size = CASES[name]
        self.options, self.seed = options, seed
        self.batches = data(batch_size or size, seed)

    def network(self, two_times=False):
        keras.utils.set_random_seed(self.seed)
        return self.build(two_times=two_times, **self.options)

    def model(self, cls=kf.SiTInterface, two_times=False, ema=None,
              steps_per_execution=1, **kwargs):  # fmt: skip
        """An interface of ours, compiled."""
        model = cls(self.network(two_times), ema=ema, seed=self.seed, **kwargs)
        compiled(model, steps_per_execution)
        return model

    def plain(self, steps_per_execution=1):
        """The same loss in a plain `keras.Model`."""
        model = Plain(self.network(), self.seed)
        compiled(model, steps_per_execution)
        return model

    def by_hand(self):
        """The hand-written step: a function of a batch to a loss."""
        network = self.network()
        return native.module("training").trainer(
            native.module(self.peer).loss,
            native.weights_of(network),
            native.trained(network),
            self.seed,
        )

    def fit(self, model, steps):
        """A function that trains for so many steps."""
        data = Fixed(self.batches, steps)
        return lambda: model.fit(data, verbose=0)

    def loop(self, step, steps):
        """The same of a hand-written step."""

        def run():
            for i in range(steps):
                loss = step(*self.batches[i % len(self.batches)])
            return float(loss)

        return run


def compiled(model, steps_per_execution):
    several = {}
    if steps_per_execution > 1:
        several["steps_per_execution"] = steps_per_execution
    model.compile(
        keras.optimizers.Adam(1e-3),
        jit_compile=keras.backend.backend() != "torch",
        **several,
    )


class Plain(keras.Model):
    """Flow matching as a `keras.Model` whose loss is what it is called for."""

    def __init__(self, network, seed):
        super().__init__()
        self.network = network
        self.draws = keras.random.SeedGenerator(seed)

    def call(self, data):
        noise = keras.random.normal(keras.ops.shape(data), seed=self.draws)
        t = keras.ops.sigmoid(
            keras.random.normal(keras.ops.shape(data)[:1], seed=self.draws)
        )
        time = keras.ops.reshape(t, (-1,) + (1,) * (len(data.shape) - 1))
        x = (1 - time) * data + time * noise
        return self.network({"x": x, "t": t}) - (noise - data)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None,
                     training=True):  # fmt: skip
        return keras.ops.mean(keras.ops.square(y_pred))
