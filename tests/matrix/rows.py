"""Every model of the library, with an exact network: one row each."""

import dataclasses
from collections.abc import Callable

import exact
import laws
import numpy as np
from exact import network
from keras import ops
from laws import PATHS

import keras_flows as kf

CONTINUOUS = (
    "linear1", "linear0", "trig1", "trig0", "vp", "vp_cosine", "ve",
    "trigflow",
)  # fmt: skip
# A map's derivatives along a path that is singular at its end, or has kinks,
# are not those of the papers: an objective may refuse it.
SMOOTH = ("linear1", "linear0", "trig1", "trig0", "vp", "vp_cosine", "trigflow")
OTHERS = ("linear1", "ve", "chain")
MAPS = (
    "ctm", "psd", "esd", "mf", "lmd", "emd", "ayf", "shortcut", "imm",
)  # fmt: skip
TAUGHT = ("lmd", "emd", "ayf")
POLICIES = ("regression", "straight_flow", "tsd", "mip")


@dataclasses.dataclass(frozen=True)
class Row:
    """A model and what the mathematics promises of it.

    Args:
        build: function (path, **law) to the model with the exact network;
            law has `labels` and `noise`, (n_mu, n_sigma), where they are asked
            for.
        kind: what the exact network is:

            - "flow": velocity, data or noise of E[. | x_t]; an ODE or SDE
              leads from noise to data;
            - "map": the flow map; N jumps;
            - "end": where the flow ends; one jump, or N with noise anew;
            - "step": DDIM steps between N levels;
            - "policy": actions, from one or two calls at given times;
            - "bridge": between two data sets.
        on: the paths that it must admit.
        others: further paths; on these it works as well, or raises a
            ValueError at construction that names `interpolant`.
        steps: numbers of steps that are tried at the default sampler.
        calls: function of the number of steps to that of network calls.
        fixed: whether the network is trained at certain times only.
        random: whether the default sampler draws noise with several steps.
        order: of the default sampler, where it solves an ODE.
    """

    build: Callable
    kind: str
    on: tuple
    steps: tuple = (1, 2, 4)
    calls: Callable = lambda n: n
    fixed: bool = False
    random: bool = False
    order: int = 1
    others: tuple = tuple(PATHS)


def path_of(name):
    return PATHS[name].make()


def _noise(noise):
    return {"n_mu": noise[0], "n_sigma": noise[1]}


PLAIN = (0.0, 1.0)


def sit(path, labels=False, noise=PLAIN, **options):
    return kf.SiTInterface(
        network(path, labels=labels, noise=noise, **options),
        interpolant=path_of(path), ema=None, seed=0, **_noise(noise),
    )  # fmt: skip


def edm(path, labels=False, noise=PLAIN, **options):
    return kf.EDMInterface(
        network(path, "mean", "edm", labels=labels, noise=noise, **options),
        interpolant=path_of(path), ema=None, seed=0, **_noise(noise),
    )  # fmt: skip


def discrete(prediction):
    def build(path, labels=False, **options):
        return kf.DiscreteInterface(
            network(path, "mean", prediction, labels=labels, **options),
            PATHS[path].path.schedule, prediction=prediction, ema=None, seed=0,
        )  # fmt: skip

    return build


def mean_flow(path, labels=False, noise=PLAIN, **options):
    return kf.MeanFlowInterface(
        network(path, "map", labels=labels, noise=noise, **options),
        interpolant=path_of(path), ema=None, seed=0, **_noise(noise),
    )  # fmt: skip


def frozen(model):
    model.trainable = False
    return model


def flow_map(objective):
    def build(path, labels=False, noise=PLAIN, **options):
        predicts, form = "map", "velocity"
        if objective == "flow":
            predicts = "mean"
        if objective in POLICIES:
            predicts, form = "mean", "data"
        teacher = {}
        if objective in TAUGHT:
            teacher["teacher"] = frozen(sit(path, labels, noise))
        return kf.FlowMapInterface(
            network(
                path, predicts, form, labels=labels, noise=noise, **options
            ),
            objective, interpolant=path_of(path), ema=None, seed=0,
            **_noise(noise), **teacher,
        )  # fmt: skip

    return build


