"""Interfaces and policies: their constructors."""

import dataclasses

from contract.calls import Target
from contract.surface.kinds import AT_LEAST_1
from contract.surface.kinds import FLAG
from contract.surface.kinds import INTERFACE
from contract.surface.kinds import NAME
from contract.surface.kinds import NETWORK
from contract.surface.kinds import OPTIONAL_PATH
from contract.surface.kinds import PATH
from contract.surface.kinds import SHARE
from contract.surface.kinds import instance
from contract.surface.kinds import pair
from contract.surface.kinds import positive
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
TARGETS = [
    interface("SiTInterface", interpolant=OPTIONAL_PATH, weight=3),
    interface(
        "EDMInterface",
        interpolant=instance(
            "None",
            "kf.interpolants.VarianceExploding()",
            also=("kf.interpolants.Linear(1.0)", "'Linear'"),
        ),
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
        norm_eps=real(0.0, most=1.0),
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
            stable_target=instance("False", also=("True",)),
            teacher_guidance_scale=instance("1.0", also=("2.0", "0.0")),
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
    dataclasses.replace(
        interface(
            "StochasticInterpolantInterface",
            interpolant=instance(
                "None",
                "kf.interpolants.StochasticInterpolant(gamma='sine')",
                also=("'StochasticInterpolant'", "'Linear'"),
            ),
        ),
        required={
            "network": ("mlp()", NETWORK),
            "noise_network": (
                "mlp()", instance("mlp()", also=("conv()", "sit"))
            ),
        },
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
        aliases={"interface": "layer", "repa_depth": "layer"},
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
        aliases={"encoder": "observation"},
    ),
]  # fmt: skip
