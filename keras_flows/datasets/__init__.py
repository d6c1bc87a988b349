"""Data sets that need no network."""

from keras_flows.datasets.checkerboard import Checkerboard
from keras_flows.datasets.checkerboard import Endless
from keras_flows.datasets.digits import digits
