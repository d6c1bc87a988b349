"""The metric that fits the data, and its values by calls."""

import math

import numpy as np

import keras_flows as kf
from keras_flows.cli import pictures
from keras_flows.interfaces.distillation import random_condition

# Numbers of a sample above which pixels are projected, and to how many.
MOST = 1024


class Metric:
    """A function of samples, with its name and what real data score.

    Args:
        name: for the table.
        of: function of samples to a number.
        floor: of data that were held out.
    """

    def __init__(self, name, of, floor):
        self.name, self.of, self.floor = name, of, floor

    def __call__(self, samples):
        return float(self.of(samples))


def metric_of(data, kind, features, num_samples, seed):
    """The `Metric` of a `Data`.

    Half of the examples are the reference, and the other half says what real
    data score.

    Args:
        data: a `Data`, no episodes.
        kind: "kl", "frechet" or None for what fits.
        features: of the Frechet distance: "pixels", "inception", "dinov2".
        num_samples: at most so many examples.
        seed: which ones.
    """
    plane = data.kind == "points" and data.shape == (2,)
    kind = kind or ("kl" if plane else "frechet")
    if kind == "error" or (kind == "kl" and not plane):
        raise ValueError(f"--metric={kind} is not of {data.kind}.")
    if kind == "kl" and data.x is None:
        metric = kf.metrics.HistogramKL(data.source)
        return Metric("KL (nats)", metric, metric.floor(num_samples))
    examples = data.examples(2 * num_samples, seed)
    if len(examples) < 4:
        raise ValueError(f"{len(examples)} examples are too few to compare.")
    reference, held_out = examples[::2], examples[1::2]
    if kind == "kl":
        metric = _plane(reference)
        return Metric("KL (nats)", metric, metric(held_out))
    extractor, name = features, None
    if features == "pixels":
        extractor, name = pixels(math.prod(data.shape))
    metric = kf.metrics.FrechetDistance(extractor, reference, name)
    told = f"Frechet distance in {metric.name}"
    return Metric(told, metric, metric(held_out))


def _plane(reference):
    """KL of points in the plane to a reference, in its own coordinates."""
    mean, std = reference.mean(axis=0), reference.std(axis=0)
    rows = (reference - mean) / std
    metric = kf.metrics.HistogramKL(
        kf.datasets.Rows(rows),
        bins=int(np.clip(math.sqrt(len(rows) / 10), 8, 60)),
        extent=1.05 * float(np.abs(rows).max()),
        num_reference=10 * len(rows),
    )
    return lambda samples: metric((samples - mean) / std)


def pixels(size):
    """(features of a flat sample, their name)."""
    if size <= MOST:
        return lambda x: np.reshape(x, (len(x), -1)), "the samples' numbers"
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((size, MOST)) / math.sqrt(MOST)
    return (
        lambda x: np.reshape(x, (len(x), -1)) @ matrix,
        f"{MOST} random projections",
    )


def by_calls(
    model, metric, num_steps, scale, num_samples, batch_size, seed, **options
):
    """{"metric", "values", "num_samples", "floor"} as `results` reads them."""
    options |= random_condition(model, num_samples, seed)
    values = kf.metrics.by_calls(
        model,
        lambda samples: metric(pictures.unscaled(samples, scale)),
        num_steps,
        num_samples=num_samples,
        batch_size=batch_size,
        progress=True,
        seed=seed,
        **options,
    )
    return {
        "metric": metric.name,
        "values": values,
        "num_samples": num_samples,
        "floor": metric.floor,
        "floor_is": "data that were held out",
    }
