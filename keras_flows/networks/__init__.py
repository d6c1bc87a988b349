"""Networks: functional `keras.Model`s of (x, t[, r][, condition])."""

from keras_flows.networks.autoencoder_kl import AutoencoderKL
from keras_flows.networks.chunk_mlp import ChunkMLP
from keras_flows.networks.ddt import DDT
from keras_flows.networks.dit import DiT
from keras_flows.networks.embeddings import FourierFeatures
from keras_flows.networks.embeddings import TimeFeatures
from keras_flows.networks.embeddings import TimestepEmbedding
from keras_flows.networks.features import FeatureTap
from keras_flows.networks.features import Frozen
from keras_flows.networks.features import dino_encoder
from keras_flows.networks.inception import InceptionV3
from keras_flows.networks.inspect import clone_network
from keras_flows.networks.inspect import input_names
from keras_flows.networks.inspect import is_functional
from keras_flows.networks.inspect import sample_shape
from keras_flows.networks.layers import Dense
from keras_flows.networks.layers import GroupNormalization
from keras_flows.networks.layers import LayerNormalization
from keras_flows.networks.layers import RMSNormalization
from keras_flows.networks.layers import SelfAttention
from keras_flows.networks.lightning_dit import LightningDiT
from keras_flows.networks.mlp import MLP
from keras_flows.networks.unet import DhariwalUNet
from keras_flows.networks.unet import SongUNet
