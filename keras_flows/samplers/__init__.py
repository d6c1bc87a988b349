"""Samplers: walk from noise to data with what a model predicts.

A sampler sees a predictor: `Bound` (a model with network and condition filled
in), `Guided` (a predictor around two) or `OnPath` (a predictor on another
path). `Loop` compiles its steps and walks them.
"""

from __future__ import annotations

import typing
from keras_flows.samplers.adaptive import DormandPrince
from keras_flows.samplers.base import Sampler
from keras_flows.samplers.ddpm import DDIM
from keras_flows.samplers.ddpm import DDPM
from keras_flows.samplers.dpm_solver import DPMSolver
from keras_flows.samplers.dpm_solver import DPMSolverPP
from keras_flows.samplers.edm import EDM
from keras_flows.samplers.guidance import Guided
from keras_flows.samplers.jump import FlowMapJump
from keras_flows.samplers.jump import OneStep
from keras_flows.samplers.jump import TwoStep
from keras_flows.samplers.likelihood import log_likelihood
from keras_flows.samplers.loop import Loop
from keras_flows.samplers.loop import Reads
from keras_flows.samplers.ode import Euler
from keras_flows.samplers.ode import Heun
from keras_flows.samplers.on_path import OnPath
from keras_flows.samplers.predictor import Bound
from keras_flows.samplers.predictor import EndOfFlow
from keras_flows.samplers.request import Request
from keras_flows.samplers.request import make_request
from keras_flows.samplers.sa_solver import SASolver
from keras_flows.samplers.sde import EulerMaruyama
from keras_flows.samplers.start import inverse
from keras_flows.samplers.unipc import UniPC
from keras_flows.ops import resolve

if typing.TYPE_CHECKING:
    from typing import Any

_KNOWN = {
    "ddim": DDIM,
    "ddpm": DDPM,
    "dormand_prince": DormandPrince,
    "dpm_solver": DPMSolver,
    "dpm_solver++": DPMSolverPP,
    "dpm_solver++sde": lambda: DPMSolverPP(tau=1.0),
    "edm": EDM,
    "euler": Euler,
    "heun": Heun,
    "euler_maruyama": EulerMaruyama,
    "flow_map_jump": FlowMapJump,
    "multistep_consistency": lambda: FlowMapJump(renoise=1.0),
    "one_step": OneStep,
    "sa_solver": SASolver,
    "two_step": TwoStep,
    "unipc": UniPC,
}


def get(identifier: Any, argument: str = "sampler") -> Any:
    """A sampler from its name, config or instance; errors name `argument`.

    Raises:
        ValueError: if the name is unknown; the message lists the known ones.
    """
    return resolve(identifier, _KNOWN, argument, Sampler)


def check_fit(sampler, provides, what):
    """Refuse a sampler that asks for what a model does not predict.

    Args:
        sampler: a `Sampler`.
        provides: set of what the model predicts, see `Sampler.needs`.
        what: the model, for the message.

    Raises:
        ValueError: naming what is missing, and the samplers that apply.
    """
    missing = sorted(set(sampler.needs) - set(provides))
    if missing:
        fitting = [
            name for name in _KNOWN if set(get(name).needs) <= set(provides)
        ]
        raise ValueError(
            f"`sampler` {sampler} needs the model's {' and '.join(missing)}, "
            f"which {what} does not give. It is sampled by: "
            f"{', '.join(fitting)}."
        )


__all__ = [
    "DDIM",
    "DDPM",
    "DormandPrince",
    "DPMSolver",
    "DPMSolverPP",
    "EDM",
    "Euler",
    "EulerMaruyama",
    "FlowMapJump",
    "get",
    "Guided",
    "Heun",
    "log_likelihood",
    "OneStep",
    "OnPath",
    "Sampler",
    "SASolver",
    "TwoStep",
    "UniPC",
]
