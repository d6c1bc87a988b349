"""keras_flows: diffusion, flow and few-step generative models in Keras 3.

One objective, three backends: JAX, TensorFlow and PyTorch.
"""

import importlib
import typing

from keras_flows._backend import check_backend as _check_backend
from keras_flows._command import is_bare as _is_bare
from keras_flows._version import __version__

if typing.TYPE_CHECKING:
    from keras_flows import callbacks
    from keras_flows import metrics
    from keras_flows import plot
    from keras_flows import serving

# Imported at their first use: nothing is registered by them.
LATER = ("callbacks", "metrics", "plot", "serving")

# One name for one thing; what follows can be imported and is not listed.
__all__ = [
    "callbacks",
    "converters",
    "datasets",
    "interpolants",
    "metrics",
    "networks",
    "objectives",
    "ops",
    "parametrization",
    "plot",
    "policies",
    "presets",
    "samplers",
    "serving",
    "training",
    "ConsistencyInterface",
    "DiscreteInterface",
    "DMDInterface",
    "EDMInterface",
    "FlowMapInterface",
    "Interface",
    "MeanFlowInterface",
    "ProgressiveInterface",
    "ReparametrizedInterface",
    "REPAInterface",
    "SCDInterface",
    "SCTInterface",
    "SiTInterface",
    "StochasticInterpolantInterface",
    "check_jvp",
    "distil",
    "from_preset",
    "EMA",
    "NonFiniteError",
]

if not _is_bare():
    # First: it must speak before Keras does.
    _check_backend()

    from keras_flows import converters
    from keras_flows import datasets
    from keras_flows import interpolants
    from keras_flows import networks
    from keras_flows import objectives
    from keras_flows import ops
    from keras_flows import parametrization
    from keras_flows import policies
    from keras_flows import presets
    from keras_flows import samplers
    from keras_flows import training
    from keras_flows.interfaces import ConsistencyInterface
    from keras_flows.interfaces import DiscreteInterface
    from keras_flows.interfaces import DMDInterface
    from keras_flows.interfaces import EDMInterface
    from keras_flows.interfaces import FlowMapInterface
    from keras_flows.interfaces import Interface
    from keras_flows.interfaces import MeanFlowInterface
    from keras_flows.interfaces import ProgressiveInterface
    from keras_flows.interfaces import ReparametrizedInterface
    from keras_flows.interfaces import REPAInterface
    from keras_flows.interfaces import SCDInterface
    from keras_flows.interfaces import SCTInterface
    from keras_flows.interfaces import SiTInterface
    from keras_flows.interfaces import StochasticInterpolantInterface
    from keras_flows.interfaces import distil
    from keras_flows.objectives import check_jvp
    from keras_flows.ops import familiar
    from keras_flows.presets import from_preset
    from keras_flows.training import EMA
    from keras_flows.training import NonFiniteError

    # The names in the interfaces' document.
    Interfaces = Interface
    DiT_REPA = REPAInterface
    sCTInterface = SCTInterface
    sCDInterface = SCDInterface

    def __getattr__(name):
        if name in LATER:
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(familiar.unknown(name))

    def __dir__():
        return sorted({*globals(), *LATER})
