"""What one backend saves the other two load: presets and .keras files.

Every network and every interface, from each backend to each. This file is
the test and, run as a script, the process of one backend:

    KERAS_BACKEND=torch python tests/presets/portability_test.py folder

For time the test takes every interface and a few networks, one of each way to
hold weights; PORTABILITY=all takes every network (2 minutes of CPU).
"""

import io
import json
import os
import pathlib
import subprocess
import sys
import zipfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py
import keras
import numpy as np
import pytest

import keras_flows as kf
from keras_flows.presets.initializers import skipped

ROOT = pathlib.Path(__file__).parents[2]
BACKENDS = ("jax", "tensorflow", "torch")
ROWS = 2
CHUNK = (3, 4, (2, 5))
RESNET = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [3],
    "stackwise_num_filters": [64],
    "stackwise_num_blocks": [1],
    "stackwise_num_strides": [1],
    "block_type": "basic_block",
}


def image_network(kind, **options):
    return getattr(kf.networks, kind)(
        (4, 4, 2), patch_size=2, width=8, num_heads=2, num_classes=3, **options
    )


def unet(kind):
    return getattr(kf.networks, kind)(
        (4, 4, 2), channels=8, num_blocks=1, channel_mult=(1,),
        attn_resolutions=(), num_classes=3,
    )  # fmt: skip


def mlp(**options):
    return kf.networks.MLP(2, 8, 1, **options)


def two_times():
    return mlp(two_times=True)


def teacher(interpolant=None):
    model = kf.FlowMapInterface(mlp(), "flow", interpolant=interpolant, ema=0.9)
    model.trainable = False
    return model


NETWORKS = {
    "MLP": lambda: mlp(num_classes=3, two_times=True),
    "DiT": lambda: image_network("DiT", depth=1, two_times=True),
    "LightningDiT": lambda: image_network("LightningDiT", depth=1),
    "DDT": lambda: image_network("DDT", encoder_depth=1, decoder_depth=1),
    "SongUNet": lambda: unet("SongUNet"),
    "DhariwalUNet": lambda: unet("DhariwalUNet"),
    "AutoencoderKL": lambda: kf.networks.AutoencoderKL(
        (4, 4, 3), 2, block_out_channels=(8,), layers_per_block=1,
        norm_groups=4,
    ),
    "ChunkMLP": lambda: kf.networks.ChunkMLP(*CHUNK, width=8, depth=1),
    "TemporalUNet": lambda: kf.networks.TemporalUNet(
        *CHUNK, width=8, width_mult=(1,), embedding_width=8, kernel_size=3
    ),
    "PolicyTransformer": lambda: kf.networks.PolicyTransformer(
        *CHUNK, width=8, depth=1, num_heads=2
    ),
    "PolicyDiT": lambda: kf.networks.PolicyDiT(
        *CHUNK, width=8, depth=1, num_heads=2
    ),
    "PolicyRNN": lambda: kf.networks.PolicyRNN(*CHUNK, width=8, depth=1),
    "IdentityEncoder": lambda: kf.networks.IdentityEncoder((2, 5)),
    "MLPEncoder": lambda: kf.networks.MLPEncoder((2, 5), 8, depth=1),
    "PerStepMLPEncoder": lambda: kf.networks.PerStepMLPEncoder(
        (2, 5), 8, depth=1
    ),
    "ImageEncoder": lambda: kf.networks.ImageEncoder(
        {"camera": (2, 8, 8, 3), "arm": (2, 5)}, 8, RESNET,
        crop_shape=(6, 6), keypoints=4,
    ),
}  # fmt: skip

