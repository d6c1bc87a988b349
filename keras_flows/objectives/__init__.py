"""Objectives: one paper, one screen, one class.

An objective maps (model, batch) to a dict of per-example terms of shape (B,),
"loss" first; its options are its fields. `get` finds it by name.
"""

from keras_flows.objectives.base import FunctionObjective
from keras_flows.objectives.base import Objective
from keras_flows.objectives.batch import Batch
from keras_flows.objectives.bridge import BridgeMatching
from keras_flows.objectives.check import check_jvp
from keras_flows.objectives.consistency import Consistency
from keras_flows.objectives.consistency import TrigConsistency
from keras_flows.objectives.ddpm import Hybrid
from keras_flows.objectives.distribution_matching import DistributionMatching
from keras_flows.objectives.flow_map import CTM
from keras_flows.objectives.flow_map import FlowMap
from keras_flows.objectives.flow_map import Shortcut
from keras_flows.objectives.flow_matching import Flow
from keras_flows.objectives.mean_flow import MeanFlow
from keras_flows.objectives.moment_matching import IMM
from keras_flows.objectives.policy import MIP
from keras_flows.objectives.policy import TSD
from keras_flows.objectives.policy import Regression
from keras_flows.objectives.policy import StraightFlow
from keras_flows.objectives.progressive import Progressive
from keras_flows.objectives.registry import get
from keras_flows.objectives.registry import names
from keras_flows.objectives.registry import serialize
from keras_flows.objectives.self_distillation import AYF
from keras_flows.objectives.self_distillation import EMD
from keras_flows.objectives.self_distillation import ESD
from keras_flows.objectives.self_distillation import LMD
from keras_flows.objectives.self_distillation import LSD
from keras_flows.objectives.self_distillation import MF
from keras_flows.objectives.self_distillation import PSD
from keras_flows.objectives.stable_target import stable_endpoints

__all__ = [
    "AYF",
    "Batch",
    "BridgeMatching",
    "check_jvp",
    "Consistency",
    "CTM",
    "DistributionMatching",
    "EMD",
    "ESD",
    "Flow",
    "FlowMap",
    "FunctionObjective",
    "get",
    "Hybrid",
    "IMM",
    "LMD",
    "LSD",
    "MeanFlow",
    "MF",
    "MIP",
    "names",
    "Objective",
    "Progressive",
    "PSD",
    "Regression",
    "Shortcut",
    "StraightFlow",
    "TrigConsistency",
    "TSD",
]
