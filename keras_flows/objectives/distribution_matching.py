"""Distribution matching: a generator whose scores are the teacher's.

mu(x_t, t) is a prediction of the data: `real` by the teacher, `fake` by a
network that follows the generator's own samples. `dmd` and `sid` give the
generator's loss, (B,), at noised samples x_t of its sample x.
"""

import dataclasses

from keras import ops

from keras_flows.objectives.base import Objective
from keras_flows.objectives.flow_matching import denoising_loss
from keras_flows.ops import bcast_right
from keras_flows.ops import by_step
from keras_flows.ops import copies
from keras_flows.ops import gather
from keras_flows.ops import given
from keras_flows.ops import mean_flat
from keras_flows.ops import mean_losses
from keras_flows.ops import note
from keras_flows.ops import over_replicas
from keras_flows.ops import parts
from keras_flows.ops import register
from keras_flows.ops.scalars import NOT_NEGATIVE
from keras_flows.ops.scalars import REAL
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked

# Noise levels, evenly from 0 to 1, between which sizes are interpolated.
_LEVELS = 21


def unit(x, real, level=None):
    """w = 1 / E |x - real|, (B, 1, ...): one scale for all noise levels.

    The published weight is 1 / mean |x - real| of each example alone. It
    depends on x beside x_t, so that E[w (fake - x) | x_t], which is 0 for
    w = w(x_t), is not: in few dimensions `sid` then has no zero at fake =
    real. So the mean is also over the batch's examples of about the same
    level, which changes little where an example has many elements.

    Args:
        x: samples, (B, ...).
        real: the teacher's predictions of them, (B, ...).
        level: noise levels, (B,); None for each example alone.
    """
    size = mean_flat(ops.abs(x - real))
    if level is not None:
        place = (_LEVELS - 1.0) * level[:, None]
        apart = ops.abs(place - ops.arange(_LEVELS, dtype=level.dtype))
        share = ops.relu(1.0 - apart)
        sums = ops.stack([share, share * ops.stop_gradient(size)[:, None]])
        total, sums = ops.unstack(over_replicas(ops.sum(sums, axis=1)), 2)
        mean = sums / ops.maximum(total, 1e-12)
        size = ops.sum(share * mean, axis=1)
    size = ops.stop_gradient(ops.maximum(size, 1e-5))
    return bcast_right(1.0 / size, x)


def dmd(x, real, fake, weight=None):
    """1/2 |x - sg(x - w (fake - real))|^2, w = 1 / mean |x - real|.

    Its gradient by x is w (fake - real) / D, the difference of the scores
    up to a factor. `weight` is another w, (B, 1, ...). Source: arXiv
    2311.18828, 2405.14867.
    """
    weight = unit(x, real) if weight is None else weight
    error = x - ops.stop_gradient(x - weight * (fake - real))
    return 0.5 * mean_flat(ops.square(error))


def sid(x, real, fake, alpha=1.0, weight=None):
    """w mean (real - fake) (real - x - alpha (real - fake)).

    The gradient goes through x_t and both networks. For alpha = 0 the mean
    over the noise is that of |real - fake|^2 when `fake` has converged; alpha
    about 1 takes off what it has not. `weight` as in `dmd`. Source: score
    identity distillation, arXiv 2404.04057.
    """
    weight = unit(x, real) if weight is None else weight
    difference = real - fake
    terms = difference * (real - x - alpha * difference)
    return mean_flat(weight * terms)


def adversary(fake_logit, real_logit):
    """-log D(real) - log (1 - D(fake)), what the discriminator minimizes."""
    return ops.softplus(fake_logit) + ops.softplus(-real_logit)


def adversarial(fake_logit):
    """-log D(fake), the generator's part (arXiv 2405.14867)."""
    return ops.softplus(-fake_logit)


