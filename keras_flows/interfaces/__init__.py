"""Interfaces: a `keras.Model` that joins a network and an interpolant."""

from keras_flows.interfaces.consistency import ConsistencyInterface
from keras_flows.interfaces.discrete import DiscreteInterface
from keras_flows.interfaces.distillation import distil
from keras_flows.interfaces.dmd import DMDInterface
from keras_flows.interfaces.edm import EDMInterface
from keras_flows.interfaces.flow_map import FlowMapInterface
from keras_flows.interfaces.generator import Generator
from keras_flows.interfaces.holder import Holder
from keras_flows.interfaces.interface import Interface
from keras_flows.interfaces.mean_flow import MeanFlowInterface
from keras_flows.interfaces.progressive import ProgressiveInterface
from keras_flows.interfaces.repa import REPAInterface
from keras_flows.interfaces.reparametrized import ReparametrizedInterface
from keras_flows.interfaces.sit import SiTInterface
from keras_flows.interfaces.stochastic_interpolant import (
    StochasticInterpolantInterface,
)
from keras_flows.interfaces.teacher import Teacher
from keras_flows.interfaces.trig_consistency import SCDInterface
from keras_flows.interfaces.trig_consistency import SCTInterface

__all__ = [
    "ConsistencyInterface",
    "DiscreteInterface",
    "distil",
    "DMDInterface",
    "EDMInterface",
    "FlowMapInterface",
    "Generator",
    "Holder",
    "Interface",
    "MeanFlowInterface",
    "ProgressiveInterface",
    "REPAInterface",
    "ReparametrizedInterface",
    "SCDInterface",
    "SCTInterface",
    "SiTInterface",
    "StochasticInterpolantInterface",
]