def consistency(path, labels=False, noise=PLAIN, **options):
    return kf.ConsistencyInterface(
        network(path, "end", "boundary", labels=labels, noise=noise, **options),
        path_of(path), ema=None, seed=0, **_noise(noise),
    )  # fmt: skip


def sct(path, labels=False, noise=PLAIN, **options):
    return kf.SCTInterface(
        network(path, "end", "trig", labels=labels, noise=noise, **options),
        ema=None, seed=0, **_noise(noise),
    )  # fmt: skip


def scd(path, labels=False, noise=PLAIN, **options):
    return kf.SCDInterface(
        network(path, "end", "trig", labels=labels, noise=noise, **options),
        frozen(sit(path, labels, noise)), ema=None, seed=0, **_noise(noise),
    )  # fmt: skip


def bridge(gamma, **options):
    noise = None
    if gamma != "none":
        noise = network(gamma, "bridge_noise", **options)
    return kf.StochasticInterpolantInterface(
        network(gamma, "bridge_velocity", **options), noise,
        interpolant=kf.interpolants.StochasticInterpolant(gamma=gamma),
        ema=None, seed=0,
    )  # fmt: skip


# Students: the teacher's interface around a network of another prediction.


def around(teacher, net, path, noise=PLAIN):
    """An interface of the kind `teacher` with the network `net`."""
    if teacher == "edm":
        return kf.EDMInterface(
            net, interpolant=path_of(path), ema=None, seed=0, **_noise(noise)
        )
    if teacher == "discrete":
        return kf.DiscreteInterface(
            net, PATHS[path].path.schedule, ema=None, seed=0
        )
    return kf.SiTInterface(
        net, interpolant=path_of(path), ema=None, seed=0, **_noise(noise)
    )


FORM = {"edm": "edm", "discrete": "eps", "sit": "velocity"}


def progressive(teacher):
    def build(path, num_steps=1, labels=False, noise=PLAIN, grid=None):
        """The student on the grid that it is trained on, found by a loss."""
        form, law = FORM[teacher], {"labels": labels, "noise": noise}
        if teacher == "discrete":
            law.pop("noise")

        def model(predicts, **options):
            taught = around(
                teacher, network(path, "mean", form, **law), path, noise
            )
            student = around(
                teacher, network(path, predicts, form, **law, **options),
                path, noise,
            )  # fmt: skip
            return kf.ProgressiveInterface(
                frozen(taught), student, num_steps=(num_steps,)
            )

        if grid is None:
            probe = model("mean")
            times = trained_times(probe)
            away = PATHS[path].t_noise > PATHS[path].t_data
            times = np.sort(times)[:: -1 if away else 1]
            grid = [*times.tolist(), float(PATHS[path].t_last)]
        return model("step", grid=grid)

    return build


def dmd(method, teacher="sit"):
    def build(path, num_steps=1, labels=False, noise=PLAIN):
        law = {"labels": labels, "noise": noise}
        if teacher == "discrete":
            law.pop("noise")
        taught = around(
            teacher, network(path, "mean", FORM[teacher], **law), path, noise
        )
        student = around(
            teacher, network(path, "end", FORM[teacher], **law), path, noise
        )
        # The exact student is a map of the path; from another level than
        # pure noise a step starts at sigma n, which is no state of the path.
        return kf.DMDInterface(
            frozen(taught), student, method=method, num_steps=num_steps,
            start_level=1.0,
        )  # fmt: skip

    return build


def trained_times(model, rows=1024):
    """The different times at which the network is called in training."""
    calls = training_calls(model, rows)
    times = np.sort(np.concatenate([call.t for call in calls]))
    # Equal up to float32.
    scale = np.maximum(np.abs(times[1:]), 1e-3)
    return times[np.append(True, np.diff(times) > 1e-5 * scale)]


