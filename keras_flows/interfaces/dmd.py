"""Distillation by distributions: a generator, its fake network, a teacher."""

from __future__ import annotations

import typing

import keras
from keras import ops

from keras_flows import objectives
from keras_flows import samplers
from keras_flows.interfaces.arguments import checked_arguments
from keras_flows.interfaces.arguments import with_arguments
from keras_flows.interfaces.holder import Holder
from keras_flows.interfaces.judges import check_discriminator
from keras_flows.interfaces.judges import for_steps
from keras_flows.interfaces.judges import trainable_copy
from keras_flows.interfaces.student import check_student
from keras_flows.interfaces.student import start_of
from keras_flows.interfaces.student import student_of
from keras_flows.interfaces.teacher import Teacher
from keras_flows.interfaces.teacher import check_needs
from keras_flows.networks import serialize_network
from keras_flows.ops import bcast_right
from keras_flows.ops import by_step
from keras_flows.ops import eager_float64
from keras_flows.ops import float_dtype
from keras_flows.ops import given
from keras_flows.ops import mean_flat
from keras_flows.ops import note_losses
from keras_flows.ops import register
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked
from keras_flows.samplers.grids import jump_grid
from keras_flows.samplers.grids import refuse_start
from keras_flows.training import AlternatingOptimizer

if typing.TYPE_CHECKING:
    from keras_flows.interfaces.generator import Generator
    from keras_flows.interfaces.interface import Interface

NEEDS = ("data", "score")


