"""Objectives: one paper, one screen, one pure function.

An objective maps (model, x, condition, training) to a dict of per-example
terms of shape (B,), "loss" first. `get` finds it by name; `Objective`
carries what an interface must know about it.
"""

from keras_flows.objectives.check import check_jvp
from keras_flows.objectives.registry import Objective
from keras_flows.objectives.registry import flow_map_objective
from keras_flows.objectives.registry import get
from keras_flows.objectives.registry import names
from keras_flows.objectives.stable_target import stable_endpoints
