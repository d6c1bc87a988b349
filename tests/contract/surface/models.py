"""Interfaces and policies: constructors and methods."""

import dataclasses

from contract.calls import Target
from contract.surface.kinds import AT_LEAST_1
from contract.surface.kinds import FLAG
from contract.surface.kinds import GENERATE
from contract.surface.kinds import INTERFACE
from contract.surface.kinds import LABELS
from contract.surface.kinds import NAME
from contract.surface.kinds import NETWORK
from contract.surface.kinds import OPTIONAL_PATH
from contract.surface.kinds import PATH
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

USE = "trained(made)"
TWO_TIMES = instance(
    "mlp(two_times=True)", also=("mlp()", "mlp(two_times=True, num_classes=3)")
)
TEACHER = instance(
    "frozen(kf.SiTInterface(mlp(), ema=None))",
    "frozen(kf.SiTInterface(mlp(), ema=0.9))",
    also=(
        "kf.SiTInterface(mlp())", "sit", "labelled", "mlp()",
        "frozen(kf.FlowMapInterface(mlp(two_times=True), 'lsd'))",
        "kf.SiTInterface",
    ),
)  # fmt: skip
STUDENT = instance(
    "None",
    "kf.SiTInterface(mlp(), ema=None)",
    also=("kf.EDMInterface(mlp())", "mlp()", "'sit'", "flow_map"),
)


def interface(name, network="mlp()", kind=NETWORK, use=USE, weight=2, **own):
    """A class of `Interface`, with its own arguments beside the common."""
    return Target(
        f"kf.{name}",
        {"network": (network, kind)},
        {**INTERFACE, **own},
        use,
        weight=weight,
    )