INTERFACES = {
    "SiTInterface": lambda: kf.SiTInterface(
        mlp(num_classes=3), "beta", ema=[0.9, kf.EMA(std=0.1)], seed=3
    ),
    "EDMInterface": lambda: kf.EDMInterface(mlp(), x_sigma=0.7, ema=None),
    "MeanFlowInterface": lambda: kf.MeanFlowInterface(two_times(), ema=None),
    "FlowMapInterface": lambda: kf.FlowMapInterface(
        two_times(), "lmd", teacher=teacher(), ema=None
    ),
    "DiscreteInterface": lambda: kf.DiscreteInterface(mlp(), ema=None),
    "ConsistencyInterface": lambda: kf.interfaces.ConsistencyInterface(
        mlp(), ema=None
    ),
    "SCTInterface": lambda: kf.interfaces.SCTInterface(mlp(), ema=None),
    "SCDInterface": lambda: kf.interfaces.SCDInterface(
        mlp(), teacher(kf.interpolants.TrigFlow(0.5)), ema=None
    ),
    "DMDInterface": lambda: kf.interfaces.DMDInterface(teacher()),
    "ProgressiveInterface": lambda: kf.interfaces.ProgressiveInterface(
        teacher()
    ),
    "ReparametrizedInterface": lambda: kf.interfaces.ReparametrizedInterface(
        kf.SiTInterface(mlp(), ema=None), "trigonometric"
    ),
    "StochasticInterpolantInterface": lambda: (
        kf.StochasticInterpolantInterface(mlp(), mlp(name="noise"), ema=None)
    ),
    "REPAInterface": lambda: kf.REPAInterface(
        kf.SiTInterface(image_network("DiT", depth=1), ema=None),
        feature_dim=5, repa_depth=1, proj_dim=8,
    ),
    "Policy": lambda: kf.policies.Policy(
        kf.FlowMapInterface(
            kf.networks.ChunkMLP(*CHUNK, width=8, depth=1, two_times=False),
            "mip", ema=None,
        ),
        kf.networks.MLPEncoder((2, 7), 5, depth=1),
        act_steps=2, action_low=-1.0, action_high=[1.0, 2.0, 3.0],
    ),
}  # fmt: skip
EVERY = NETWORKS | INTERFACES
FEW = ("MLP", "DiT", "AutoencoderKL", "TemporalUNet", "PolicyRNN")
CASES = INTERFACES | {name: NETWORKS[name] for name in FEW}
if os.environ.get("PORTABILITY") == "all":
    CASES = EVERY
# No models of their own.
BASES = {"Generator", "Holder", "Interface"}


@pytest.mark.once
def test_every_class_has_a_case():
    """A new network or interface comes with a line above."""
    public = {
        name
        for module in (kf.networks, kf.interfaces, kf.policies)
        for name, cls in vars(module).items()
        if isinstance(cls, type) and issubclass(cls, keras.Model)
    }
    assert public - BASES == set(EVERY)


# The process of one backend.


def fill(model, seed):
    """Weights by NumPy, other ones from each backend."""
    rng = np.random.default_rng(seed)
    for v in model.variables:
        if keras.backend.is_float_dtype(v.dtype):
            fan = np.prod(v.shape[:-1]) if len(v.shape) > 1 else 4
            v.assign(rng.standard_normal(v.shape) / fan**0.5)


def example(spec, rng):
    """Inputs of the shapes of a model's symbolic ones."""

    def draw(leaf):
        shape = (ROWS, *leaf.shape[1:])
        if leaf.dtype == "int32":
            return np.ones(shape, "int32")
        return rng.random(shape, dtype="float32")

    if isinstance(spec, dict):
        # Backends go through a dict in orders of their own.
        return {key: draw(spec[key]) for key in sorted(spec)}
    return draw(spec)


def call_and_inputs(model):
    """(function of a model and inputs, inputs): what is to be the same."""
    rng = np.random.default_rng(7)
    if not hasattr(model, "interpolant"):
        return lambda model, x: model(x), example(model.input, rng)
    if isinstance(model, kf.policies.Policy):
        inputs = {
            "observation": rng.random((ROWS, 2, 7), dtype="float32"),
            "noise": rng.random((ROWS, 4, 3), dtype="float32"),
        }
        return lambda model, x: model.predict_chunk(**x), inputs
    path = model.interpolant
    t = 0.6 * min(path.t_noise, 5.0) + 0.4 * path.t_data
    inputs = {
        "x_t": rng.random((ROWS, *model.sample_shape), dtype="float32"),
        "t": np.full((ROWS,), t, "float32"),
    }
    if "condition" in model.network.input:
        inputs["condition"] = example(model.network.input["condition"], rng)
    if "velocity" in model.provides:
        return lambda model, x: model.pred(**x), inputs
    return lambda model, x: model.denoise(**x), inputs


def plain(config):
    """A config without what Keras adds for itself, counted names included.

    `trainable` is such a thing: set on an interface it reaches its averages,
    which have no trainable variables, on JAX and PyTorch only.
    """
    added = (
        "build_config",
        "compile_config",
        "name",
        "shared_object_id",
        "trainable",
    )
    if isinstance(config, dict):
        return {k: plain(v) for k, v in config.items() if k not in added}
    if isinstance(config, list):
        return [plain(value) for value in config]
    return config


def own_config(model):
    """What a preset's config.json would hold of a model."""
    return plain(json.loads(json.dumps(model.get_config())))


