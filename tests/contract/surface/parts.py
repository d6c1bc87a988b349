"""Interpolants, time laws, samplers, objectives and networks."""

import dataclasses
import inspect

from contract.calls import Target
from contract.surface.kinds import AT_LEAST_1
from contract.surface.kinds import CHOICES_OF
from contract.surface.kinds import DTYPE
from contract.surface.kinds import FLAG
from contract.surface.kinds import GRID
from contract.surface.kinds import NAME
from contract.surface.kinds import PATH
from contract.surface.kinds import SEED
from contract.surface.kinds import SHARE
from contract.surface.kinds import instance
from contract.surface.kinds import pair
from contract.surface.kinds import positive
from contract.values import array
from contract.values import choice
from contract.values import integer
from contract.values import listed
from contract.values import real

import keras_flows as kf

SHIFT = positive(most=8.0)
CLIP = positive(most=8.0, none=True)
ON_PATH = (
    "kf.SiTInterface(mlp(), interpolant=made, ema=None, seed=0)"
    ".generate(2, seed=0, num_steps=2)"
)
PATHS = [
    Target("kf.interpolants.Linear", {}, {
        "noise_at": listed(
            ("0.0", "1.0"), ("0.5", "1.5"),
            unclear=("0", "1", "True", "False", "np.uint8(1)",
                     "np.bool_(True)", "np.array([1])"),
        )}, ON_PATH),
    Target("kf.interpolants.Trigonometric", {}, {
        "noise_at": listed(
            ("0.0", "1.0"), ("0.5", "1.5"),
            unclear=("0", "1", "True", "False", "np.uint8(1)",
                     "np.bool_(True)", "np.array([1])"),
        )}, ON_PATH),
    Target("kf.interpolants.TrigFlow", {}, {"sigma_d": positive()}, ON_PATH),
    Target("kf.interpolants.VarianceExploding", {}, {
        "sigma_min": positive(most=10.0), "sigma_max": real(0.01, most=100.0),
    }, ON_PATH),
    Target("kf.interpolants.VariancePreserving", {}, {
        "schedule": choice("linear", "cosine"),
        "beta_min": positive(most=10.0), "beta_max": real(0.2, most=40.0),
        "s": positive(most=0.1),
    }, ON_PATH),
    Target("kf.interpolants.DiscreteVariancePreserving", {}, {
        "schedule": choice(
            "linear", "cosine",
            other=lambda value: isinstance(value, (tuple, list)),
        ),
        "num_timesteps": instance("None", "10", "1000", also=("1", "2", "3")),
    }, "kf.DiscreteInterface(mlp(), made.schedule, made.num_timesteps, "
       "ema=None).generate(2, seed=0, num_steps=2)"),
    Target("kf.interpolants.StochasticInterpolant", {}, {
        "base": choice("linear", "trigonometric"),
        "gamma": choice("brownian", "sine", "none"),
        "scale": positive(most=4.0),
        "eps": real(0.0, 0.2),
    }, "kf.StochasticInterpolantInterface(mlp(), None if made.gamma == 'none'"
       " else mlp(), interpolant=made, ema=None)"
       ".generate(noise=filled((2, 2)), num_steps=2)"),
    Target("kf.interpolants.get", {"identifier": ("'Linear'", PATH)},
           use=ON_PATH, aliases={"identifier": "interpolant"}),
]  # fmt: skip
DRAWN = "made(kf.interpolants.Linear(), (3,), 0)"
LAWS = [
    Target("kf.interpolants.Uniform", {},
           {"low": real(0.0, 0.9), "high": real(0.1, 1.0)}, DRAWN),
    Target("kf.interpolants.LogitNormal", {},
           {"mu": real(most=4.0), "sigma": positive(most=4.0)}, DRAWN),
    Target("kf.interpolants.LogNormal", {},
           {"mu": real(most=4.0), "sigma": positive(most=4.0)}, DRAWN),
    Target("kf.interpolants.Beta", {},
           {"a": positive(most=4.0), "b": positive(most=4.0)}, DRAWN),
    Target(
        "kf.interpolants.get_time_law",
        {"identifier": ("'lognormal'", choice(
            "uniform", "lognormal", "logitnormal", "beta"))},
        {"mu": real(most=4.0), "sigma": positive(most=4.0)}, DRAWN,
        aliases={"identifier": "train_time_dist_type"},
    ),
]  # fmt: skip


