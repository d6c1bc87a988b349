"""Exports: every endpoint is the model's own function, whoever runs it."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers.close import close
from helpers.exports import CASES
from helpers.exports import bridge
from helpers.exports import digits
from helpers.exports import dmd
from helpers.exports import expected
from helpers.exports import given
from helpers.exports import guided_sit
from helpers.exports import latent_model
from helpers.exports import lsd
from helpers.exports import mean_flow
from helpers.exports import mip_policy
from keras import ops

import keras_flows as kf
from keras_flows.export import Served
from keras_flows.export import tensorflow_process

ROOT = pathlib.Path(__file__).parents[2]


def numpy(x):
    return ops.convert_to_numpy(x)


@pytest.fixture(scope="module", autouse=True)
def _one_tensorflow_process():
    """PyTorch's exports share a process: the start takes the most time."""
    with tensorflow_process():
        yield


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """case -> (model, settings, folder): SavedModels, exported once each."""
    pytest.importorskip("tensorflow")
    made = {}

    def export(case):
        if case not in made:
            model, settings = case()
            folder = tmp_path_factory.mktemp(case.__name__)
            model.export(folder, version=1, verbose=False, **settings)
            made[case] = model, settings, folder
        return made[case]

    return export


@pytest.mark.parametrize(
    "case",
    [*CASES, *(pytest.param(c, marks=pytest.mark.once) for c in (bridge, dmd))],
)
def test_saved_model(case, served):
    """serve, from_seed and velocity, of batches of 7 and 1, to 1e-5."""
    model, settings, folder = served(case)
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder / "1"))
    serve, from_seed = (
        loaded.signatures[name] for name in ("serve", "from_seed")
    )

    def run(signature, inputs):
        inputs = {k: tf.constant(v) for k, v in inputs.items()}
        (output,) = signature(**inputs).values()
        return output.numpy()

    inputs = given(model, 7)
    samples = expected(model, settings, inputs)
    atol = 1e-5 * max(1.0, np.abs(samples).max())
    assert np.abs(samples - samples[:1]).max() > 100 * atol
    np.testing.assert_allclose(run(serve, inputs), samples, atol=atol)
    one = {k: v[:1] for k, v in inputs.items()}
    np.testing.assert_allclose(run(serve, one), samples[:1], atol=atol)

    others = {k: v for k, v in inputs.items() if k != "noise"}
    size = {} if others else {"batch_size": np.int32(7)}
    drawn = [
        run(from_seed, {"seed": np.int64(seed), **others, **size})
        for seed in (5, 5, 6)
    ]
    assert drawn[0].shape == samples.shape
    np.testing.assert_array_equal(drawn[0], drawn[1])
    if case is not mip_policy:
        assert np.abs(drawn[0] - drawn[2]).max() > 100 * atol

    # Of a model that predicts no velocity there is none.
    assert ("velocity" in loaded.signatures) == ("velocity" in model.provides)
    if "velocity" not in model.provides:
        return
    velocity = loaded.signatures["velocity"]
    times = np.linspace(0.1, 0.9, 7, dtype="float32")
    rates = {"x": inputs["noise"], "t": times, **others}
    if "r" in model.network.input:
        rates["r"] = times[::-1].copy()
    network = model.inference_network()

    def rate(inputs):
        condition = inputs.get("condition")
        return model.pred(
            inputs["x"],
            inputs["t"],
            inputs.get("r"),
            condition=condition,
            network=network,
        )

    variables = [v for part in (model, network) for v in part.variables]
    u = kf.ops.compiled(rate, variables)(kf.ops.arguments(rates))
    close(run(velocity, rates), numpy(u), 5)


def test_jax_lowers_for_every_platform(served):
    """One file for CPU, CUDA and TPU."""
    if keras.backend.backend() != "jax":
        pytest.skip("TensorFlow's graphs know no platform")
    _, _, folder = served(mean_flow)
    graph = (folder / "1" / "saved_model.pb").read_bytes()
    assert graph.count(b"XlaCallModule") > 1
    for platform in (b"CPU", b"CUDA", b"TPU"):
        assert graph.count(platform) >= 2