def training_calls(model, rows=1024):
    """Calls of the trained network in one loss of Gaussian data."""
    shape = trained_network(model).input["x"].shape[1:]
    rng = np.random.default_rng(1)
    x = rng.standard_normal((rows, *shape))
    x = np.array(laws.MEAN) + np.array(laws.STD) * x
    layer = exact.exact_layer(trained_network(model))
    x = ops.convert_to_tensor(x, dtype="float32")
    if isinstance(model, kf.StochasticInterpolantInterface):
        x = (x, ops.flip(x, axis=0))
    label = {}
    if "condition" in trained_network(model).input:
        label["condition"] = ops.zeros((rows,), dtype="int32")
    with exact.recording(host=False) as calls:
        model.loss(x, **label)
    return [call for call in calls if call.layer is layer]


def trained_network(model):
    return model.network


ROWS = {
    "sit": Row(sit, "flow", CONTINUOUS, (50, 150)),
    "edm": Row(edm, "flow", ("ve",), (18, 64), lambda n: 2 * n - 1, order=2),
    "discrete eps": Row(
        discrete("eps"), "flow", ("chain", "chain_cosine"), (250,),
        fixed=True, random=True,
    ),
    "discrete x0": Row(
        discrete("x0"), "flow", ("chain", "chain_cosine"), (250,),
        fixed=True, random=True,
    ),
    "discrete v": Row(
        discrete("v"), "flow", ("chain", "chain_cosine"), (250,),
        fixed=True, random=True,
    ),
    "flow": Row(flow_map("flow"), "flow", CONTINUOUS, (9, 150)),
    "mean_flow": Row(mean_flow, "map", SMOOTH),
    "lsd": Row(flow_map("lsd"), "map", SMOOTH),
    # Sampled as lsd is; what differs is what they admit.
    **{
        name: Row(flow_map(name), "map", ("linear0", "vp"), others=OTHERS)
        for name in MAPS
    },
    "consistency": Row(consistency, "end", CONTINUOUS, random=True),
    "sct": Row(sct, "end", ("trigflow",), random=True),
    "scd": Row(scd, "end", ("trigflow",), random=True),
    "progressive": Row(
        progressive("sit"), "step", CONTINUOUS, fixed=True
    ),
    "progressive edm": Row(progressive("edm"), "step", ("ve",), fixed=True),
    "progressive discrete": Row(
        progressive("discrete"), "step", ("chain", "chain_cosine"), fixed=True
    ),
    "dmd": Row(dmd("dmd"), "end", CONTINUOUS, fixed=True, random=True),
    "sid": Row(dmd("sid"), "end", CONTINUOUS, fixed=True, random=True),
    "dmd edm": Row(dmd("dmd", "edm"), "end", ("ve",), fixed=True, random=True),
    "dmd discrete": Row(
        dmd("dmd", "discrete"), "end", ("chain", "chain_cosine"),
        fixed=True, random=True,
    ),
    "regression": Row(
        flow_map("regression"), "policy", ("linear0",), (1,), fixed=True
    ),
    "straight_flow": Row(
        flow_map("straight_flow"), "policy", ("linear0",), (1,), fixed=True
    ),
    "tsd": Row(flow_map("tsd"), "policy", ("linear0",), (2,), fixed=True),
    "mip": Row(flow_map("mip"), "policy", ("linear0",), (2,), fixed=True),
    "bridge": Row(
        bridge, "bridge", ("brownian", "sine", "none"), (50, 150)
    ),
}  # fmt: skip

# Rows whose path is the model's own.
SETTLED = ("sct", "scd", "bridge", "discrete eps", "discrete x0", "discrete v",
           "progressive discrete", "dmd discrete")  # fmt: skip


def trained_for(row, steps):
    """The argument that says for how many steps a student is trained."""
    trained = row.fixed and row.kind in ("step", "end")
    return {"num_steps": steps} if trained else {}


def cells():
    """(row, path, whether the path must be admitted)."""
    for name, row in ROWS.items():
        for path in row.on:
            yield name, path, True
        if name not in SETTLED:
            for path in row.others:
                if path not in row.on:
                    yield name, path, False