def sampler(name, model="sit", steps=2, wanting=(), **own):
    return Target(
        f"kf.samplers.{name}", {}, own,
        f"{model}.generate(2, sampler=made, seed=0, num_steps={steps})",
        check=(2, 2), weight=2, wanting=wanting,
    )  # fmt: skip


ORDER = integer(1, 3, most=3)
ON_GRID = {"grid": GRID, "shift": SHIFT}
EDM_MODEL = "kf.EDMInterface(mlp(), ema=None, seed=0)"
SAMPLERS = [
    sampler("Euler", **ON_GRID),
    sampler("Heun", **ON_GRID),
    sampler("EulerMaruyama", **ON_GRID, diffusion=choice("sigma", "constant",
            other=callable), scale=real(0.0, most=2.0)),
    sampler("DDIM", **ON_GRID, eta=SHARE, clip=CLIP),
    sampler("DDPM", **ON_GRID, clip=CLIP, variance=choice(
        "small", "large", none=True)),
    sampler("DPMSolver", **ON_GRID, order=ORDER),
    sampler("DPMSolverPP", **ON_GRID, order=ORDER, clip=CLIP,
            tau=real(0.0, most=2.0), curvature=real(most=2.0)),
    sampler("UniPC", **ON_GRID, order=ORDER, variant=choice("bh1", "bh2"),
            corrector=FLAG),
    sampler("SASolver", **ON_GRID, predictor_order=integer(1, 4),
            corrector_order=integer(0, 4), tau=real(0.0, most=2.0),
            interval=pair(("None", "(0.1, 0.9)"), 0.0, 1.0),
            by=choice("level", "ratio")),
    sampler("DormandPrince", rtol=real(1e-6, most=0.1),
            atol=real(1e-6, most=0.1)),
    sampler("EDM", EDM_MODEL, s_churn=real(0.0, most=80.0),
            s_min=real(0.0, most=1.0), s_max=real(1.0, most=80.0, none=True),
            s_noise=real(0.0, most=2.0), order=integer(1, 2, most=2),
            shift=SHIFT),
    sampler("FlowMapJump", "flow_map", shift=SHIFT, renoise=SHARE),
    sampler("OneStep",
            "kf.FlowMapInterface(mlp(), 'regression', ema=None)", 1),
    sampler("TwoStep", "kf.FlowMapInterface(mlp(), 'mip', ema=None)",
            # Those of the model that is sampled are right, no others.
            wanting=("sampler",),
            t_fix=real(0.0, 1.0), form=CHOICES_OF["form"]),
    Target("kf.samplers.get", {"identifier": ("'euler'", choice(
        "euler", "heun", "ddim", "dpm_solver++", "unipc",
        other=lambda value: isinstance(value, (dict, type))))},
        use="sit.generate(2, sampler=made, num_steps=2)",
        aliases={"identifier": "sampler"}),
]  # fmt: skip


def objective(name, network="mlp(two_times=True)", **own):
    return Target(
        f"kf.objectives.{name}", {}, own,
        f"kf.FlowMapInterface({network}, made, ema=None, seed=0)"
        ".loss(ops.convert_to_tensor(filled((4, 2))))",
    )  # fmt: skip


def stopped(*names):
    return choice(*names)


