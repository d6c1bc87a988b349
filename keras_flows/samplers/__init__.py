"""Samplers: walk from noise to data with what a model predicts.

A sampler needs only {interpolant, n_mu, n_sigma, pred, jump, denoise,
pred_and_score} of the model, and denoise_and_share where it learns its
variance; guidance is a wrapper with the same.
"""

from keras_flows.samplers.adaptive import DormandPrince
from keras_flows.samplers.adaptive import log_likelihood
from keras_flows.samplers.base import Sampler
from keras_flows.samplers.ddpm import DDIM
from keras_flows.samplers.ddpm import DDPM
from keras_flows.samplers.dpm_solver import DPMSolver
from keras_flows.samplers.dpm_solver import DPMSolverPP
from keras_flows.samplers.edm import EDM
from keras_flows.samplers.guidance import Predictor
from keras_flows.samplers.jump import FlowMapJump
from keras_flows.samplers.jump import TwoStep
from keras_flows.samplers.ode import Euler
from keras_flows.samplers.ode import Heun
from keras_flows.samplers.sa_solver import SASolver
from keras_flows.samplers.sde import EulerMaruyama
from keras_flows.samplers.unipc import UniPC
from keras_flows.ops import resolve

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
    "sa_solver": SASolver,
    "two_step": TwoStep,
    "unipc": UniPC,
}


def get(identifier):
    """A sampler from its name, config or instance.

    Raises:
        ValueError: if the name is unknown; the message lists the known ones.
    """
    return resolve(identifier, _KNOWN, "sampler", Sampler)
