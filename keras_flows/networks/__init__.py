"""Networks: functional `keras.Model`s of (x, t[, r][, condition])."""

from keras_flows.networks.chunks.dit import PolicyDiT
from keras_flows.networks.chunks.mlp import ChunkMLP
from keras_flows.networks.chunks.rnn import PolicyRNN
from keras_flows.networks.chunks.transformer import PolicyTransformer
from keras_flows.networks.chunks.unet import TemporalUNet
from keras_flows.networks.contract import input_names
from keras_flows.networks.contract import input_specs
from keras_flows.networks.contract import is_functional
from keras_flows.networks.contract import sample_shape
from keras_flows.networks.copies import OtherValues
from keras_flows.networks.copies import clone_network
from keras_flows.networks.copies import deserialize_network
from keras_flows.networks.copies import fixed_copy
from keras_flows.networks.copies import serialize_network
from keras_flows.networks.encoders.images import ImageEncoder
from keras_flows.networks.encoders.images import SpatialSoftmax
from keras_flows.networks.encoders.vectors import IdentityEncoder
from keras_flows.networks.encoders.vectors import MLPEncoder
from keras_flows.networks.encoders.vectors import PerStepMLPEncoder
from keras_flows.networks.fixed import Fixed
from keras_flows.networks.features import FeatureTap
from keras_flows.networks.features import Frozen
from keras_flows.networks.features import dino_encoder
from keras_flows.networks.images.autoencoder_kl import AutoencoderKL
from keras_flows.networks.images.ddt import DDT
from keras_flows.networks.images.dit import DiT
from keras_flows.networks.images.inception import InceptionV3
from keras_flows.networks.images.lightning_dit import LightningDiT
from keras_flows.networks.images.unet import DhariwalUNet
from keras_flows.networks.images.unet import SongUNet
from keras_flows.networks.labels import Labels
from keras_flows.networks.labels import labels_of
from keras_flows.networks.layers.attention import CrossAttention
from keras_flows.networks.layers.attention import SelfAttention
from keras_flows.networks.layers.dense import Dense
from keras_flows.networks.layers.embeddings import FourierFeatures
from keras_flows.networks.layers.embeddings import TimeFeatures
from keras_flows.networks.layers.embeddings import TimestepEmbedding
from keras_flows.networks.layers.normalization import GroupNormalization
from keras_flows.networks.layers.normalization import LayerNormalization
from keras_flows.networks.layers.normalization import RMSNormalization
from keras_flows.networks.mlp import MLP
from keras_flows.networks.normalizers import MeanStd
from keras_flows.networks.normalizers import MinMax
from keras_flows.networks.normalizers import Normalizer
from keras_flows.networks.normalizers import Quantile

__all__ = [
    "AutoencoderKL",
    "ChunkMLP",
    "clone_network",
    "CrossAttention",
    "DDT",
    "DhariwalUNet",
    "dino_encoder",
    "DiT",
    "FeatureTap",
    "FourierFeatures",
    "Frozen",
    "GroupNormalization",
    "IdentityEncoder",
    "ImageEncoder",
    "InceptionV3",
    "input_names",
    "Labels",
    "LayerNormalization",
    "LightningDiT",
    "MeanStd",
    "MinMax",
    "MLP",
    "MLPEncoder",
    "Normalizer",
    "PerStepMLPEncoder",
    "PolicyDiT",
    "PolicyRNN",
    "PolicyTransformer",
    "Quantile",
    "RMSNormalization",
    "sample_shape",
    "SelfAttention",
    "SongUNet",
    "SpatialSoftmax",
    "TemporalUNet",
    "TimeFeatures",
    "TimestepEmbedding",
]