DERIVATIVE = CHOICES_OF["derivative"]
OBJECTIVES = [
    objective("LSD", stop_gradient=stopped("convex", "none"),
              derivative=DERIVATIVE),
    objective("ESD", stop_gradient=stopped("convex", "full", "none"),
              derivative=DERIVATIVE),
    objective("MF", stop_gradient=stopped("full", "target", "none"),
              derivative=DERIVATIVE),
    objective("PSD", midpoint=FLAG, stop_gradient=stopped("convex", "none")),
    objective("CTM", dt=real(0.0, 0.5)),
    objective("Shortcut", finest=integer(1, most=8)),
    objective("IMM", particles=integer(2, most=4), power=AT_LEAST_1,
              bias=real(most=8.0), alpha_power=integer(0),
              max_ratio=positive(most=200.0)),
    objective("MIP", "mlp()", t_fix=real(0.0, 1.0), form=CHOICES_OF["form"]),
    objective("TSD", "mlp()", t_fix=real(0.0, 1.0), form=CHOICES_OF["form"]),
    Target("kf.objectives.MeanFlow", {}, {
        "tangent": choice("sampled", "predicted"), "derivative": DERIVATIVE,
    }, "kf.MeanFlowInterface(mlp(two_times=True), objective=made, ema=None)"
       ".loss(ops.convert_to_tensor(filled((4, 2))))"),
    Target("kf.objectives.TrigConsistency", {}, {
        "tangent_norm": positive(most=1.0), "derivative": DERIVATIVE,
    }, "kf.SCTInterface(mlp(), objective=made, ema=None)"
       ".loss(ops.convert_to_tensor(filled((4, 2))))"),
    Target("kf.objectives.AYF", {}, {
        "tangent_norm": positive(most=1.0), "derivative": DERIVATIVE}),
    *(
        Target(f"kf.objectives.{name}", {}, {
            "stop_gradient": choice(*names), "derivative": DERIVATIVE})
        for name, names in (
            ("LMD", ("convex", "none")), ("EMD", ("convex", "full", "none")))
    ),
    Target("kf.objectives.Hybrid", {}, {"vlb_weight": real(0.0, most=1.0)}),
    Target("kf.objectives.Progressive", {}, {
        "num_steps": listed(
            ("(4, 2, 1)", "(1,)"),
            ("(0,)", "(2.5, 1)", "(1, 2)", "('a',)", "(4, -2)"),
            ("[2, 1]", "(8, 3)"), unclear=("1", "2", "3", "np.array([1])")),
        "steps_per_stage": AT_LEAST_1}),
    Target("kf.objectives.Consistency", {}, {
        "schedule": choice("constant", "cm", "ict", "ect"),
        "min_levels": integer(2, most=4), "max_levels": integer(12, most=40),
        "ect_stages": AT_LEAST_1, "ect_factor": positive(most=4.0)}),
    Target("kf.objectives.DistributionMatching", {}, {
        "method": choice("dmd", "sid"), "alpha": real(most=2.0),
        "regression_weight": real(0.0, most=2.0),
        "adversarial_weight": real(0.0, most=2.0),
        "discriminator_weight": real(0.0, most=2.0),
        "level_range": pair(("(0.02, 0.98)",), 0.0, 1.0),
        "fake_updates": AT_LEAST_1}),
    Target("kf.objectives.FunctionObjective", {
        "fn": ("keep", instance("keep", also=("lambda: 0", "int")))}, {
        "terms": listed(("()", "('a',)"), ("(1,)",), ("[]",),
                        unclear=("[]", "['a', 'b']", "'a word'", "''")),
        "needs_r": FLAG, "predicts": choice("velocity", "data", "noise", "v"),
        "sampler": choice("euler", "heun"), "num_steps": AT_LEAST_1}),
    Target("kf.objectives.get", {"identifier": ("'lsd'", choice(
        "lsd", "psd", "flow", "mip",
        other=lambda value: callable(value) or isinstance(value, dict)))},
        {"stop_gradient": choice("convex", "none")},
        aliases={"identifier": "objective"}),
]  # fmt: skip

