"""Metrics of samples."""

from keras_flows.metrics.histogram_kl import HistogramKL
