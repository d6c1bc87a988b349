"""Shared set-up: one backend per process, seeds fixed."""

import atexit
import gc
import importlib.util
import mmap
import os
import pathlib
import shutil
import sys
import tempfile

# Hundreds of thousands of objects of the frameworks stay: looking through them
# again and again for garbage takes a tenth of the time, and frees nothing.
gc.disable()

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def known(flag):
    """Whether every XLA here has the flag: another would end the process."""
    for package, library in (
        ("jaxlib", "libjax_common.so"),
        ("tensorflow", "libtensorflow_cc.so.2"),
    ):
        spec = importlib.util.find_spec(package)
        if spec is None:
            continue
        path = pathlib.Path(spec.origin).parent / library
        if not path.is_file():
            return False
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            if content.find(flag.encode()) < 0:
                return False
    return True


# Tests compile much and compute little. Without LLVM's optimisations XLA takes
# less than half as long; with the older code for fused loops, and one piece of
# code a module, a third of that. Processes that a test starts inherit this.
os.environ["XLA_FLAGS"] = " ".join(
    [
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        *(
            f"--{flag}={value}"
            for flag, value in (
                ("xla_cpu_use_fusion_emitters", "false"),
                ("xla_cpu_parallel_codegen_split_count", "1"),
            )
            if known(flag)
        ),
        os.environ.get("XLA_FLAGS", ""),
    ]
)

# Of GPUs, whose products of float32 have three digits otherwise.
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # Workers and the processes that tests start compile much of the same:
    # they share it, as long as this process lives.
    _cache = tempfile.mkdtemp(prefix="keras-flows-jax-")
    atexit.register(shutil.rmtree, _cache, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import keras
import numpy as np
import pytest

if keras.backend.backend() == "torch":
    import torch

    # Its convolutions are rounded by default, its products are not.
    torch.backends.cudnn.allow_tf32 = False


class NumPyDraws:
    """Keras's random numbers for initial weights, drawn by NumPy.

    JAX compiles each of them for each shape, which is most of what it takes
    to build a network. Laws are as Keras's; an int is a seed there too.
    """

    def __init__(self, random):
        self.random = random

    def __getattr__(self, name):
        return getattr(self.random, name)

    def normal(self, shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
        if not isinstance(seed, int):
            return self.random.normal(shape, mean, stddev, dtype, seed)
        drawn = rng_of(seed, shape).standard_normal(shape)
        return array(mean + stddev * drawn, dtype)

    def truncated_normal(
        self, shape, mean=0.0, stddev=1.0, dtype=None, seed=None
    ):
        if not isinstance(seed, int):
            draw = self.random.truncated_normal
            return draw(shape, mean, stddev, dtype, seed)
        rng = rng_of(seed, shape)
        drawn = rng.standard_normal(shape)
        while np.any(far := np.abs(drawn) > 2.0):
            drawn = np.where(far, rng.standard_normal(shape), drawn)
        return array(mean + stddev * drawn, dtype)

    def uniform(self, shape, minval=0.0, maxval=1.0, dtype=None, seed=None):
        if not isinstance(seed, int):
            return self.random.uniform(shape, minval, maxval, dtype, seed)
        return array(rng_of(seed, shape).uniform(minval, maxval, shape), dtype)


def rng_of(seed, shape):
    return np.random.default_rng([seed % 2**32, *shape])


def array(drawn, dtype):
    import jax.numpy as jnp

    return jnp.asarray(
        np.asarray(drawn).astype(jnp.dtype(dtype or keras.config.floatx()))
    )


if keras.backend.backend() == "jax":
    from keras.src.initializers import random_initializers

    random_initializers.random = NumPyDraws(random_initializers.random)


def pytest_collection_finish():
    freeze_what_was_imported()
    gc.enable()


_seen = {"modules": 0}


def freeze_what_was_imported():
    """Again where a test was the first to need a framework."""
    if len(sys.modules) > _seen["modules"] + 200:
        gc.freeze()
        _seen["modules"] = len(sys.modules)


def pytest_collection_modifyitems(items):
    """Slow tests first; `once` tests on PyTorch, which starts the fastest.

    Begun first, slow ones end while there is other work, and no worker waits
    for the last of them.
    """
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    if keras.backend.backend() == "torch":
        return
    skip = pytest.mark.skip(reason="runs once, on PyTorch")
    for item in items:
        if item.get_closest_marker("once"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def _fixed_seed():
    freeze_what_was_imported()
    keras.utils.set_random_seed(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
