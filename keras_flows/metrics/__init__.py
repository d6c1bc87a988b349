"""Metrics of samples, and the networks in whose features they compare."""

from keras_flows.metrics.by_calls import by_calls
from keras_flows.metrics.features import ClassifierFeatures
from keras_flows.metrics.features import DINOv2Features
from keras_flows.metrics.features import FeatureExtractor
from keras_flows.metrics.features import InceptionV3Features
from keras_flows.metrics.frechet import FrechetDistance
from keras_flows.metrics.frechet import GaussianStatistics
from keras_flows.metrics.frechet import frechet_distance
from keras_flows.metrics.histogram_kl import HistogramKL
from keras_flows.metrics.images import load_adm_npz
from keras_flows.metrics.images import save_adm_npz
from keras_flows.metrics.images import to_float
from keras_flows.metrics.images import to_uint8
from keras_flows.metrics.inception_score import InceptionScore
from keras_flows.metrics.kernel_distance import kernel_distance
from keras_flows.metrics.precision_recall import precision_recall

__all__ = [
    "by_calls",
    "ClassifierFeatures",
    "DINOv2Features",
    "FeatureExtractor",
    "frechet_distance",
    "FrechetDistance",
    "GaussianStatistics",
    "HistogramKL",
    "InceptionScore",
    "InceptionV3Features",
    "kernel_distance",
    "load_adm_npz",
    "precision_recall",
    "save_adm_npz",
    "to_float",
    "to_uint8",
]
