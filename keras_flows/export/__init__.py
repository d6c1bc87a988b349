"""Export: the whole sampler as a SavedModel or an ONNX file."""

from keras_flows.export.endpoint import Endpoint
from keras_flows.export.exporter import export
from keras_flows.export.plan import Plan
from keras_flows.export.plan import Served
from keras_flows.export.plan import compiled_check
from keras_flows.export.plan import described
from keras_flows.export.plan import example_of
from keras_flows.export.plan import fixed_steps
from keras_flows.export.plan import sampling_plan
from keras_flows.export.plan import velocity_endpoint
from keras_flows.export.worker import tensorflow_process

__all__ = [
    "export",
    "tensorflow_process",
]