TRAIN_FROM = "frozen(kf.SiTInterface(mlp(), ema=None))"
CONSTRUCTORS = [
    interface("SiTInterface", interpolant=OPTIONAL_PATH, weight=3),
    interface(
        "EDMInterface",
        interpolant=OPTIONAL_PATH,
        t_shift_base=positive(most=10.0, none=True),
    ),
    interface(
        "FlowMapInterface",
        "mlp(two_times=True)",
        TWO_TIMES,
        weight=3,
        objective=choice(
            "lsd", "psd", "esd", "mf", "flow", "ctm", "shortcut", "mip",
            "tsd", "regression", "straight_flow", "imm",
            other=lambda value: callable(value) or isinstance(value, dict),
        ),
        diagonal_portion=SHARE,
        weighting=choice("rows", "batch"),
        interpolant=OPTIONAL_PATH,
        teacher=instance("None", also=("sit", "'sit'")),
        teacher_guidance_scale=real(),
    ),
    interface(
        "MeanFlowInterface",
        "mlp(two_times=True)",
        TWO_TIMES,
        weight=3,
        interpolant=OPTIONAL_PATH,
        guidance_scale=instance("1.0", "1", also=("2.0", "0.5")),
        guidance_mixture_ratio=real(0.0, 1.0),
        guidance_t_min=SHARE,
        guidance_t_max=SHARE,
        guidance_power=real(0.0, most=4.0),
        guidance_range=instance("None", also=("(1.0, 4.0)", "(4.0, 1.0)")),
        norm_eps=positive(most=1.0),
        norm_power=real(0.0, most=2.0),
        fm_portion=SHARE,
        objective=instance(
            "'mean_flow'",
            "kf.objectives.MeanFlow(tangent='predicted')",
            also=("'lsd'", "kf.objectives.MeanFlow", "'MeanFlow'"),
        ),
    ),
    interface(
        "ConsistencyInterface",
        schedule=choice("constant", "cm", "ict", "ect"),
        interpolant=OPTIONAL_PATH,
        total_steps=AT_LEAST_1,
        min_levels=integer(2, most=4),
        max_levels=integer(12, most=40),
        ect_stages=AT_LEAST_1,
        ect_factor=positive(most=4.0),
        target_decay=real(0.0, 1.0),
        teacher=instance("None", also=("sit", "'sit'")),
        teacher_guidance_scale=real(),
        teacher_sampler=instance("'ddim'", also=("'euler'", "'heun'")),
        teacher_steps=AT_LEAST_1,
    ),
    interface(
        "SCTInterface",
        warmup_steps=integer(0, most=100),
        objective=instance("None", also=("'lsd'",)),
    ),
    dataclasses.replace(
        interface(
            "SCDInterface",
            warmup_steps=integer(0, most=100),
            teacher_guidance_scale=real(),
        ),
        required={
            "network": ("mlp()", NETWORK),
            "teacher": (
                "frozen(kf.SiTInterface(mlp(), ema=None, "
                "interpolant='TrigFlow'))",
                instance(also=("sit", "'sit'", "flow_map")),
            ),
        },
    ),
    interface(
        "DiscreteInterface",
        schedule=choice(
            "linear", "cosine", other=lambda value: isinstance(value, tuple)
        ),
        num_timesteps=instance("None", "100", "1000", also=("2", "3", "1")),
        prediction=choice("eps", "x0", "v"),
        learn_sigma=FLAG,
        weighting=choice("simple", "min_snr"),
        min_snr_gamma=positive(),
        vlb_weight=real(0.0, most=1.0),
        time_scale=positive(most=1000.0),
        use="made.generate(2, seed=0, num_steps=2)",
    ),
    interface(
        "StochasticInterpolantInterface",
        noise_network=instance("None", "mlp()", also=("conv()", "sit")),
        interpolant=instance(
            "None", "kf.interpolants.StochasticInterpolant(gamma='sine')",
            also=("'StochasticInterpolant'", "'Linear'"),
        ),
    ),
    dataclasses.replace(
        interface("Interface", objective=choice("flow", "lsd", "regression")),
        required={
            "network": ("mlp()", NETWORK),
            "interpolant": ("kf.interpolants.Linear(0.0)", PATH),
        },
    ),
    Target(
        "kf.DMDInterface",
        {"teacher": (TRAIN_FROM, TEACHER)},
        {
            "student": STUDENT,
            "method": choice("dmd", "sid"),
            "num_steps": AT_LEAST_1,
            "fake_updates": AT_LEAST_1,
            "separate_fakes": FLAG,
            "alpha": real(most=2.0),
            "regression_weight": real(0.0, most=2.0),
            "discriminator": instance("None", also=("mlp()", "classifier()")),
            "adversarial_weight": real(0.0, most=2.0),
            "discriminator_weight": real(0.0, most=2.0),
            "time_range": pair(("(0.02, 0.98)", "(0.1, 0.9)"), 0.0, 1.0),
            "teacher_guidance_scale": instance("1.0", also=("2.0", "0.0")),
            "name": NAME,
        },
        "made.generate(2, seed=0)",
    ),
    Target(
        "kf.ProgressiveInterface",
        {"teacher": (TRAIN_FROM, TEACHER)},
        {
            "student": STUDENT,
            "num_steps": listed(
                ("(4, 2, 1)", "[2, 1]", "(1,)"),
                ("(0,)", "(2.5, 1)", "(1, 2)", "('a',)", "(4, -2)"),
                ("8", "(8, 3)"),
                unclear=("1", "2", "3", "np.int64(2)"),
            ),
            "steps_per_stage": AT_LEAST_1,
            "teacher_guidance_scale": instance("1.0", also=("2.0", "0.0")),
            "name": NAME,
        },
        USE,
    ),
    Target(
        "kf.ReparametrizedInterface",
        {
            "interface": (
                "kf.SiTInterface(mlp(), ema=None)",
                instance("kf.EDMInterface(mlp())", also=("sit", "mlp()")),
            ),
            "interpolant": ("kf.interpolants.Linear(0.0)", PATH),
        },
        {"name": NAME},
        "made.generate(2, seed=0, num_steps=2)",
    ),
    Target(
        "kf.REPAInterface",
        {
            "interface": (
                "kf.SiTInterface(conv(), ema=None)",
                instance(also=("sit", "conv()", "flow_map")),
            ),
            "feature_dim": ("6", AT_LEAST_1),
            "repa_depth": ("1", instance("1", also=("2", "3"))),
            "proj_dim": ("8", AT_LEAST_1),
        },
        {
            "repa_loss_weight": real(0.0, most=2.0),
            "encoder": instance("None", also=("conv()", "classifier()")),
            "layer": instance("None", also=("'no_such'", "1")),
            "name": NAME,
        },
        "made.generate(2, seed=0, num_steps=2)",
    ),
    Target("kf.EMA", {"decay": ("0.9", real(0.0, 1.0))}, {"name": NAME},
           "None"),
    Target("kf.EMA", {"std": ("0.05", real(0.0, 0.28))}, {"name": NAME},
           "None"),
    Target(
        "kf.policies.Policy",
        {
            "interface": (
                "small.make_policy('flow').interface",
                instance(also=("sit", "policy", "mlp()")),
            ),
            "encoder": (
                "small.make_policy('flow').encoder",
                instance(also=("None", "mlp()", "classifier()")),
            ),
            "act_steps": ("4", integer(1, 7, most=7)),
        },
        {
            "observation_normalizer": instance(
                words=("min_max", "mean_std", "quantile", "identity"),
                also=("{}", "{'a': 'min_max'}", "kf.networks.MinMax()"),
            ),
            "action_normalizer": instance(
                words=("min_max", "mean_std", "quantile", "identity"),
                also=("{}", "kf.networks.MinMax()", "kf.networks.MinMax"),
            ),
            "representation": instance(
                "'absolute'", also=("'relative'", "'delta'", "{}")
            ),
            "pose": instance(
                "None", also=("keep", "robots.poses", "lambda: 0")
            ),
            "action_low": listed(
                ("None", "-1.0", "[-1.0, -2.0]"),
                ("float('nan')", "['a', 'b']", "[1.0, 2.0, 3.0]", "'low'"),
                unclear=(
                    "0", "-1", "1", "2", "3", "0.5", "-0.5", "1.5", "2.0",
                    "1e-12", "1e30", "-1e30", "[1, 2]", "np.int64(2)",
                    "np.uint8(1)", "np.float32(0.5)", "np.float64(2.0)",
                    "np.array(0.5)", "np.array(2)", "-float('inf')",
                    "float('inf')", "True", "False", "np.bool_(True)",
                    "2**70", "-2**70", "ops.convert_to_tensor(0.5)",
                    "np.array([1])",
                ),
            ),
            "name": NAME,
        },
        "made.adapt(small.windows()) or "
        "made.predict_chunk(filled((2, 2, 2)), seed=0)",
        weight=3,
    ),
]  # fmt: skip

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
            "x": ("filled((4, 2))", ANY_X),
            "condition": ("[0, 1, 2, 0]", LABELS_4),
        },
        {"extras": EXTRAS, "training": FLAG},
        weight=2,
        aliases={"extras": "third element"},
    ),
    Target(
        "flow_map.loss",
        {"x": ("filled((4, 2))", ANY_X)},
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
        {"observation": ("filled((2, 2, 2))", array((2, 2, 2)))},
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
TARGETS = CONSTRUCTORS + METHODS