@register
@checked(
    alpha=REAL,
    regression_weight=NOT_NEGATIVE,
    adversarial_weight=NOT_NEGATIVE,
    discriminator_weight=NOT_NEGATIVE,
    level_range=given.LEVELS,
    fake_updates=SIZE,
)
@dataclasses.dataclass(frozen=True)
class DistributionMatching(Objective):
    """The turns of a generator and its fake network.

    The generator's turn is `dmd` or `sid` on samples noised to levels of
    `level_range`, plus -log D(x_t) where there is a discriminator; the fake
    network's is the teacher's own regression of the generator's samples, with
    times of the teacher's law, plus the discriminator's loss.

    Args:
        method: "dmd" or "sid".
        alpha: of "sid".
        regression_weight: weight of |G(noise) - x|^2 on pairs of the
            teacher's samples and the noise they came from; 0 for none.
        adversarial_weight: weight of -log D in the generator's loss.
        discriminator_weight: weight of D's own loss beside the fake
            network's. It scales D's gradients only, so it matters for
            optimizers that are not scale-free, and for clipping.
        level_range: levels of noise, 0 data and 1 noise, between which the
            two predictions are compared.
        fake_updates: turns of the fake network for each of the generator.
    """

    method: str = "dmd"
    alpha: float = 1.0
    regression_weight: float = 0.0
    adversarial_weight: float = 3e-3
    discriminator_weight: float = 1e-2
    level_range: tuple = (0.02, 0.98)
    fake_updates: int = 2

    name = "distribution_matching"
    terms = ("generator_loss", "fake_loss")
    predicts = "data"
    sampler = "flow_map_jump"
    num_steps = 1

    def __post_init__(self):
        given.choice("method", self.method, ("dmd", "sid"))
        if self.fake_updates < 1:
            raise ValueError(
                "`fake_updates` must be at least 1. "
                f"Received: {self.fake_updates!r}."
            )

    def __call__(self, model, batch):
        x, condition = batch.x, batch.condition
        count = len(model.fake_networks)
        # Rows of the samples: of every step, or of one.
        real, label = copies(x, count), copies(condition, count)
        # All draws before the turns, which are branches of one graph.
        rows = ops.shape(real)[:1]
        low, high = self.level_range
        level = low + (high - low) * model.sample_uniform(rows)
        path = model.interpolant
        t = path.within(path.time_of_level(level))
        fake_t = model.fake_times(real)
        n = model.sample_n(ops.shape(real))
        draws = model.draw(x)

        def of_examples(loss):
            return sum(parts(loss, count)) / count

        # What networks add to a turn's loss, see `note_losses`. It leaves the
        # branches as their output.
        added, judges = [], [*model.fake_networks, *model.discriminators]

        def with_added(notes, networks, *losses):
            own = mean_losses(notes, networks)
            if own is None:
                return *losses, ops.zeros((), dtype=losses[0].dtype)
            added.append(own)
            return *losses, own

        def generator():
            with gather("losses") as notes:
                made = model.produce(draws, condition)
                loss = self.generator_loss(model, made, n, t, label)
                loss = of_examples(loss)
                if self.regression_weight:
                    again = model.first_step(batch.noise, condition)
                    regression = mean_flat(ops.square(again - x))
                    loss = loss + self.regression_weight * regression
            zeros = ops.zeros_like(loss)
            return with_added(notes, [model.network], loss, zeros)

        def fake():
            # Inside the turn, so that nothing is differentiated in vain.
            with gather("losses") as notes:
                made = ops.stop_gradient(model.produce(draws, condition))
                loss = self.fake_loss(model, made, n, fake_t, label)
                if model.discriminator is not None:
                    logits = (
                        model.logit(model.sample_x_t(each, n, t), t, label)
                        for each in (made, real)
                    )
                    loss = loss + self.discriminator_weight * adversary(*logits)
                loss = of_examples(loss)
            return with_added(notes, judges, ops.zeros_like(loss), loss)

        optimizer = getattr(model, "optimizer", None)
        if not batch.training or optimizer is None or not optimizer.built:
            # Outside training the terms of both sides.
            (g, _, own), (_, f, others) = generator(), fake()
            self._note(added, own + others)
            return {"loss": g + f, "generator_loss": g, "fake_loss": f}
        g, f, own = ops.cond(optimizer.first_turn(), generator, fake)
        self._note(added, own)
        # So that the means in the logs are over each side's own turns.
        turns = self.fake_updates + 1.0
        return {
            "loss": g + f,
            "generator_loss": turns * g,
            "fake_loss": turns / self.fake_updates * f,
        }

    @staticmethod
    def _note(added, own):
        """Hand on what networks add to their losses, if they do."""
        if added:
            note([own, ops.ones_like(own)], "losses", "turns")

    def generator_loss(self, model, made, n, t, condition):
        """The generator's loss at its samples `made`, (B,)."""
        x_t = model.sample_x_t(made, n, t)
        real = model.teacher.denoise(x_t, t, condition)
        fake = model.fake_denoise(x_t, t, condition)
        # Of each step's own samples, as its fake network is.
        weight = by_step(
            lambda network, *rows: unit(*rows),
            model.fake_networks,
            (made, real, model.interpolant.level(t)),
        )
        if self.method == "sid":
            loss = sid(made, real, fake, self.alpha, weight)
        else:
            loss = dmd(made, real, fake, weight)
        if model.discriminator is not None:
            logit = model.logit(x_t, t, condition)
            loss = loss + self.adversarial_weight * adversarial(logit)
        return loss

    def fake_loss(self, model, made, n, t, condition):
        """The fake networks' loss at the samples `made`, (B,)."""
        return by_step(
            lambda network, *rows: denoising_loss(
                model.teacher.model, network, *rows
            ),
            model.fake_networks,
            (made, n, t, condition),
        )
