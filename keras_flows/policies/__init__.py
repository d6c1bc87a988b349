"""Robot policies: training, control and closed-loop evaluation."""

from keras_flows.policies.controller import Controller
from keras_flows.policies.policy import Policy
from keras_flows.policies.rollout import Rollout
from keras_flows.policies.rollout import evaluate
from keras_flows.policies.rollout import evaluate_expert
from keras_flows.policies.rollout import latency
from keras_flows.policies.rollout import record
from keras_flows.policies.rollout import wilson_interval

__all__ = [
    "Controller",
    "evaluate",
    "evaluate_expert",
    "latency",
    "Policy",
    "record",
    "Rollout",
    "wilson_interval",
]