class Output:
    """The output of models of one class, on JAX compiled once."""

    def __init__(self, model):
        self.model = model
        self.call, self.inputs = call_and_inputs(model)
        self.compiled = None
        compiles = keras.backend.backend() == "jax"
        # A policy compiles by itself.
        if compiles and not isinstance(model, kf.policies.Policy):
            self.compiled = kf.ops.compiled(
                lambda x: self.call(model, x), model.variables
            )

    def __call__(self, model):
        if self.compiled is None:
            inputs = keras.tree.map_structure(
                keras.ops.convert_to_tensor, self.inputs
            )
            return keras.ops.convert_to_numpy(self.call(model, inputs))
        # Not the loaded model's own code: JAX would compile it anew for each.
        # Its class and config are the same, and the weights are its own.
        pairs = zip(self.model.variables, model.variables, strict=True)
        for own, other in pairs:
            own.assign(other)
        return keras.ops.convert_to_numpy(self.compiled(self.inputs))


def main(folder):
    backend = keras.backend.backend()
    here = folder / backend
    here.mkdir()
    outputs = {}
    for i, (name, build) in enumerate(CASES.items()):
        with skipped():
            model = build()
        fill(model, (i, BACKENDS.index(backend)))
        output = outputs[name] = Output(model)
        np.save(here / f"{name}.npy", output(model))
        model.save_to_preset(here / name)
        model.save(here / f"{name}.keras")
    print("saved", flush=True)
    # Until the others have saved theirs.
    sys.stdin.readline()
    for name, output in outputs.items():
        config = own_config(output.model)
        for source, kind in sources(backend):
            file = str(folder / source / name)
            if kind == "preset":
                model = kf.from_preset(file)
            elif name in INTERFACES:
                with skipped():
                    model = keras.saving.load_model(
                        f"{file}.keras", compile=False
                    )
            else:
                # Into the network above: to build them takes the most time.
                model.load_weights(f"{file}.keras")
            assert type(model) is type(output.model)
            assert own_config(model) == config, (name, source, kind)
            np.save(here / f"{source}_{name}_{kind}.npy", output(model))


def sources(backend):
    """(backend that saved, kind of file) of what a backend loads.

    Of one other backend the presets, of the other one Keras's own files: they
    hold the same, which the test compares.
    """
    i = BACKENDS.index(backend)
    return (BACKENDS[i - 1], "preset"), (BACKENDS[i - 2], "keras")


# The test.


def same_content(preset):
    """Assert that a preset and its .keras file are one model; its config."""

    def weights(file):
        found = {}

        def visit(name, item):
            if isinstance(item, h5py.Dataset):
                found[name] = item[()]

        with h5py.File(file) as content:
            content.visititems(visit)
        return found

    with zipfile.ZipFile(f"{preset}.keras") as file:
        config = json.loads(file.read("config.json"))
        whole = weights(io.BytesIO(file.read("model.weights.h5")))
    own = json.loads((preset / "config.json").read_text())
    assert plain(own) == plain(config)
    parts = weights(preset / "model.weights.h5")
    assert parts.keys() == whole.keys()
    for name, value in parts.items():
        np.testing.assert_array_equal(value, whole[name])
    return plain(own)


@pytest.mark.once
@pytest.mark.slow
def test_every_backend_loads_what_every_backend_saves(tmp_path):
    processes = {}
    try:
        for backend in BACKENDS:
            environment = {
                **os.environ,
                "KERAS_BACKEND": backend,
                "PYTHONPATH": str(ROOT),
            }
            with open(tmp_path / f"{backend}.log", "w") as log:
                processes[backend] = subprocess.Popen(
                    [sys.executable, __file__, str(tmp_path)],
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )

        def log(backend):
            return (tmp_path / f"{backend}.log").read_text()[-3000:]

        for backend, process in processes.items():
            lines = iter(process.stdout.readline, "")
            assert "saved\n" in lines, log(backend)
        for process in processes.values():
            process.stdin.write("go\n")
            process.stdin.flush()
        for backend, process in processes.items():
            process.communicate()
            assert process.returncode == 0, log(backend)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    worst = {}
    for name in CASES:
        configs = [
            same_content(tmp_path / backend / name) for backend in BACKENDS
        ]
        assert configs[0] == configs[1] == configs[2]
        saved = {b: np.load(tmp_path / b / f"{name}.npy") for b in BACKENDS}
        # Other weights give another output, so this can fail.
        if name != "IdentityEncoder":
            assert np.abs(saved["jax"] - saved["torch"]).max() > 1e-2, name
        for target in BACKENDS:
            for source, kind in sources(target):
                file = tmp_path / target / f"{source}_{name}_{kind}.npy"
                scale = max(1.0, np.abs(saved[source]).max())
                error = np.abs(np.load(file) - saved[source]).max() / scale
                worst[name, kind, source, target] = error
    assert len(worst) == len(CASES) * 6
    over = {key: error for key, error in worst.items() if not error <= 1e-5}
    assert not over
    print(f"largest difference {max(worst.values())}")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
