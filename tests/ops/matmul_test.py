"""The setting of exact products."""

import keras
import pytest

from keras_flows.ops import exact_products


def test_exact_products_give_back_what_was_set():
    """On GPUs; here, that whoever wants rounding has it again."""
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        holders = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)

        def setting():
            return [holder.fp32_precision for holder in holders]

        def choose():
            for holder in holders:
                holder.fp32_precision = "tf32"

        exact = ["ieee", "ieee"]
    elif backend == "jax":
        import jax

        def setting():
            return jax.config.jax_default_matmul_precision

        def choose():
            jax.config.update("jax_default_matmul_precision", "tensorfloat32")

        exact = "highest"
    else:
        from tensorflow.config import experimental

        setting = experimental.tensor_float_32_execution_enabled

        def choose():
            experimental.enable_tensor_float_32_execution(True)

        exact = False
    before = setting()
    try:
        choose()
        chosen = setting()
        assert chosen != exact
        with pytest.raises(KeyError), exact_products():
            assert setting() == exact
            raise KeyError
        assert setting() == chosen
    finally:
        if backend == "torch":
            for holder, value in zip(holders, before):
                holder.fp32_precision = value
        elif backend == "jax":
            jax.config.update("jax_default_matmul_precision", before)
        else:
            experimental.enable_tensor_float_32_execution(before)