USE = "called(made)"
HEADS = instance("1", "2", "4", also=("3", "8"))
WIDTH = instance("4", "8", "12", also=("3", "7", "1", "2", "16"))
NONE_OR_1 = integer(1, none=True)
IMAGE = listed(
    ("(4, 4, 3)", "(8, 8, 1)", "[4, 4, 2]"),
    (
        "(4, 4)", "(0, 4, 3)", "(4, 4, -3)", "(4.5, 4, 3)", "('a', 4, 3)",
        "(4, 4, 3, 1)", "(float('nan'), 4, 3)",
    ),
    ("(5, 5, 3)", "(4, 8, 3)", "(None, None, 3)", "(4.0, 4.0, 3.0)"),
)  # fmt: skip
DROPOUT = real(0.0, 1.0)
COMMON = {"two_times": FLAG, "dtype": DTYPE, "name": NAME}


def counts(value):
    """The verdict on a number of classes, or a dict of them."""
    if isinstance(value, dict):
        good = value in ({"a": 1}, {"a": 2}, {"b": 2, "a": 1})
        return "good" if good else "bad"
    return NONE_OR_1.verdict(value)


COUNTS = dataclasses.replace(
    NONE_OR_1,
    verdict=counts,
    values=("{'a': 2}", "{'b': 2, 'a': 1}", "{'a': 0}", "{2: 3}"),
)
PICTURES = {**COMMON, "num_classes": COUNTS}
TRANSFORMER = {
    "patch_size": instance("1", "2", "4", also=("3",)),
    "width": WIDTH, "num_heads": HEADS, "mlp_ratio": positive(most=4.0),
    "remat": FLAG, **PICTURES,
}  # fmt: skip


def network(name, required, optional):
    """A network, with small sizes where none is drawn."""
    known = inspect.signature(getattr(kf.networks, name)).parameters
    return Target(
        f"kf.networks.{name}",
        {key: (text, optional[key]) for key, text in required.items()},
        {
            key: kind
            for key, kind in optional.items()
            if key in known and key not in required
        },
        USE,
    )


