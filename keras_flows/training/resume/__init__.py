"""A run that survives its machine: state, files, data and the loop."""

from keras_flows.training.resume.checkpoint import Checkpoint
from keras_flows.training.resume.checkpoint import load_checkpoint
from keras_flows.training.resume.run import fit_kept
from keras_flows.training.resume.run import separate
