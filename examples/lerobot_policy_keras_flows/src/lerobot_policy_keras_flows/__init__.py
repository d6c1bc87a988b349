"""A policy type of lerobot, "keras_flows": a policy exported as ONNX."""

try:
    import lerobot  # noqa: F401
except ImportError as error:
    raise ImportError(
        "lerobot_policy_keras_flows is a plugin: pip install lerobot"
    ) from error

from .configuration_keras_flows import KerasFlowsConfig
from .modeling_keras_flows import KerasFlowsPolicy
from .processor_keras_flows import make_keras_flows_pre_post_processors

__all__ = [
    "KerasFlowsConfig",
    "KerasFlowsPolicy",
    "make_keras_flows_pre_post_processors",
]