U_NET = {
    "image_shape": "(8, 8, 3)", "channels": "8", "channel_mult": "(1, 2)",
    "num_blocks": "1", "attn_resolutions": "(4,)",
}  # fmt: skip
U_NET_KINDS = {
    **PICTURES,
    "image_shape": IMAGE, "channels": WIDTH, "num_blocks": integer(1, most=2),
    "channel_mult": listed(
        ("(1, 2)", "(1,)", "[1, 1]"), ("(0,)", "(-1, 2)", "('a',)"),
        ("(1.5, 2)",), unclear=("[1, 2]",)),
    "attn_resolutions": listed(
        ("()", "(4,)", "[8]"), ("('a',)",), ("(3,)", "(-1,)"),
        unclear=("[]", "()", "[1, 2]", "{}")),
    "dropout": DROPOUT,
}  # fmt: skip
CHUNK = {"action_dim": "2", "horizon": "4", "condition_shape": "(2, 3)"}
CHUNK_KINDS = {
    **COMMON,
    "action_dim": AT_LEAST_1, "horizon": integer(1, most=8),
    "condition_shape": listed(
        ("(2, 3)", "(3,)", "[2, 3]"),
        ("(0, 3)", "(-1,)", "('a',)", "(2.5,)"), ("(2, 2, 2)",),
        unclear=("[1, 2]",)),
    "width": WIDTH, "depth": integer(1, most=2), "num_heads": HEADS,
    "dropout": DROPOUT,
}  # fmt: skip
SHAPES = listed(
    ("(2, 3)", "{'a': (2, 3), 'b': (2, 1)}"),
    ("(0, 3)", "{'a': 1}", "{'a': (0, 2)}", "(-2, 3)", "('a', 2)", "()"),
    ("(3,)", "[2, 3]", "{'a': (2, 4, 4, 3)}", "(2, 3, 1)"),
    unclear=("[1, 2]",),
)  # fmt: skip
NETWORKS = [
    network("MLP", {"dim": "2", "width": "8", "depth": "1"}, {
        **COMMON,
        "dim": listed(
            ("2", "(3,)", "(4, 2)", "np.int64(2)"),
            ("(0,)", "(-1, 2)", "(2.5,)", "('a',)"),
            unclear=("1", "3", "True", "np.uint8(1)", "[1, 2]",
                     "np.array([1])", "np.array(2)", "2.0", "np.float64(2.0)",
                     "np.bool_(True)"),
        ),
        "width": WIDTH, "depth": integer(1),
        "activation": choice("silu", "relu", "gelu", "tanh", none=True,
                             other=callable),
        "fourier_features": integer(0), "fourier_scale": positive(),
        "time_features": AT_LEAST_1, "max_frequency": positive(),
        "num_classes": NONE_OR_1, "condition_dim": NONE_OR_1,
    }),
    network("DiT", {
        "image_shape": "(4, 4, 3)", "width": "8", "depth": "1",
        "num_heads": "2",
    }, {**TRANSFORMER, "image_shape": IMAGE, "depth": integer(1, most=2),
        "learn_sigma": FLAG, "guidance": FLAG}),
    network("LightningDiT", {
        "image_shape": "(4, 4, 3)", "width": "8", "depth": "1",
        "num_heads": "2",
    }, {**TRANSFORMER, "image_shape": IMAGE, "depth": integer(1, most=2),
        "learn_sigma": FLAG, "qk_norm": FLAG, "shift": FLAG}),
    network("DDT", {
        "image_shape": "(4, 4, 3)", "width": "8", "num_heads": "2",
        "encoder_depth": "1", "decoder_depth": "1",
    }, {**TRANSFORMER, "image_shape": IMAGE,
        "encoder_depth": integer(1, most=2),
        "decoder_depth": integer(1, most=2), "qk_norm": FLAG,
        "architecture": choice("ddt", "rae"),
        "decoder_dim": instance("None", "8", "16", also=("7", "1")),
        "decoder_heads": instance("None", "1", "2", also=("3",))}),
    network("SongUNet", U_NET, {
        **U_NET_KINDS, "architecture": choice("ddpm++", "ncsn++")}),
    network("DhariwalUNet", U_NET, U_NET_KINDS),
    network("AutoencoderKL", {
        "image_shape": "(8, 8, 3)", "latent_channels": "2",
        "block_out_channels": "(4, 4)", "layers_per_block": "1",
        "norm_groups": "2",
    }, {
        "image_shape": IMAGE, "latent_channels": AT_LEAST_1,
        "block_out_channels": listed(
            ("(4, 4)", "(2,)"), ("(0,)", "('a',)", "(-4,)"), ("(3, 4)",),
            unclear=("[1, 2]",)),
        "layers_per_block": integer(1, most=2), "norm_groups": HEADS,
        "scaling_factor": positive(), "shift_factor": real(), "dtype": DTYPE,
        "name": NAME,
    }),
    network("ChunkMLP", {**CHUNK, "width": "8", "depth": "1"}, {
        **CHUNK_KINDS, "expansion": AT_LEAST_1,
        "time_features": instance("2", "4", "8", also=("1", "3")),
        "max_frequency": positive()}),
    network("PolicyDiT", {**CHUNK, "width": "8", "depth": "1",
                          "num_heads": "2"},
            {**CHUNK_KINDS, "mlp_ratio": AT_LEAST_1}),
    network("PolicyRNN", {**CHUNK, "width": "8", "depth": "1"}, {
        **CHUNK_KINDS, "cell": choice("lstm", "gru"),
        "time_features": instance("2", "4", "8", also=("1", "3")),
        "max_frequency": positive()}),
    network("PolicyTransformer", {**CHUNK, "width": "8", "depth": "1",
                                  "num_heads": "2"}, {
        **CHUNK_KINDS, "condition_depth": integer(0, most=1), "causal": FLAG,
        "embedding_dropout": DROPOUT}),
    network("TemporalUNet", {
        **CHUNK, "width": "8", "width_mult": "(1, 1)",
        "embedding_width": "8", "kernel_size": "3",
    }, {
        **CHUNK_KINDS,
        "horizon": instance("4", "8", also=("1", "2", "3", "6")),
        "width": instance("8", "16", also=("4", "3")),
        "width_mult": listed(("(1, 1)", "(1,)"), ("(0,)", "('a',)", "(-1,)"),
                             unclear=("[1, 2]",)),
        "embedding_width": instance("8", "16", also=("7", "2", "4")),
        "kernel_size": instance("3", "5", "1", also=("2", "4")),
        "scale": FLAG,
    }),
    *(
        network(name, {"observation_shape": "(2, 3)", **extra}, {
            "observation_shape": SHAPES, "name": NAME, **kinds})
        for name, extra, kinds in (
            ("IdentityEncoder", {}, {}),
            *(
                (encoder, {"width": "4"}, {
                    "width": WIDTH, "depth": integer(1, most=2),
                    "hidden_width": NONE_OR_1, "dtype": DTYPE})
                for encoder in ("MLPEncoder", "PerStepMLPEncoder")
            ),
        )
    ),
    *(
        Target(f"kf.networks.{name}", {}, kinds, f"made(filled({shape}))")
        for name, shape, kinds in (
            ("TimeFeatures", (3,), {
                "num": AT_LEAST_1, "max_frequency": positive()}),
            ("FourierFeatures", (3, 2), {
                "num": AT_LEAST_1, "scale": positive(), "seed": SEED}),
            ("SpatialSoftmax", (2, 4, 4, 3), {
                "temperature": positive(most=10.0)}),
            ("LayerNormalization", (3, 8), {
                "epsilon": real(0.0, most=1.0), "affine": FLAG}),
            ("RMSNormalization", (3, 8), {"epsilon": real(0.0, most=1.0)}),
            ("SelfAttention", (2, 4, 8), {
                "num_heads": HEADS, "qk_norm": FLAG, "causal": FLAG,
                "qkv_bias": FLAG}),
            ("MinMax", (3, 2), {"floor": positive(most=1.0)}),
            ("MeanStd", (3, 2), {"floor": positive(most=1.0)}),
            ("Normalizer", (3, 2), {"floor": positive(most=1.0)}),
            ("Quantile", (3, 2), {
                "low": real(0.0, 0.4), "high": real(0.6, 1.0),
                "most": AT_LEAST_1}),
        )
    ),
    Target("kf.networks.GroupNormalization", {"groups": ("4", instance(
        "1", "2", "4", "8", also=("3", "16", "32", "2.0", "np.array(2)")))}, {
        "epsilon": real(0.0, most=1.0)}, "made(filled((3, 4, 8)))"),
    Target("kf.networks.TimestepEmbedding", {"units": ("4", AT_LEAST_1)}, {
        "num": instance("2", "4", also=("1", "3", "7")),
        "max_period": positive()}, "made(filled((3,)))"),
    *(
        Target(
            "kf.networks." + name + "().adapt",
            {"data": ("filled((6, 2))", array((6, 2)))}, check=None)
        for name in ("MinMax", "MeanStd", "Quantile")
    ),
    Target("kf.networks.clone_network", {
        "network": ("mlp()", instance("mlp()", also=("sit",))),
        "name": ("'copy'", NAME)}, check=None),
    *(
        Target(f"kf.networks.{name}", {
            "network": ("mlp()", instance("mlp()", also=("sit",)))},
            check=None)
        for name in ("input_names", "sample_shape")
    ),
]  # fmt: skip
TARGETS = PATHS + LAWS + SAMPLERS + OBJECTIVES + NETWORKS
