"""Metrics of samples."""

from keras_flows.metrics.frechet import FrechetDistance
from keras_flows.metrics.frechet import GaussianStatistics
from keras_flows.metrics.frechet import frechet_distance
from keras_flows.metrics.histogram_kl import HistogramKL
