"""What the recipes share: files, pictures, optimizer, the flags of a run."""

import json

import keras
from absl import app
from absl import flags
from absl import logging

from keras_flows.ops.files import replacing
from keras_flows.ops.files import write_text

# `app.run` would show what TensorFlow and JAX log.
app.call_after_init(lambda: logging.set_verbosity(logging.ERROR))


def write(path, content):
    """Write text as it is, anything else as JSON: whole or not at all."""
    if not isinstance(content, str):
        content = json.dumps(content, indent=2) + "\n"
    write_text(path, content)


def pyplot():
    """matplotlib.pyplot, drawing to files alone."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def save_figure(path, figure, dpi):
    """Write a figure as PNG, and close it."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format="png")
    pyplot().close(figure)


def cosine(learning_rate, decay_steps, warmup_steps):
    """A linear rise from 0, then half a cosine back to 0."""
    return keras.optimizers.schedules.CosineDecay(
        0.0,
        decay_steps,
        warmup_target=learning_rate,
        warmup_steps=warmup_steps,
    )


def muon(schedule):
    """Muon without weight decay.

    It takes half the steps of AdamW for the same KL; its own weight decay
    (0.004) would shrink a flow map.
    """
    return keras.optimizers.Muon(
        schedule,
        weight_decay=None,
        adam_weight_decay=None,
        global_clipnorm=1.0,
    )


def settings(*names):
    """The values of flags, and the backend, as a run keeps them."""
    values = {name: flags.FLAGS[name].value for name in names}
    return values | {"backend": keras.backend.backend()}