PLAIN = """
import sys
sys.path.insert(0, 'tools')
from check_saved_model import NoKeras
sys.meta_path.insert(0, NoKeras())
import numpy as np
folder, kind = sys.argv[1:]
inputs = dict(np.load(f'{folder}/inputs.npz'))
if kind == 'onnx':
    import onnxruntime
    session = onnxruntime.InferenceSession(f'{folder}/1/model.onnx')
    run = lambda inputs: session.run(['samples'], inputs)[0]
else:
    import tensorflow as tf
    loaded = tf.saved_model.load(f'{folder}/1')
    serve = loaded.signatures['serving_default']
    run = lambda inputs: serve(
        **{k: tf.constant(v) for k, v in inputs.items()}
    )['samples'].numpy()
for size in (7, 1):
    np.save(
        f'{folder}/{size}.npy', run({k: v[:size] for k, v in inputs.items()})
    )
assert not [m for m in sys.modules if m.split('.')[0] == 'keras']
assert kind != 'onnx' or 'tensorflow' not in sys.modules
"""


@pytest.mark.once
@pytest.mark.parametrize("kind", ["tf_saved_model", "onnx"])
def test_runs_without_keras(kind, served, tmp_path):
    """A version of a served model in a process that cannot import Keras."""
    if kind == "tf_saved_model":
        model, settings, folder = served(guided_sit)
    else:
        pytest.importorskip("tf2onnx")
        pytest.importorskip("onnxruntime")
        model, settings = lsd()
        folder = tmp_path / "served"
        model.export(folder, kind, version=1, verbose=False, **settings)
    inputs = given(model, 7)
    np.savez(folder / "inputs.npz", **inputs)
    subprocess.run(
        [sys.executable, "-c", PLAIN, str(folder), kind],
        check=True,
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    samples = expected(model, settings, inputs)
    for size in (7, 1):
        found = np.load(folder / f"{size}.npy")
        close(found, samples[:size], 5)


@pytest.mark.once
def test_onnx_of_guided_attention(tmp_path):
    pytest.importorskip("tf2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    model, settings = digits()
    settings["guidance_scale"] = 1.5
    model.export(tmp_path / "served", "onnx", verbose=False, **settings)
    session = onnxruntime.InferenceSession(str(tmp_path / "served/model.onnx"))
    for size in (7, 1):
        inputs = given(model, size)
        asked = {i.name for i in session.get_inputs()}
        (found,) = session.run(
            None, {k: v for k, v in inputs.items() if k in asked}
        )
        samples = expected(model, settings, inputs)
        atol = 1e-5 * max(1.0, np.abs(samples).max())
        np.testing.assert_allclose(found, samples, atol=atol)


@pytest.mark.once
def test_onnx_with_the_decoder_of_latents(tmp_path):
    """Images come out of a model of latents."""
    pytest.importorskip("tf2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    model, vae = latent_model()
    model.export(
        tmp_path / "served",
        "onnx",
        num_steps=1,
        decoder=vae.decoder,
        output_range=(0, 1),
        verbose=False,
    )
    session = onnxruntime.InferenceSession(str(tmp_path / "served/model.onnx"))
    inputs = given(model, 7)
    (found,) = session.run(None, inputs)
    images = numpy(vae.decode(model.generate(num_steps=1, **inputs)))
    assert found.shape == (7, 8, 8, 3)
    assert np.abs(images).max() > 0.1
    np.testing.assert_allclose(
        found, np.clip(images, -1, 1) / 2 + 0.5, atol=1e-5
    )


@pytest.mark.once
def test_versions_and_signature(served, tmp_path):
    """path/<version>/saved_model.pb, and what signature.json tells."""
    tf = pytest.importorskip("tensorflow")
    model, _ = mean_flow()
    folder = tmp_path / "served"
    for version, steps in ((1, 1), (2, 1), (2, 2)):
        model.export(folder, version=version, num_steps=steps, verbose=False)
    assert sorted(p.name for p in folder.iterdir()) == ["1", "2"]
    record = json.loads((folder / "2" / "signature.json").read_text())
    files = {
        p.relative_to(folder / "2").as_posix()
        for p in (folder / "2").rglob("*")
        if p.is_file()
    }
    assert files == {*record["files"], "signature.json"}
    assert {"saved_model.pb", "variables/variables.index"} <= files
    for name, digest in record["files"].items():
        content = (folder / "2" / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
    assert record["settings"]["num_steps"] == 2
    assert record["settings"]["time_grid"] == [1.0, 0.5, 0.0]
    assert record["settings"]["sampler"].startswith("FlowMapJump")
    assert record["settings"]["guidance_scale"] == 1.0
    assert record["weights"] == "trained"
    assert record["versions"]["keras_flows"] == kf.__version__
    assert set(record["parity"]) == {"serve", "velocity", "from_seed"}
    assert max(record["parity"].values()) < record["tolerance"] == 1e-4
    # The file's own signatures are those of the record.
    loaded = tf.saved_model.load(str(folder / "2"))
    assert set(record["endpoints"]) == {"serve", "velocity", "from_seed"}
    for name, endpoint in record["endpoints"].items():
        _, specs = loaded.signatures[name].structured_input_signature
        found = {
            k: {"shape": s.shape.as_list(), "dtype": s.dtype.name}
            for k, s in specs.items()
        }
        assert found == endpoint["inputs"]
        found = {
            k: {"shape": s.shape.as_list(), "dtype": s.dtype.name}
            for k, s in loaded.signatures[name].structured_outputs.items()
        }
        assert set(found) == set(endpoint["outputs"])
    _, _, folder = served(guided_sit)
    record = json.loads((folder / "1" / "signature.json").read_text())
    assert record["settings"]["guidance_scale"] == 2.0
    assert record["settings"]["guidance_interval"] == [0.3, 0.8]
    assert record["weights"] == {"ema": {"decay": 0.9, "std": None}}
    assert record["null_label"] == 4


def rows_of_request(body, signature):
    """Tensors of a TensorFlow Serving request, by its REST documentation.

    {"instances": [{name: row}, ...]} or, of a signature with one input,
    [row, ...]; {"inputs": {name: tensor}} or the one tensor.
    """
    import tensorflow as tf

    _, specs = signature.structured_input_signature
    if "instances" in body:
        rows = body["instances"]
        if not isinstance(rows[0], dict):
            (name,) = specs
            rows = [{name: row} for row in rows]
        columns = {k: [row[k] for row in rows] for k in rows[0]}
    else:
        columns = body["inputs"]
        if not isinstance(columns, dict):
            (name,) = specs
            columns = {name: columns}
    assert set(columns) == set(specs)
    return {k: tf.constant(v, specs[k].dtype) for k, v in columns.items()}


@pytest.mark.once
def test_requests_of_tensorflow_serving(served):
    """The bodies that docs/serving.md shows fit the signatures."""
    model, settings, folder = served(guided_sit)
    import tensorflow as tf

    inputs = given(model, 3)
    samples = expected(model, settings, inputs)
    loaded = tf.saved_model.load(str(folder / "1"))
    bodies = (
        {
            "signature_name": "serve",
            "instances": [
                {"noise": noise.tolist(), "condition": int(label)}
                for noise, label in zip(inputs["noise"], inputs["condition"])
            ],
        },
        {"inputs": {k: v.tolist() for k, v in inputs.items()}},
    )
    for body in bodies:
        body = json.loads(json.dumps(body))
        name = body.get("signature_name", "serving_default")
        serve = loaded.signatures[name]
        found = serve(**rows_of_request(body, serve))["samples"]
        close(found.numpy(), samples, 5)
    body = {
        "signature_name": "from_seed",
        "inputs": {"seed": 7, "condition": [0, 3]},
    }
    from_seed = loaded.signatures["from_seed"]
    drawn = from_seed(**rows_of_request(body, from_seed))["samples"]
    assert drawn.shape == (2, 2)
    plain, _, folder = served(lsd)
    loaded = tf.saved_model.load(str(folder / "1"))
    noise = given(plain, 3)["noise"]
    for key in ("instances", "inputs"):
        serve = loaded.signatures["serve"]
        tensors = rows_of_request({key: noise.tolist()}, serve)
        np.testing.assert_array_equal(tensors["noise"].numpy(), noise)


@pytest.mark.once
def test_labels_that_the_network_does_not_have(served):
    """NaN in their rows (or the runtime's error), in any runtime."""
    model, _, folder = served(guided_sit)
    import tensorflow as tf

    highest = model.labels().highest
    signature = json.loads((folder / "1" / "signature.json").read_text())
    assert signature["highest_label"] == highest
    serve = tf.saved_model.load(str(folder / "1")).signatures["serve"]
    for bad in (-1, highest + 1):
        inputs = given(model, 3)
        inputs["condition"][1] = bad
        tensors = {k: tf.constant(v) for k, v in inputs.items()}
        try:
            samples = serve(**tensors)["samples"].numpy()
        except tf.errors.InvalidArgumentError:
            continue
        assert np.isnan(samples[1]).all()
        assert np.isfinite(samples[[0, 2]]).all()


@pytest.mark.once
def test_service_takes_the_newest_version(served):
    """The service runs an export as it is, and tells what it takes."""
    from keras_flows.serving import sources

    model, settings, folder = served(guided_sit)
    source = sources.from_export(folder)
    assert (source.noise, source.num_steps) == ((2,), 8)
    assert source.inputs == {"condition": ((), "int32")}
    assert source.fixed and source.null_label == 4
    inputs = given(model, 4)
    samples = expected(model, settings, inputs)
    close(source.run(inputs, 8, 2.0), samples, 5)


@pytest.mark.once
def test_guidance_outside_its_interval_costs_nothing():
    """One network call a step there, both predictions inside."""
    model, settings = guided_sit()
    sampler = kf.samplers.get("euler")
    rows = []
    net = model.net

    def counting(x, *args, **kwargs):
        rows.append(x.shape[0])
        return net(x, *args, **kwargs)

    model.net = counting
    plan = model.export_plan(Served(settings | {"sampler": sampler}))
    inputs = given(model, 3)
    plan.endpoints["serve"].function(
        {k: ops.convert_to_tensor(v) for k, v in inputs.items()}
    )
    # Times 1, 7/8, ..., 1/8; 0.75 to 0.375 lie inside (0.3, 0.8).
    assert rows == [3, 3, 6, 6, 6, 6, 3, 3]


@pytest.mark.once
def test_tool(tmp_path):
    """The command writes and measures a policy; ONNX, too, has its GELU."""
    pytest.importorskip("tf2onnx")
    pytest.importorskip("onnxruntime")
    mip_policy()[0].save_to_preset(tmp_path / "preset")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "keras_flows",
            "export",
            f"{tmp_path}/preset",
            f"--out={tmp_path}/served",
            "--version=4",
            f"--measure={tmp_path}/figures.json",
            "--rounds=1",
        ],
        check=True,
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
    )
    folder = tmp_path / "served" / "4"
    assert (folder / "saved_model.pb").is_file()
    (figures,) = json.loads((tmp_path / "figures.json").read_text()).values()
    assert set(figures["latency"]) == {"batch 1", "batch 64"}
    for latency in figures["latency"].values():
        assert set(latency) == {"predict_chunk", "tf_saved_model", "onnx"}
        assert all(found["milliseconds"] > 0 for found in latency.values())
    for found in figures["formats"].values():
        assert max(found["parity"].values()) < 1e-5


@pytest.mark.once
def test_a_difference_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow")
    model, _ = mean_flow()
    generate = model.generate
    monkeypatch.setattr(
        model, "generate", lambda **kwargs: generate(**kwargs) + 1e-3
    )
    with pytest.raises(RuntimeError, match="'serve' differs from `generate`"):
        model.export(tmp_path / "served")
    assert not list(tmp_path.iterdir())


@pytest.mark.once
def test_export_refuses_what_it_cannot_hold(tmp_path):
    model, _ = guided_sit()
    latent, vae = latent_model()
    target = tmp_path / "x"
    for match, arguments in (
        ("draws noise in every step", {"sampler": "euler_maruyama"}),
        ("num_steps", {"num_steps": 0}),
        ("`format`.*onnx", {"format": "pickle"}),
        ("`version`", {"version": -1}),
        ("`version`", {"version": True}),
        ("`guidance_interval`", {"guidance_interval": (0.8, 0.2)}),
        ("`output_range`", {"output_range": (1, 1)}),
        ("`decoder` must be a keras.Model", {"decoder": vae.decode}),
        ("`decoder` must take samples", {"decoder": vae.decoder}),
    ):
        with pytest.raises(ValueError, match=match):
            model.export(target, **arguments)
    with pytest.raises(ValueError, match="attribute `decoder`"):
        latent.export(target, decoder=vae)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("version", [None, 3])
def test_export_leaves_other_folders_alone(version, tmp_path):
    mine = tmp_path if version is None else tmp_path / str(version)
    mine.mkdir(exist_ok=True)
    (mine / "thesis.txt").write_text("keep")
    with pytest.raises(ValueError, match="is not an export"):
        mean_flow()[0].export(tmp_path, version=version)
    assert (mine / "thesis.txt").read_text() == "keep"
