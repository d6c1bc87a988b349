"""Methods of interfaces and policies."""

import dataclasses

from contract.calls import Target
from contract.surface.kinds import AT_LEAST_1
from contract.surface.kinds import FLAG
from contract.surface.kinds import GENERATE
from contract.surface.kinds import LABELS
from contract.surface.kinds import PATH_TO_WRITE
from contract.surface.kinds import SAMPLER
from contract.surface.kinds import SEED
from contract.surface.kinds import SHARE
from contract.surface.kinds import STEPS
from contract.surface.kinds import instance
from contract.surface.kinds import pair
from contract.surface.kinds import positive
from contract.values import array
from contract.values import choice
from contract.values import integer
from contract.values import listed
from contract.values import real

X = array((4, 2))
TIMES = listed(
    (
        "0.5", "np.full(4, 0.5, 'float32')", "np.full(4, 0.5)",
        "np.float32(0.5)", "ops.full((4,), 0.5)", "[0.5] * 4",
    ),
    (
        "np.full(3, 0.5)", "np.full((4, 1), 0.5)", "np.full(4, np.nan)",
        "['a'] * 4", "[0.1, 0.2]",
    ),
    unclear=(
        "1", "0", "np.array(0.5)", "ops.convert_to_tensor(0.5)", "2", "3",
        "np.int64(2)", "np.uint8(1)", "True", "False", "np.bool_(True)",
        "1.5", "2.0", "1e-12", "np.float64(2.0)", "np.array(2)", "-1",
        "-0.5", "1e30", "-1e30", "np.array([1])",
    ),
)  # fmt: skip
ANY_X = dataclasses.replace(X, verdict=X.verdict)
EXTRAS = listed(
    ("None",),
    (
        "{'masks': np.ones((4, 2))}", "{'mask': np.ones((4, 7))}",
        "{'mask': 'a'}", "[1, 2]",
    ),
    ("{'mask': np.ones((4, 2), 'float32')}",),
    unclear=("{}",),
)  # fmt: skip


def fit(model, **own):
    labels = {"y": ("[0, 1, 2, 0]", LABELS_4)} if model == "labelled" else {}
    return Target(
        f"{model}.fit",
        {
            "x": ("filled((4, 2))", DATA),
            **labels,
            "batch_size": ("2", integer(1, none=True)),
            "verbose": ("0", None),
        },
        {
            "epochs": AT_LEAST_1,
            "shuffle": FLAG,
            "callbacks": instance("None", "[]", also=("()", "{}")),
            "steps_per_epoch": instance("None", "1", "2", also=("3", "4")),
            "sample_weight": listed(
                ("None",),
                ("np.ones(3)", "np.full(4, np.nan)", "'a word'"),
                ("np.ones(4)", "[1, 1, 1, 1]"),
            ),
            **own,
        },
        check=None,
        weight=2,
    )


# Data that is not finite skips its steps, which a warning and the logs tell.
DATA = dataclasses.replace(
    X,
    verdict=X.verdict
    | {
        "filled((4, 2), 'float32', np.nan)": "either",
        "filled((4, 2), 'float32', np.inf)": "either",
    },
)
# What is not finite gives a loss that is not, which a step skips.
FINITE = dataclasses.replace(
    X,
    values=tuple(
        text for text in X.values if not text.endswith(("np.nan)", "np.inf)"))
    ),
)
LABELS_4 = listed(
    ("np.array([0, 1, 2, 0])", "np.array([0, 1, 2, 0], 'int32')"),
    (
        "np.array([0, 1, 2, 7])", "np.array([-1, 1, 2, 0])",
        "np.array([0.5, 1, 2, 0])", "np.array(['a', 'b', 'c', 'd'])",
        "np.array([0, 1])", "np.zeros((4, 2), 'int32')",
        "np.array([0, 1, 2, np.nan])", "['a', 'b', 'c', 'd']",
    ),
    (
        "[0, 1, 2, 0]", "(0, 1, 2, 0)", "range(4)", "np.array([0, 1, 2, 3])",
        "np.eye(3)[[0, 1, 2, 0]]", "np.array([[0], [1], [2], [0]])",
        "np.array([0.0, 1.0, 2.0, 0.0])", "np.array([0, 1, 2, 0], 'uint8')",
        "np.array([True, False, True, True])",
    ),
)  # fmt: skip


def generate(model, **own):
    return Target(
        f"{model}.generate",
        {"num_samples": ("2", AT_LEAST_1)},
        {**GENERATE, **own},
        weight=4,
    )


