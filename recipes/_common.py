"""What the recipes share: files, pictures, optimizer, the flags of a run."""

import json
import math
import time

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
    """Muon without weight decay, of a schedule or a rate.

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


class Clock(keras.callbacks.Callback):
    """A budget of minutes or steps: the learning rate follows it to its end.

    Half a cosine from the peak to 0, after a linear rise, over the share of
    the budget that is spent. A budget in minutes makes the most of a slow or
    busy machine; a run by steps can be repeated. Says how far it is twice a
    minute. Epochs must be short.

    Args:
        name: what is trained, for the line it says.
        peaks: learning rates of the optimizer and, of two that take turns,
            the second.
        minutes: of the clock, or None.
        steps: or None; the budget spent first ends the training.
        warmup: number of steps of the rise.
    """

    def __init__(self, name, peaks, minutes=None, steps=None, warmup=100):
        super().__init__()
        self.name, self.peaks = name, peaks
        self.minutes, self.budget, self.warmup = minutes, steps, warmup
        self.steps, self.began, self.said = 0, None, 0.0

    def share(self):
        """How much of the budget is spent, 0 to 1."""
        spent = [0.0]
        if self.minutes is not None:
            spent.append((time.time() - self.began) / (60.0 * self.minutes))
        if self.budget is not None:
            spent.append(self.steps / self.budget)
        return min(max(spent), 1.0)

    def on_epoch_begin(self, epoch, logs=None):
        if self.began is None:
            self.began = time.time()
        factor = 0.5 + 0.5 * math.cos(math.pi * self.share())
        # The first rate is not 0.
        factor *= min(1.0, (self.steps + 5) / self.warmup)
        optimizer = self.model.optimizer
        optimizer.learning_rate = factor * self.peaks[0]
        if len(self.peaks) == 2:
            optimizer.second.learning_rate = factor * self.peaks[1]

    def on_batch_end(self, batch, logs=None):
        self.steps += 1

    def on_epoch_end(self, epoch, logs=None):
        share = self.share()
        self.model.stop_training = share >= 1.0
        if time.time() - self.said > 30 or share >= 1.0:
            self.said = time.time()
            loss = (logs or {}).get("loss", math.nan)
            print(
                f"{self.name}: {share:.0%} of the budget, step {self.steps}, "
                f"{self.said - self.began:.0f} s, loss {loss:.4f}",
                flush=True,
            )
