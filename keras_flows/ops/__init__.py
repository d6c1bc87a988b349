"""The backend edge: what Keras does not abstract, and small tensor helpers.

Only this package and `training` (and `export`, `datasets` where they must)
know which backend runs. Everything above speaks `keras.ops`.
"""

from keras_flows.ops.asides import gather
from keras_flows.ops.asides import gathering
from keras_flows.ops.asides import mean_losses
from keras_flows.ops.asides import note
from keras_flows.ops.asides import note_losses
from keras_flows.ops.asides import note_rows
from keras_flows.ops.asides import part
from keras_flows.ops.autodiff import in_jvp
from keras_flows.ops.autodiff import jvp
from keras_flows.ops.autodiff import remat
from keras_flows.ops.autodiff import value_and_gradients
from keras_flows.ops.compiled import arguments
from keras_flows.ops.compiled import compiled
from keras_flows.ops.compiled import eager_float64
from keras_flows.ops.config import Config
from keras_flows.ops.config import deserialized
from keras_flows.ops.config import register
from keras_flows.ops.config import resolve
from keras_flows.ops.fused import affine
from keras_flows.ops.fused import dot_product_attention
from keras_flows.ops.fused import multiply_add
from keras_flows.ops.matmul import exact_matmul
from keras_flows.ops.matmul import exact_products
from keras_flows.ops.normalize import layer_norm
from keras_flows.ops.normalize import rms_norm
from keras_flows.ops.replicas import over_replicas
from keras_flows.ops.rows import RowSplit
from keras_flows.ops.rows import by_step
from keras_flows.ops.rows import copies
from keras_flows.ops.rows import inverse_of
from keras_flows.ops.rows import parts
from keras_flows.ops.tensors import bcast_right
from keras_flows.ops.tensors import check_same_shape
from keras_flows.ops.tensors import dtype_of
from keras_flows.ops.tensors import example_size
from keras_flows.ops.tensors import float_dtype
from keras_flows.ops.tensors import known
from keras_flows.ops.tensors import mean_flat
from keras_flows.ops.tensors import on_jump
from keras_flows.ops.tensors import on_state
from keras_flows.ops.tensors import sum_flat
from keras_flows.ops.terms import ERROR
from keras_flows.ops.terms import WEIGHTED
from keras_flows.ops.terms import share_of

__all__ = [
    "bcast_right",
    "compiled",
    "Config",
    "gather",
    "in_jvp",
    "jvp",
    "mean_flat",
    "mean_losses",
    "note",
    "note_losses",
    "note_rows",
    "register",
    "remat",
    "RowSplit",
    "sum_flat",
    "value_and_gradients",
]