# Without the batch axis it is that of a single robot.
HISTORY = dataclasses.replace(
    array((2, 2, 2)),
    values=tuple(
        text
        for text in array((2, 2, 2)).values
        if text != "filled((2, 2), 'float32')"
    ),
)
GUIDANCE = {
    "condition": LABELS,
    "negative_condition": LABELS,
    "guidance_scale": real(),
    "guidance_interval": pair(("None", "(0.1, 0.9)", "[0.0, 1.0]"), 0.0, 1.0),
    "guidance_channels": integer(1, 2, most=2, none=True),
    "guidance_model": instance("None", also=("labelled", "sit", "mlp()")),
}
METHODS = [
    generate("sit"),
    generate("flow_map"),
    dataclasses.replace(
        generate("labelled", **GUIDANCE),
        required={
            "condition": ("[0, 1]", LABELS),
            "guidance_scale": ("2.0", real()),
        },
        weight=6,
    ),
    *(
        Target(
            f"{model}.{method}",
            {"x_t": ("filled((4, 2))", ANY_X), "t": ("0.5", TIMES)},
            weight=2,
            check=(4, 2),
        )
        for model in ("sit", "flow_map")
        for method in ("pred", "score", "denoise")
    ),
    Target(
        "flow_map.jump",
        {
            "x_t": ("filled((4, 2))", ANY_X),
            "t": ("0.2", TIMES),
            "r": ("0.7", TIMES),
        },
        check=(4, 2),
        weight=2,
    ),
    Target(
        "labelled.pred",
        {
            "x_t": ("filled((4, 2))", ANY_X),
            "t": ("0.5", TIMES),
            "condition": ("[0, 1, 2, 0]", LABELS_4),
        },
        check=(4, 2),
        weight=2,
    ),
    Target(
        "labelled.loss",
        {
            "x": ("filled((4, 2))", FINITE),
            "condition": ("[0, 1, 2, 0]", LABELS_4),
        },
        {"extras": EXTRAS, "training": FLAG},
        weight=2,
        aliases={"extras": "third element"},
    ),
    Target(
        "flow_map.loss",
        {"x": ("filled((4, 2))", FINITE)},
        {"extras": EXTRAS, "training": FLAG},
        aliases={"extras": "third element"},
    ),
    fit("sit"),
    fit("labelled"),
    fit("flow_map"),
    Target(
        "labelled.evaluate",
        {
            "x": ("filled((4, 2))", DATA),
            "y": ("np.array([0, 1, 2, 0])", LABELS_4),
            "verbose": ("0", None),
        },
        {"batch_size": integer(1, none=True)},
        check=None,
    ),
    Target(
        "sit.sample_t", {"shape": ("(3,)", instance("(3,)", "(2, 2)"))},
        {"seed": SEED},
    ),
    Target(
        "sit.export",
        {"filepath": ("folder", None)},
        {
            "format": choice("tf_saved_model", "onnx"),
            "version": integer(0, none=True),
            "num_steps": STEPS,
            "sampler": SAMPLER,
            "guidance_scale": real(),
            "guidance_interval": GUIDANCE["guidance_interval"],
            "guidance_channels": GUIDANCE["guidance_channels"],
            "decoder": instance("None", also=("mlp()", "classifier()")),
            "output_range": pair(("None", "(0, 255)"), -1e9, 1e9),
            "use_ema": FLAG,
            "verbose": FLAG,
        },
        check=None,
        slow=True,
        weight=2,
    ),
    Target(
        "policy.predict_chunk",
        {"observation": ("filled((2, 2, 2))", HISTORY)},
        {
            "num_steps": STEPS,
            "start": choice("noise", "zero", none=True),
            "seed": SEED,
            "noise": dataclasses.replace(
                array((2, 8, 2)),
                verdict=array((2, 8, 2)).verdict | {"None": "good"},
            ),
            "sampler": SAMPLER,
            "use_ema": FLAG,
        },
        check=(2, 8, 2),
        weight=4,
    ),
    Target(
        "policy.reset",
        {},
        {
            "act_steps": integer(1, 7, none=True),
            "ensemble": real(most=3.0, none=True),
            "seed": SEED,
            "num_steps": STEPS,
            "start": choice("noise", "zero", none=True),
            "use_ema": FLAG,
        },
        "policy.select_action(filled((2,)))",
        weight=2,
    ),
    Target(
        "(policy.reset(seed=0) or policy.select_action)",
        {"observation": ("filled((2,))", array((2,)))},
    ),
    Target("policy.adapt", {
        "windows": (
            "small.windows()",
            instance(
                "small.windows()", "small.episodes()",
                also=("robots.Windows", "filled((4, 2))", "[{'a': 1}]"),
            ),
        )
    }, check=None),
    Target("policy.fit", {
        "x": ("small.windows()", instance("small.windows()", also=(
            "filled((4, 2))", "small.episodes()"))),
        "verbose": ("0", None),
    }, {"epochs": AT_LEAST_1}, check=None),
    Target("policy.loss", {
        "x": ("filled((4, 8, 2))", array((4, 8, 2))),
        "condition": ("filled((4, 2, 2))", array((4, 2, 2))),
    }, aliases={"x": "actions", "condition": "observation"}),
    Target(
        "kf.check_jvp",
        {
            "model": ("flow_map", instance("flow_map", also=("sit",))),
            "batch": ("filled((4, 2))", array((4, 2))),
        },
        {"tolerance": positive(most=0.5)},
        check=None,
    ),
    Target(
        "kf.samplers.log_likelihood",
        {
            "model": ("sit", instance("sit", also=("flow_map", "mlp()"))),
            "x": ("filled((4, 2))", ANY_X),
        },
        {
            "trace": choice("hutchinson", "exact"),
            "probes": AT_LEAST_1,
            "seed": SEED,
            "bits_per_dim": FLAG,
            "use_ema": FLAG,
            "sampler": instance("'dormand_prince'", also=("'euler'",)),
        },
    ),
    Target("policy.export", {"filepath": ("folder", None)}, {
        "format": choice("tf_saved_model", "onnx"),
        "version": integer(0, none=True),
        "num_steps": STEPS,
        "start": choice("noise", "zero", none=True),
        "use_ema": FLAG,
    }, check=None, slow=True),
    Target(
        "kf.policies.Controller",
        {"policy": ("policy", instance("policy", also=("sit",)))},
        {
            "act_steps": integer(1, 7, none=True),
            "ensemble": real(most=3.0, none=True),
            "seed": SEED,
            "num_steps": STEPS,
        },
        "made(filled((2,)))",
        weight=2,
    ),
    *(
        Target(
            f"kf.policies.{name}",
            {
                **first,
                "envs": (
                    "[Environment()]",
                    instance("[Environment()]", also=("Environment()",)),
                ),
                "starts": (
                    "[0, 1]",
                    listed(
                        ("[0]", "np.arange(2)", "[1, 2]"),
                        unclear=("np.array([1])",),
                    ),
                ),
                "max_steps": ("3", AT_LEAST_1),
            },
            {"progress": FLAG, **own},
            "made.summary()",
        )
        for name, first, own in (
            (
                "evaluate",
                {"policy": ("policy", instance("policy", also=("sit",)))},
                {
                    "seed": SEED,
                    "num_steps": STEPS,
                    "act_steps": integer(1, 7, none=True),
                },
            ),
            ("evaluate_expert", {}, {}),
        )
    ),
    Target(
        "kf.policies.record",
        {
            "policy": ("policy", instance("policy", also=("sit",))),
            "env": ("Environment()", instance("Environment()")),
            "start": ("0", instance("0", also=("1", "2", "3", "0.5"))),
            "path": ("folder + '/a.gif'", PATH_TO_WRITE),
            "max_steps": ("2", AT_LEAST_1),
        },
        {"fps": integer(1, 50, most=4), "size": integer(1, most=4),
         "seed": SEED},
        check=None,
    ),
    Target(
        "kf.policies.latency",
        {
            "predict": ("policy.predict_chunk",
                        instance("policy.predict_chunk")),
            "observation": ("filled((2, 2, 2))", array((2, 2, 2))),
            "repeats": ("2", AT_LEAST_1),
            "warmup": ("0", integer(0)),
        },
    ),
    Target(
        "kf.policies.wilson_interval",
        {
            "successes": ("2", integer(0, 3)),
            "trials": ("3", integer(3, most=4)),
        },
        {"z": real(0.0, most=5.0)},
    ),
    Target(
        "kf.policies.Rollout",
        {
            "starts": ("np.arange(2)", None),
            "success": ("np.array([True, False])", None),
            "steps": ("np.array([3, 9])", None),
        },
        {"clipped": SHARE},
        "made.summary()",
    ),
]  # fmt: skip
TARGETS = METHODS
