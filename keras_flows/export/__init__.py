"""Export: the whole sampler as a SavedModel."""

from keras_flows.export.saved_model import Exportable
