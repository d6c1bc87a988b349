"""`python -m keras_flows.serving` from a checkout, on JAX where it is there.

    python tools/serve.py --export=served
    KERAS_BACKEND=jax python tools/serve.py --preset=lsd_checkerboard

`python tools/serve.py --help` lists the flags; docs/serving.md tells more.
"""

import importlib.util
import os

os.environ.setdefault(
    "KERAS_BACKEND", "jax" if importlib.util.find_spec("jax") else "tensorflow"
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from keras_flows.serving.__main__ import main

if __name__ == "__main__":
    main()