@register
class DMDInterface(Holder):
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
    the teacher has them, and at the teacher's times. The losses are in
    `objectives.DistributionMatching`.

    Sources: DMD, arXiv 2311.18828; DMD2, arXiv 2405.14867; SiD, 2404.04057.

    Args:
        teacher: a frozen interface. The fake network starts as its copy.
        student: the generator's interface, on the same path; by default a
            copy of the teacher.
        method: "dmd" or "sid", the generator's loss.
        num_steps: number of G's steps.
        fake_updates: updates of the fake network for each of G: 5 in DMD2,
            1 in SiD. With 2 short runs find both modes from every path.
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
            network's.
        time_range: levels of noise, 0 data and 1 noise, between which scores
            are compared.
        start_level: level of noise of G's first step. 1 is pure noise, where
            the teacher knows least and G, its copy, has one and the same
            sample for every noise. By default that at which sigma / alpha =
            5 x_sigma (SiD's sigma_init of 2.5 for data of standard deviation
            0.5); and 1 for several steps (DMD2) or pairs (first DMD).
        teacher_guidance_scale: of the teacher's prediction; 1.0 for none.
        name: model name.
    """

    # Of a discriminator only the mean is taken, of any shape.
    output_parts = None

    @checked_arguments
    @checked(num_steps=SIZE, time_range=given.LEVELS)
    def __init__(
        self,
        teacher: Generator,
        student: Interface | None = None,
        *,
        method: str = "dmd",
        num_steps: int = 1,
        fake_updates: int = 2,
        separate_fakes: bool = False,
        alpha: float = 1.0,
        regression_weight: float = 0.0,
        discriminator: keras.Model | None = None,
        adversarial_weight: float = 3e-3,
        discriminator_weight: float = 1e-2,
        time_range: tuple[float, float] = (0.02, 0.98),
        start_level: float | None = None,
        teacher_guidance_scale: float = 1.0,
        name: str | None = None,
    ) -> None:
        check_needs(teacher, NEEDS)
        student = student_of(teacher) if student is None else student
        check_student(student)
        own = objectives.DistributionMatching(
            method, alpha, regression_weight, adversarial_weight,
            discriminator_weight, time_range, fake_updates,
        )  # fmt: skip
        super().__init__(student, own.terms, inner_terms=False, name=name)
        self._own = own
        check_discriminator(discriminator, teacher, student, regression_weight)
        self.teacher = Teacher(
            teacher, student, teacher_guidance_scale, needs=NEEDS
        )
        self.teacher_guidance_scale = teacher_guidance_scale
        self.num_steps = num_steps
        self.separate_fakes = separate_fakes
        count = num_steps if separate_fakes else 1
        fake = trainable_copy(self.teacher.network, "fake_network")
        self.fake_networks = for_steps(fake, count)
        self.discriminators = for_steps(discriminator, count)
        self.start_level = start_of(
            student, start_level, num_steps > 1 or regression_weight > 0
        )
        _, _, self._times = self.sampling_times()
        with eager_float64() as number:
            first = number(self.interpolant.sigma, self._times[0])
        self._start_sigma = float(first)
        self.built = True

    @property
    def objective(self):
        """`objectives.DistributionMatching`."""
        return self._own

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
                optimizer, fake_optimizer, self.objective.fake_updates
            )
        second = [*self.fake_networks, *self.discriminators]
        optimizer.second_group(
            [v for network in second for v in network.trainable_variables]
        )
        super().compile(optimizer, **kwargs)

    def networks(self):
        return list(self.discriminators)

    def loss(self, x, condition=None, extras=None, *, training=True):
        """The turn's "loss", "generator_loss" and "fake_loss", each (B,)."""
        noise = self._pairs(extras)
        self.check_batch(x, condition, None)
        if training:
            condition = self.interface.drop_condition(condition)
        x = ops.cast(x, float_dtype())
        batch = objectives.Batch(x, condition, training, noise=noise)
        return self.objective(self, batch)

    def _pairs(self, extras):
        """The noise of (noise, sample) pairs, where they are asked for."""
        weight = self.objective.regression_weight
        given = {} if extras is None else extras
        wanted = {"noise"} if weight else set()
        if not isinstance(given, dict) or set(given) != wanted:
            given = sorted(given) if isinstance(given, dict) else given
            raise ValueError(
                "Batches must be (x, condition, {'noise': ...}) for a "
                "`regression_weight` above 0, and x or (x, condition) "
                "without; a 'mask' does not count, as the losses are of whole "
                f"samples. Received extras {given!r} and "
                f"regression_weight={weight}."
            )
        return extras["noise"] if wanted else None

    def sample_t(self, shape, seed=None):
        """Times of the fake network: the teacher's law, by our own seed."""
        seed = self.interface.seed_generator if seed is None else seed
        return self.teacher.model.sample_t(shape, seed)

    def fake_times(self, x):
        """Shifted times of the fake network for samples like x, (B,)."""
        t = self.sample_t(ops.shape(x)[:1])
        return self.teacher.model.shifted(t, x)

    def denoise(self, x_t, t, *, condition=None, network=None):
        """G's sample from x_t, which is where the flow ends, (B, ...)."""
        return self.interface.denoise(
            x_t, t, condition=condition, network=network
        )

    # The generator's samples.

    def start(self, noise, t=None):
        """The state at the first step's time, sigma (n_mu + n_sigma noise)."""
        if self.start_level == 1.0:
            return super().start(noise, t)
        return self._start_sigma * (self.n_mu + self.n_sigma * noise)

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
        x, times = self.start(noise), self._step_times(noise)
        if which is None:
            made = [self.interface.denoise(x, times[0], condition=condition)]
            for n, t in zip(anew, times[1:], strict=True):
                x = self.sample_x_t(ops.stop_gradient(made[-1]), n, t)
                made.append(self.interface.denoise(x, t, condition=condition))
            return made[0] if len(made) == 1 else ops.concatenate(made, axis=0)
        chosen, time = x, times[0]
        for k, n in enumerate(anew, 1):
            clean = ops.stop_gradient(
                self.interface.denoise(x, times[k - 1], condition=condition)
            )
            x = self.sample_x_t(clean, n, times[k])
            here = ops.equal(which, float(k))
            chosen = ops.where(bcast_right(here, x), x, chosen)
            time = ops.where(here, times[k], time)
        return self.interface.denoise(chosen, time, condition=condition)

    def first_step(self, noise, condition=None):
        """G's sample from given noise in its first step, (B, ...)."""
        time = self._step_times(noise)[0]
        return self.interface.denoise(
            self.start(noise), time, condition=condition
        )

    def _step_times(self, like):
        rows = ops.shape(like)[:1]
        return [
            ops.full(rows, float(t), dtype=float_dtype())
            for t in self._times[:-1]
        ]

    # What judges them.

    def fake_denoise(self, x_t, t, condition):
        """The fake networks' predictions of the data, (B, ...)."""
        model = self.teacher.model
        return by_step(
            lambda network, x_t, t, condition: model.denoise(
                x_t, t, condition=condition, network=network
            ),
            self.fake_networks,
            (x_t, t, condition),
        )

    def logit(self, x_t, t, condition):
        """D's logit of x_t being noised data, (B,)."""
        model = self.interface

        def one(network, x_t, t, condition):
            inputs = model.inputs(x_t, t, None, condition, network)
            logits = network(inputs)
            note_losses(network, x_t)
            return mean_flat(ops.cast(logits, float_dtype()))

        return by_step(one, self.discriminators, (x_t, t, condition))

    # Sampling, at the times that G was trained for.

    @property
    def provides(self):
        return samplers.EndOfFlow.provides

    def bind(self, network, condition):
        return samplers.EndOfFlow(self.interface.bind(network, condition))

    def sampling_times(self, sampler=None, num_steps=None, start=None):
        refuse_start(start, "a distilled generator")
        num_steps = self.num_steps if num_steps is None else num_steps
        if num_steps != self.num_steps:
            raise ValueError(
                f"`num_steps` must be {self.num_steps}, for which the "
                f"generator was trained. Received: {num_steps!r}."
            )
        sampler = self.default_sampler if sampler is None else sampler
        sampler = samplers.get(sampler)
        samplers.check_fit(sampler, self.provides, type(self).__name__)
        path = self.interpolant
        times = jump_grid(path, num_steps)
        if self.start_level < 1.0:
            levels = self.start_level * path.level(times[:-1])
            times[:-1] = path.nearest_step(path.time_of_level(levels))
        return sampler, num_steps, times

    @property
    def default_sampler(self):
        return samplers.FlowMapJump(renoise=1.0)

    @property
    def default_num_steps(self):
        return self.num_steps

    @classmethod
    def from_config(cls, config, custom_objects=None):
        # Generators without a level were trained from pure noise.
        config = {"start_level": 1.0, **config}
        return super().from_config(config, custom_objects)

    def get_config(self):
        config = self.objective.get_config()
        config["time_range"] = list(config.pop("level_range"))
        config["student"] = keras.saving.serialize_keras_object(self.interface)
        config["discriminator"] = serialize_network(self.discriminator)
        return with_arguments(config, self, DMDInterface)
