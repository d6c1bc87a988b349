"""Kinds of the arguments that many calls share, by name."""

import dataclasses
import math

import numpy as np
from contract.values import any_text
from contract.values import array
from contract.values import choice
from contract.values import flag
from contract.values import integer
from contract.values import listed
from contract.values import real
from contract.values import seed

POSITIVE = real(0.0, math.inf)
AT_LEAST_1 = integer(1)
SHARE = real(0.0, 1.0)
SEED = seed()
FLAG = flag()
NAME = any_text()
STEPS = integer(1, none=True)


def positive(**options):
    """Above 0, where 0 itself is wrong."""
    base = real(0.0, math.inf, **options)

    def verdict(value):
        number = not isinstance(value, (str, bytes)) and np.ndim(value) == 0
        try:
            return "bad" if number and value == 0 else base.verdict(value)
        except Exception:
            return base.verdict(value)

    return dataclasses.replace(base, verdict=verdict)


def instance(*good, also=(), none=False, words=()):
    """An object of some class, by expressions.

    Args:
        good: expressions that work.
        also: expressions that may or may not.
        none: whether None stands for a default.
        words: names that stand for one.
    """
    fine = (*good, *map(repr, words), *(("None",) if none else ()))
    return listed(fine, either=also)


def pair(good, low, high):
    """(low, high) within bounds."""
    return listed(
        good,
        (
            "(0.8, 0.2)", f"({low} - 1, {high})", f"({low}, {high} + 1)",
            "(float('nan'), 0.5)", "(0.1, float('inf'))", "(0.5,)",
            "(0.1, 0.2, 0.3)", "('a', 'b')", "(None, 0.5)",
        ),
    )  # fmt: skip


LAW = instance(
    words=("uniform", "lognormal", "logitnormal", "beta"),
    also=("kf.interpolants.Beta(2.0, 1.0)", "{'class_name': 'Beta'}"),
)
PATH = instance(
    "kf.interpolants.Linear(1.0)",
    "kf.interpolants.Linear(0.0)",
    "kf.interpolants.VariancePreserving()",
    "kf.interpolants.TrigFlow()",
    "'Linear'",
    also=(
        "kf.interpolants.VarianceExploding()",
        "kf.interpolants.DiscreteVariancePreserving()",
        "kf.interpolants.StochasticInterpolant()",
        "kf.interpolants.Linear",
        "'linear'",
    ),
)
OPTIONAL_PATH = dataclasses.replace(
    PATH, verdict=PATH.verdict | {"None": "good"}
)
NETWORK = instance(
    "mlp()",
    "mlp(two_times=True)",
    "mlp(num_classes=3)",
    also=("classifier()", "conv()", "mlp", "kf.networks.MLP"),
)
GRID = listed(
    ("None", "'uniform'", "'karras'", "'log_snr'", "'cosine'"),
    (
        "[1.0, 0.5]", "[0.0, 0.5, 1.0]", "[1.0, float('nan'), 0.0]",
        "[2.0, 1.0, 0.0]", "[[1.0, 0.0]]", "'Uniform'",
    ),
    # A grid for another number of steps than is asked for is an error.
    ("[1.0, 0.5, 0.0]", "np.array([1.0, 0.3, 0.0])", "(1.0, 0.9, 0.0)"),
    unclear=("[1, 2]",),
)  # fmt: skip
SAMPLER = instance(
    "None", "'euler'", "'heun'", "kf.samplers.Euler()",
    "kf.samplers.DPMSolverPP()", "kf.samplers.EulerMaruyama()",
    also=(
        "'one_step'", "'flow_map_jump'", "'two_step'", "'edm'",
        "'multistep_consistency'", "kf.samplers.Euler", "'EULER'",
        "kf.samplers.Sampler()",
    ),
)  # fmt: skip
DTYPE = instance(
    "None", "'float32'", "'mixed_bfloat16'", "'bfloat16'",
    also=("'float16'", "'float64'", "'int32'", "np.float32"),
)  # fmt: skip
EMA = listed(
    ("None", "0.9", "0.0", "kf.EMA(0.9)", "kf.EMA(std=0.05)", "[0.9, 0.99]"),
    (
        "[None]", "[1.0]", "1.5", "kf.EMA", "'0.9'", "[0.9, 'a']",
        "float('nan')",
    ),
    unclear=(
        "[]", "()", "0", "0.5", "np.float32(0.5)", "np.array(0.5)",
        "ops.convert_to_tensor(0.5)", "1e-12", "False", "{}",
    ),
)  # fmt: skip
# Words are paths, too; "" is none.
PATH_TO_WRITE = listed(unclear=("'a word'", "'0.5'", "'2'"))
# Of `Interface`, which the others pass on.
INTERFACE = {
    "train_time_dist_type": LAW,
    "t_mu": real(most=3.0),
    "t_sigma": positive(most=3.0),
    "n_mu": real(most=10.0),
    "n_sigma": positive(most=10.0),
    "x_sigma": positive(most=10.0),
    "t_shift_base": positive(most=10.0, none=True),
    "norm": choice("l2", "l1", "smooth_l1", "pseudo_huber"),
    "cond_drop_ratio": SHARE,
    "null_label": integer(0, most=3, none=True),
    "stable_target": FLAG,
    "ema": EMA,
    "max_skipped_steps": integer(1, most=30),
    "seed": SEED,
    "name": NAME,
}
# Of `generate`.
GENERATE = {
    "num_samples": AT_LEAST_1,
    "num_steps": STEPS,
    "seed": SEED,
    "sampler": SAMPLER,
    "batch_size": integer(1, none=True),
    "use_ema": FLAG,
    "noise": dataclasses.replace(
        array((2, 2)), verdict=array((2, 2)).verdict | {"None": "good"}
    ),
}
LABELS = listed(
    ("[0, 2]", "np.array([0, 1])", "np.array([1, 2], 'int32')"),
    (
        "[0, 7]", "[0, -1]", "[0, 1, 2]", "[0.5, 1.0]", "['a', 'b']",
        "np.array([0, np.nan])", "[None, 1]", "[[0, 1], [1, 0]]",
        "np.array([2**40, 0])",
    ),
    (
        "(0, 1)", "range(2)", "[[0], [1]]", "np.eye(3)[[0, 1]]", "[0, 3]",
        "[True, False]", "np.array([0.0, 1.0])", "np.array([0, 1], 'uint8')",
        "ops.convert_to_tensor([0, 1])",
    ),
    unclear=(
        "0", "1", "2", "3", "True", "False", "np.int64(2)", "np.uint8(1)",
        "np.array(2)", "np.array([1])", "2.0", "np.float64(2.0)",
        "[1, 2]", "np.bool_(True)",
    ),
)  # fmt: skip
CHOICES_OF = {
    "derivative": choice("jvp", "finite_difference"),
    "stop_gradient": choice("convex", "full", "none", "target"),
    "form": choice("paper", "public"),
}
