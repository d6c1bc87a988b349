"""Each bad input is an error that names the argument, before work is lost."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_flows as kf


def mlp(**kwargs):
    return kf.networks.MLP(2, 8, 1, **kwargs)


def flow_map(objective="lsd", **kwargs):
    model = kf.FlowMapInterface(
        mlp(two_times=True), objective, ema=None, seed=0, **kwargs
    )
    model.compile("sgd")
    return model


def labelled():
    model = kf.SiTInterface(mlp(num_classes=3), ema=None)
    model.compile("sgd")
    return model


class Nothing(keras.utils.PyDataset):
    """A dataset of no batches."""

    def __len__(self):
        return 0

    def __getitem__(self, index):
        raise IndexError(index)


X = np.zeros((4, 2), dtype="float32")
T = np.full((4,), 0.5, dtype="float32")


def tensor(x):
    return ops.convert_to_tensor(x)


CONSTRUCTORS = {
    "unknown objective": (
        lambda: kf.FlowMapInterface(mlp(two_times=True), "lds"),
        "`objective`.*lds.*lsd",
    ),
    "unknown option": (
        lambda: kf.objectives.get("lsd", stopgrad="full"),
        "'lsd' has no option 'stopgrad'.*stop_gradient",
    ),
    "unknown law": (
        lambda: kf.SiTInterface(mlp(), "gaussian"),
        "`train_time_dist_type`.*gaussian.*logitnormal",
    ),
    "unknown interpolant": (
        lambda: kf.SiTInterface(mlp(), interpolant="liner"),
        "`interpolant`.*liner.*Linear",
    ),
    "unknown norm": (lambda: flow_map(norm="l3"), "`norm`.*pseudo_huber.*l3"),
    "network without r": (
        lambda: kf.FlowMapInterface(mlp(), "lsd"),
        r"`network`.*\['r'\].*two_times",
    ),
    "mean flow without r": (
        lambda: kf.MeanFlowInterface(mlp()),
        r"`network`.*\['r'\]",
    ),
    "not a network": (
        lambda: kf.SiTInterface(lambda x: x),
        "`network` must be a keras.Model",
    ),
    "teacher missing": (lambda: flow_map("lmd"), "needs a `teacher`"),
    "teacher left over": (
        lambda: flow_map(
            "lsd", teacher=kf.FlowMapInterface(mlp(), "flow", ema=None)
        ),
        "uses no `teacher`",
    ),
    "teacher of another path": (
        lambda: flow_map("lmd", teacher=kf.SiTInterface(mlp(), ema=None)),
        "student's interpolant.*ReparametrizedInterface",
    ),
    "portion": (
        lambda: flow_map(diagonal_portion=1.5),
        "`diagonal_portion`.*1.5",
    ),
    "ema": (lambda: kf.SiTInterface(mlp(), ema=1.0), "`ema`.*1.0"),
    "noise_at": (lambda: kf.interpolants.Linear(0.5), "`noise_at`.*0.5"),
    "guidance without null label": (
        lambda: kf.MeanFlowInterface(
            mlp(two_times=True), guidance_scale=2.0, ema=None
        ),
        "null label",
    ),
}


@pytest.mark.parametrize("case", CONSTRUCTORS)
def test_constructors(case):
    make, message = CONSTRUCTORS[case]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        make()


CALLS = {
    "rank of t": (
        lambda: flow_map().pred(tensor(X), tensor(T[:, None])),
        r"`t` must be one time per example.*\(4, 1\)",
    ),
    "batch of t": (
        lambda: flow_map().pred(tensor(X), tensor(T[:3])),
        "`t` must hold one time for each of the 4",
    ),
    "batch of r": (
        lambda: flow_map().pred(tensor(X), tensor(T), tensor(T[:2])),
        "`r` must hold one time for each of the 4",
    ),
    "shape of x": (
        lambda: flow_map().pred(tensor(X[:, :1]), tensor(T)),
        r"`x_t` must have shape \(batch, 2\)",
    ),
    "r behind t": (
        lambda: flow_map().jump(X, T, T - 0.2),
        "`r` must not lie on the noise side of `t`",
    ),
    "condition missing": (
        lambda: labelled().pred(tensor(X), tensor(T)),
        "`condition` is missing",
    ),
    "condition left over": (
        lambda: flow_map().pred(tensor(X), tensor(T), condition=tensor(T)),
        "`condition` is left over",
    ),
    "batch of condition": (
        lambda: labelled().pred(
            tensor(X), tensor(T), condition=tensor(np.zeros(3, "int32"))
        ),
        "`condition` must hold one row for each of the 4",
    ),
    "integer data": (
        lambda: flow_map().loss(tensor(X.astype("int32"))),
        "`x` must be of dtype float32.*int32",
    ),
    "num_steps": (
        lambda: flow_map().generate(2, num_steps=0),
        "`num_steps` must be an int of at least 1.*0",
    ),
    "num_samples": (
        lambda: flow_map().generate(0),
        "`num_samples` must be an int of at least 1",
    ),
    "no count": (lambda: flow_map().generate(), "Pass `num_samples`"),
    "unknown sampler": (
        lambda: flow_map().generate(2, sampler="dpm"),
        "`sampler`.*dpm.*heun",
    ),
    "two-step with three": (
        lambda: kf.FlowMapInterface(mlp(), "mip", ema=None).generate(
            2, num_steps=3
        ),
        "`num_steps` of the two-step sampler must be 2",
    ),
    "generate without condition": (
        lambda: labelled().generate(2),
        "`condition` is missing",
    ),
    "guidance without condition": (
        lambda: flow_map().generate(2, guidance_scale=2.0),
        "`guidance_scale` needs a `condition`",
    ),
    "disagreeing counts": (
        lambda: labelled().generate(3, condition=[0, 1]),
        "disagree",
    ),
    "guidance interval": (
        lambda: labelled().generate(
            condition=[0], guidance_scale=2.0, guidance_interval=(0.8, 0.2)
        ),
        "`guidance_interval`",
    ),
    "fit integers": (
        lambda: flow_map().fit(X.astype("uint8")),
        "`x` must be of dtype float32.*uint8.*scale integers",
    ),
    "fit float64": (
        lambda: flow_map().fit(X.astype("float64")),
        "`x` must be of dtype float32.*float64",
    ),
    "fit empty": (lambda: flow_map().fit(X[:0]), "`x` is empty"),
    "fit empty generator": (
        lambda: flow_map().fit(
            (batch for batch in ()), steps_per_epoch=2, verbose=0
        ),
        "at least one batch",
    ),
    "fit empty dataset": (
        lambda: flow_map().fit(Nothing(), verbose=0),
        "`x` yielded no batch",
    ),
    "fit wrong shape": (
        lambda: flow_map().fit(np.zeros((4, 3), "float32")),
        r"`x` must have shape \(batch, 2\)",
    ),
    "fit without condition": (
        lambda: labelled().fit(X),
        "`condition` is missing",
    ),
    "fit with left-over condition": (
        lambda: flow_map().fit(X, T),
        "`condition` is left over",
    ),
    "preset": (lambda: kf.Interface.from_preset("no/such"), "No preset"),
    "stop_gradient": (
        lambda: kf.objectives.LSD(stop_gradient="half"),
        "`stop_gradient` must be one of",
    ),
}


@pytest.mark.parametrize("case", CALLS)
def test_calls(case):
    call, message = CALLS[case]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()


def test_compile_refuses_a_loss():
    model = flow_map()
    model.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match="its own loss"):
        model.fit(X, verbose=0)


def test_predict_says_what_to_use():
    with pytest.raises(NotImplementedError, match="generate"):
        flow_map().predict(X)


def test_subclassed_network_must_not_autocast():
    class Net(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = keras.layers.Dense(2)
            self.dense.build((None, 2))
            self.built = True

        def call(self, inputs):
            return self.dense(inputs["x"])

    with pytest.raises(ValueError, match="autocast=False"):
        kf.SiTInterface(Net(dtype="mixed_bfloat16"), ema=None)
    model = kf.SiTInterface(
        Net(dtype="mixed_bfloat16", autocast=False), ema=None
    )
    assert model.pred(tensor(X), tensor(T)).shape == (4, 2)


def test_silent_broadcast_is_an_error():
    with pytest.raises(ValueError, match=r"loss.*\(4,\).*weight.*\(4, 1\)"):
        kf.ops.check_same_shape(loss=T, weight=T[:, None])


@pytest.mark.once
def test_recipe_checks_its_folder_before_work(tmp_path):
    import os
    import pathlib
    import subprocess
    import sys

    (tmp_path / "file").write_text("")
    root = pathlib.Path(__file__).parent.parent
    result = subprocess.run(
        [
            sys.executable,
            "recipes/checkerboard.py",
            "--steps=1",
            f"--out={tmp_path}/file/out",
        ],  # fmt: skip
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    assert "cannot be written" in result.stderr
    assert "Epoch" not in result.stdout
