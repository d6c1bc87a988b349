"""Distillation by distributions: a generator, its fake network, a teacher."""

import keras
import numpy as np
from keras import ops

from keras_flows.interfaces.student import Student
from keras_flows.interfaces.student import student_of
from keras_flows.networks import clone_network
from keras_flows.objectives import distribution_matching
from keras_flows.ops import bcast_right
from keras_flows.ops import copies
from keras_flows.ops import mean_flat
from keras_flows.ops import parts
from keras_flows.ops import register
from keras_flows.samplers import FlowMapJump
from keras_flows.training import AlternatingOptimizer

METHODS = ("dmd", "sid")


@register
class DMDInterface(Student):
    """Distribution matching distillation: a generator of one or few steps.

    Two networks take turns: the generator G, whose samples' score, as the
    fake network sees it, is to equal the teacher's, and the fake network,
    which learns its samples by the teacher's own objective. Of each
    `fake_updates` + 1 training steps the first moves G and the others the
    fake network, each with its own optimizer:

    ```python
    model = kf.DMDInterface(teacher)  # teacher.trainable is False
    model.compile(generator_optimizer, fake_optimizer)
    model.fit(data)
    ```

    With `num_steps` above 1, G starts from its own samples, noised anew to
    one of its times (DMD2's back-simulation). One fake network then sees the
    samples of all steps and what is matched is their mixture, as published:
    each example of a batch is a sample of one step. With `separate_fakes` each
    step has a fake network, and a discriminator, of its own, and each example
    is a sample of every step, all of which the back-simulation passes anyway.

    With a `discriminator` D, which takes turns with the fake network, G's loss
    has the term -log D(x_t) too (DMD2's GAN on noised samples), and batches
    are the real data. Without, they give shapes and conditions; with
    `regression_weight` (first DMD) they are pairs, x the teacher's sample and
    extras {"noise": what it came from}.

    The fake network learns by the teacher's objective, with stable targets if
    the teacher has them.

    Sources: DMD, arXiv 2311.18828; DMD2, arXiv 2405.14867; SiD, 2404.04057.

    Args:
        teacher: a frozen interface. The fake network starts as its copy.
        student: the generator's interface, on the same path; by default a
            copy of the teacher.
        method: "dmd" or "sid", the generator's loss (see
            `objectives.distribution_matching`).
        num_steps: number of G's steps.
        fake_updates: updates of the fake network for each of G.
        separate_fakes: whether each of several steps has a fake network of
            its own, and a discriminator if there are any. Each sees the
            whole batch, so the calls of teacher, fake network and
            discriminator, and the memory of the latter two, are `num_steps`
            times as many.
        alpha: of "sid".
        regression_weight: weight of |G(noise) - x|^2; 0 for none.
        discriminator: a network with the inputs of the teacher's; the mean of
            its output is the logit of x_t being real. Or None.
        adversarial_weight: weight of -log D in G's loss.
        discriminator_weight: weight of D's own loss beside the fake
            network's. It scales D's gradients only, so it matters for
            optimizers that are not scale-free, and for clipping.
        time_range: noise fractions between which scores are compared.
        teacher_guidance_scale: of the teacher's prediction; 1.0 for none.
        name: model name.
    """

    def __init__(
        self,
        teacher,
        student=None,
        *,
        method="dmd",
        num_steps=1,
        fake_updates=5,
        separate_fakes=False,
        alpha=1.0,
        regression_weight=0.0,
        discriminator=None,
        adversarial_weight=3e-3,
        discriminator_weight=1e-2,
        time_range=(0.02, 0.98),
        teacher_guidance_scale=1.0,
        name=None,
    ):
        super().__init__(
            student_of(teacher) if student is None else student, name=name
        )
        if method not in METHODS:
            raise ValueError(
                f"`method` must be one of {METHODS}. Received: {method!r}."
            )
        if num_steps < 1 or fake_updates < 1:
            raise ValueError(
                "`num_steps` and `fake_updates` must be at least 1. "
                f"Received: {num_steps}, {fake_updates}."
            )
        low, high = (float(edge) for edge in time_range)
        if not 0.0 <= low < high <= 1.0:
            raise ValueError(
                "`time_range` must be two noise fractions with 0 <= low < "
                f"high <= 1. Received: {time_range}."
            )
        self._set_student(teacher, teacher_guidance_scale)
        self.method = method
        self.num_steps = num_steps
        self.fake_updates = fake_updates
        self.separate_fakes = separate_fakes
        self.alpha = alpha
        if regression_weight and discriminator is not None:
            raise ValueError(
                "`regression_weight` wants batches of the teacher's samples "
                "and `discriminator` batches of data: give one of them."
            )
        if discriminator in (teacher.network, self.interface.network):
            raise ValueError(
                "`discriminator` must be a network of its own, not the "
                "teacher's or the student's. A copy of the teacher's will do."
            )
        self.regression_weight = regression_weight
        self.adversarial_weight = adversarial_weight
        self.discriminator_weight = discriminator_weight
        self.time_range = (low, high)
        fake = _rival(teacher.inference_network(), "fake_network")
        self.fake_networks = [fake]
        self.discriminators = [] if discriminator is None else [discriminator]
        for step in range(1, num_steps if separate_fakes else 1):
            self.fake_networks.append(_rival(fake, f"fake_network_{step}"))
            if discriminator is not None:
                self.discriminators.append(
                    _rival(discriminator, f"discriminator_{step}")
                )
        self._times = self.default_sampler.times(self.interpolant, num_steps)
        self._track(("generator_loss", "fake_loss"))
        self.built = True

    @property
    def fake_network(self):
        """The only fake network, or the first step's."""
        return self.fake_networks[0]

    @property
    def discriminator(self):
        """The only discriminator, or the first step's; None without."""
        return self.discriminators[0] if self.discriminators else None

    def compile(self, optimizer, fake_optimizer=None, **kwargs):
        """Configure training.

        Args:
            optimizer: of the generator.
            fake_optimizer: of the fake network, by default one like
                `optimizer`.
            **kwargs: of `keras.Model.compile`.
        """
        if not isinstance(optimizer, AlternatingOptimizer):
            optimizer = AlternatingOptimizer(
                optimizer, fake_optimizer, self.fake_updates
            )
        rivals = [*self.fake_networks, *self.discriminators]
        optimizer.second_group(
            [v for rival in rivals for v in rival.trainable_variables]
        )
        super().compile(optimizer, **kwargs)

    def make_train_function(self, force=False):
        # The graph asks the optimizer whose turn it is.
        if self.optimizer is not None and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def draw(self, x):
        """What `produce` needs for a batch like x: noises, chosen steps."""
        shape = ops.shape(x)
        noise = (self.sample_n(shape) - self.n_mu) / self.n_sigma
        if self.num_steps == 1:
            return noise, (), None
        anew = tuple(self.sample_n(shape) for _ in range(self.num_steps - 1))
        if self.separate_fakes:
            return noise, anew, None
        which = ops.floor(self.sample_uniform(shape[:1]) * self.num_steps)
        return noise, anew, which

    def produce(self, draws, condition=None):
        """G's samples from the draws of `draw`, differentiable.

        Each step starts where those before it lead, without gradient.

        Returns:
            (B, ...), of the step chosen for each example, or, with
            `separate_fakes`, (num_steps B, ...), of one step after the other.
        """
        noise, anew, which = draws
        x = self.start(noise)
        times = [
            ops.full(ops.shape(x)[:1], float(t), dtype=x.dtype)
            for t in self._times[:-1]
        ]
        if which is None:
            made = [self.denoise(x, times[0], condition=condition)]
            for n, t in zip(anew, times[1:], strict=True):
                x = self.sample_x_t(ops.stop_gradient(made[-1]), n, t)
                made.append(self.denoise(x, t, condition=condition))
            return made[0] if len(made) == 1 else ops.concatenate(made, axis=0)
        chosen, time = x, times[0]
        for k, n in enumerate(anew, 1):
            clean = ops.stop_gradient(
                self.denoise(x, times[k - 1], condition=condition)
            )
            x = self.sample_x_t(clean, n, times[k])
            here = ops.equal(which, float(k))
            chosen = ops.where(bcast_right(here, x), x, chosen)
            time = ops.where(here, times[k], time)
        return self.denoise(chosen, time, condition=condition)

    def loss(self, x, condition=None, extras=None, *, training=True):
        """The turn's "loss", "generator_loss" and "fake_loss", each (B,)."""
        if training:
            condition = self.drop_condition(condition)
        pairs = self._pairs(x, extras)
        # Rows of the samples: of every step, or of one.
        count = len(self.fake_networks)
        real, label = copies(x, count), copies(condition, count)
        # All draws before the turns, which are branches of one graph.
        low, high = self.time_range
        fraction = low + (high - low) * self.sample_uniform(ops.shape(real)[:1])
        t = self.interpolant.time_from_fraction(fraction)
        fake_t = self.draw_t(real)
        n = self.sample_n(ops.shape(real))
        draws = self.draw(x)

        def of_examples(loss):
            return sum(parts(loss, count)) / count

        def generator():
            made = self.produce(draws, condition)
            loss = of_examples(self._generator_loss(made, n, t, label))
            if pairs is not None:
                again = self.denoise(
                    self.start(pairs),
                    ops.full(
                        ops.shape(x)[:1], float(self._times[0]), dtype=x.dtype
                    ),
                    condition=condition,
                )
                regression = mean_flat(ops.square(again - x))
                loss = loss + self.regression_weight * regression
            return loss

        def fake():
            # Inside the turn, so that nothing is differentiated in vain.
            made = ops.stop_gradient(self.produce(draws, condition))
            loss = self._fake_loss(made, n, fake_t, label)
            if self.discriminator is not None:
                logits = (
                    self._logit(self.sample_x_t(each, n, t), t, label)
                    for each in (made, real)
                )
                adversary = distribution_matching.adversary(*logits)
                loss = loss + self.discriminator_weight * adversary
            return of_examples(loss)

        return self._turn(generator, fake, training)

    def _turn(self, generator, fake, training):
        """The terms of the side whose turn it is, of both outside training."""
        optimizer = getattr(self, "optimizer", None)
        if not training or optimizer is None or not optimizer.built:
            g, f = generator(), fake()
            return {"loss": g + f, "generator_loss": g, "fake_loss": f}

        def move_generator():
            loss = generator()
            return loss, ops.zeros_like(loss)

        def move_fake():
            loss = fake()
            return ops.zeros_like(loss), loss

        g, f = ops.cond(optimizer.first_turn(), move_generator, move_fake)
        # So that the means in the logs are over each side's own turns.
        turns = self.fake_updates + 1.0
        return {
            "loss": g + f,
            "generator_loss": turns * g,
            "fake_loss": turns / self.fake_updates * f,
        }

    def _generator_loss(self, made, n, t, condition):
        x_t = self.sample_x_t(made, n, t)
        real = self.instructor(condition).denoise(x_t, t)
        fake = self._by_step(
            lambda network, x_t, t, condition: self.teacher.denoise(
                x_t, t, condition=condition, network=network
            ),
            self.fake_networks,
            (x_t, t, condition),
        )
        if self.method == "sid":
            loss = distribution_matching.sid(made, real, fake, self.alpha)
        else:
            loss = distribution_matching.dmd(made, real, fake)
        if self.discriminator is not None:
            adversarial = distribution_matching.adversarial(
                self._logit(x_t, t, condition)
            )
            loss = loss + self.adversarial_weight * adversarial
        return loss

    def _logit(self, x_t, t, condition):
        """D's logit of x_t being noised data, (B,)."""
        return self._by_step(
            lambda network, x_t, t, condition: mean_flat(
                self.teacher.raw(x_t, t, condition=condition, network=network)
            ),
            self.discriminators,
            (x_t, t, condition),
        )

    def _fake_loss(self, made, n, t, condition):
        teacher = self.teacher

        def loss(network, made, n, t, condition):
            x_t = self.sample_x_t(made, n, t)
            # Its own objective, with stable targets if it has them.
            ends = teacher.endpoints(made, n, t, condition)
            error = teacher.net(
                x_t, t, condition=condition, network=network
            ) - teacher.target(*ends, t)
            return teacher.loss_weight(t) * mean_flat(ops.square(error))

        return self._by_step(loss, self.fake_networks, (made, n, t, condition))

    @staticmethod
    def _by_step(function, networks, batch):
        """function(network, *rows), each step's network with its own rows."""
        rows = zip(*(parts(each, len(networks)) for each in batch), strict=True)
        found = [
            function(network, *each)
            for network, each in zip(networks, rows, strict=True)
        ]
        return found[0] if len(found) == 1 else ops.concatenate(found, axis=0)

    def _pairs(self, x, extras):
        """The noise of (noise, sample) pairs, where they are asked for."""
        given = set(extras or {})
        wanted = {"noise"} if self.regression_weight else set()
        if given != wanted:
            raise ValueError(
                "Batches must be (x, condition, {'noise': ...}) for a "
                "`regression_weight` above 0, and x or (x, condition) "
                f"without. Received extras {sorted(given)} and "
                f"regression_weight={self.regression_weight}."
            )
        return extras["noise"] if wanted else None

    @property
    def default_sampler(self):
        grid = np.linspace(1.0, 0.0, self.num_steps + 1)
        times = self.interpolant.time_from_fraction(grid)
        times[0], times[-1] = self.interpolant.t_noise, self.interpolant.t_data
        return FlowMapJump(tuple(times.tolist()), renoise=1.0)

    @property
    def default_num_steps(self):
        return self.num_steps

    def get_config(self):
        return {
            **super().get_config(),
            "method": self.method,
            "num_steps": self.num_steps,
            "fake_updates": self.fake_updates,
            "separate_fakes": self.separate_fakes,
            "alpha": self.alpha,
            "regression_weight": self.regression_weight,
            "discriminator": keras.saving.serialize_keras_object(
                self.discriminator
            ),
            "adversarial_weight": self.adversarial_weight,
            "discriminator_weight": self.discriminator_weight,
            "time_range": list(self.time_range),
        }


def _rival(network, name):
    """A trainable copy of a network."""
    copy = clone_network(network, name)
    copy.trainable = True
    return copy
