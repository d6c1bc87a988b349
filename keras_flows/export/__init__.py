"""Export: the whole sampler as a SavedModel or an ONNX file."""

from keras_flows.export.exportable import Exportable
from keras_flows.export.worker import tensorflow_process
