"""Numbers and flags of every public constructor: in range, or an error.

The walk is over what the package makes public, so that a class that is added
is walked too: it must be made here, or be named among those that need more.
"""

import keras
import numpy as np
import pytest

import keras_flows as kf

pytestmark = pytest.mark.once
nets = kf.networks


def mlp(**options):
    return nets.MLP(2, 8, 1, **options)


def map_mlp():
    return mlp(two_times=True)


def sit(network=None):
    return kf.SiTInterface(network or mlp(), ema=None)


def teacher():
    model = sit()
    model.trainable = False
    return model


def edm_teacher():
    model = kf.EDMInterface(mlp(), ema=None)
    model.trainable = False
    return kf.ReparametrizedInterface(model, "trig_flow")


def policy():
    return kf.policies.Policy(
        kf.FlowMapInterface(chunk(), "flow", ema=None),
        observation_normalizer="identity",
        action_normalizer="identity",
    )


def chunk(horizon=16):
    return nets.ChunkMLP(2, horizon, (2, 3), width=8, depth=1)


def encoder():
    x = keras.Input((8, 8, 3))
    return keras.Model(x, keras.layers.Dense(4)(keras.layers.Flatten()(x)))


IMAGE = (16, 16, 3)
SMALL = {"width": 32, "num_heads": 2}
LINEAR = kf.interpolants.Linear()
DATA = np.random.default_rng(0).standard_normal((64, 2))
FEATURES = np.random.default_rng(0).standard_normal((32, 4))
PIXELS = (np.zeros((3, 12, 12, 3), "uint8"),)
# Arguments with which each is made; {} is for what has defaults alone.
MADE = {
    "ConsistencyInterface": lambda **k: kf.ConsistencyInterface(mlp(), **k),
    "DMDInterface": lambda **k: kf.DMDInterface(teacher(), **k),
    "DiscreteInterface": lambda **k: kf.DiscreteInterface(mlp(), **k),
    "EDMInterface": lambda **k: kf.EDMInterface(mlp(), **k),
    "FlowMapInterface": lambda **k: kf.FlowMapInterface(map_mlp(), **k),
    "Interface": lambda **k: kf.Interface(mlp(), LINEAR, **k),
    "MeanFlowInterface": lambda **k: kf.MeanFlowInterface(
        mlp(two_times=True, num_classes=3), **k
    ),
    "ProgressiveInterface": lambda **k: kf.ProgressiveInterface(teacher(), **k),
    "SCTInterface": lambda **k: kf.SCTInterface(mlp(), **k),
    "SiTInterface": lambda **k: kf.SiTInterface(mlp(), **k),
    "StochasticInterpolantInterface": lambda **k: (
        kf.StochasticInterpolantInterface(mlp(), **k)
    ),
    "MLP": lambda **k: nets.MLP(**{"dim": 2, **k}),
    "AutoencoderKL": lambda **k: nets.AutoencoderKL(
        (8, 8, 3), **{"block_out_channels": (32, 32), "layers_per_block": 1} | k
    ),
    "ChunkMLP": lambda **k: nets.ChunkMLP(
        **{"action_dim": 2, "horizon": 4, "condition_shape": (2, 3)}
        | {"width": 8, "depth": 1}
        | k
    ),
    "PolicyDiT": lambda **k: nets.PolicyDiT(
        **{"action_dim": 2, "horizon": 4, "condition_shape": (2, 3)}
        | {"width": 8, "depth": 1}
        | k
    ),
    "PolicyRNN": lambda **k: nets.PolicyRNN(
        **{"action_dim": 2, "horizon": 4, "condition_shape": (2, 3)}
        | {"width": 8, "depth": 1}
        | k
    ),
    "PolicyTransformer": lambda **k: nets.PolicyTransformer(
        **{"action_dim": 2, "horizon": 4, "condition_shape": (2, 3)}
        | {"width": 12, "depth": 1}
        | k
    ),
    "TemporalUNet": lambda **k: nets.TemporalUNet(
        **{"action_dim": 2, "horizon": 4, "condition_shape": (2, 3)}
        | {"width": 8, "width_mult": (1, 2)}
        | k
    ),
    "DiT": lambda **k: nets.DiT(IMAGE, **{**SMALL, "depth": 1} | k),
    "DDT": lambda **k: nets.DDT(
        IMAGE, **{**SMALL, "encoder_depth": 1, "decoder_depth": 1} | k
    ),
    "LightningDiT": lambda **k: nets.LightningDiT(
        IMAGE, **{**SMALL, "depth": 1, "patch_size": 4} | k
    ),
    "DhariwalUNet": lambda **k: nets.DhariwalUNet(
        IMAGE, **{"channels": 32, "channel_mult": (1,), "num_blocks": 1} | k
    ),
    "SongUNet": lambda **k: nets.SongUNet(
        IMAGE, **{"channels": 32, "channel_mult": (1,), "num_blocks": 1} | k
    ),
    "ImageEncoder": lambda **k: nets.ImageEncoder(
        {"image": (2, 32, 32, 3)}, **k
    ),
    "MLPEncoder": lambda **k: nets.MLPEncoder((2, 3), **{"width": 8} | k),
    "PerStepMLPEncoder": lambda **k: nets.PerStepMLPEncoder(
        (2, 3), **{"width": 8} | k
    ),
    "TimestepEmbedding": lambda **k: nets.TimestepEmbedding(**{"units": 8} | k),
    "HistogramKL": lambda **k: kf.metrics.HistogramKL(
        kf.datasets.Checkerboard(), **{"num_reference": 100} | k
    ),
    "GaussianStatistics": lambda **k: kf.metrics.GaussianStatistics(
        **{"dim": 3} | k
    ),
    "Boundary": lambda **k: kf.parametrization.Boundary(LINEAR, **k),
    "Karras": lambda **k: kf.parametrization.Karras(LINEAR, **k),
    "Hybrid": lambda **k: kf.objectives.Hybrid(**k),
    "Controller": lambda **k: kf.policies.Controller(policy(), **k),
    "Policy": lambda **k: kf.policies.Policy(
        kf.FlowMapInterface(chunk(), "flow", ema=None), **k
    ),
    "AlternatingOptimizer": lambda **k: kf.training.AlternatingOptimizer(
        "adam", **k
    ),
    "Progress": lambda **k: kf.training.Progress(**{"total_steps": 4} | k),
    "SampleGrid": lambda **k: kf.callbacks.SampleGrid("folder", 1, **k),
    "Batches": lambda **k: kf.datasets.Batches(
        list(DATA), **{"batch_size": 4, "transform": lambda r, g: (r,)} | k
    ),
    "Checkerboard": lambda **k: kf.datasets.Checkerboard(**k),
    "EMA": lambda **k: (
        kf.EMA(**{"decay": 0.9} | k) if "std" not in k else kf.EMA(**k)
    ),
    "FunctionObjective": lambda **k: kf.objectives.FunctionObjective(
        lambda model, batch: {}, **k
    ),
    "Trainable": lambda **k: kf.training.Trainable(mlp(), **k),
    # Functions.
    "wilson_interval": lambda **k: kf.policies.wilson_interval(
        **{"successes": 1, "trials": 2} | k
    ),
    "kernel_distance": lambda **k: kf.metrics.kernel_distance(
        FEATURES, FEATURES, **{"subset_size": 8} | k
    ),
    "precision_recall": lambda **k: kf.metrics.precision_recall(
        FEATURES, FEATURES, **k
    ),
    "image_grid": lambda **k: kf.callbacks.image_grid(*PIXELS, **k),
    "get_time_law": lambda **k: kf.interpolants.get_time_law("lognormal", **k),
    "FeatureExtractor": lambda **k: kf.metrics.FeatureExtractor(
        encoder(), "name", **{"size": 8, "resize": lambda x: x} | k, weights="w"
    ),
    "ClassifierFeatures": lambda **k: kf.metrics.ClassifierFeatures(
        encoder(), **k
    ),
    "describe_autoencoder": lambda **k: kf.datasets.describe_autoencoder(
        encoder(), name="name", **k
    ),
    "Endless": lambda **k: kf.datasets.Endless(DATA, **{"batch_size": 4} | k),
    "REPAInterface": lambda **k: kf.REPAInterface(
        sit(nets.DiT(IMAGE, width=32, depth=2, num_heads=2)),
        **{"repa_depth": 1, "feature_dim": 4, "proj_dim": 4} | k,
    ),
    "Holder": None,
    "evaluate": None,
    "log_likelihood": lambda **k: kf.samplers.log_likelihood(
        sit(), DATA[:2].astype("float32"), **k
    ),
    "center_crop": lambda **k: kf.datasets.center_crop(
        np.zeros((8, 8, 3), "uint8"), **{"size": 4} | k
    ),
    "generate": lambda **k: sit(mlp(num_classes=3)).generate(
        condition=[0, 1], num_steps=k.pop("num_steps", 1), **k
    ),
}
