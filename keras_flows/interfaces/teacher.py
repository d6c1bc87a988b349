"""A frozen model inside another one: what it says, and where it leads."""

import itertools
import operator

from keras import ops
from keras import tree

from keras_flows import samplers
from keras_flows.networks import Fixed
from keras_flows.networks import contract
from keras_flows.networks.null_labels import null_like
from keras_flows.ops.scalars import GUIDANCE
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked


class Teacher(Fixed):
    """A trained model that teaches; no optimizer and no flag reaches it.

    Its variables are among the student's, not trainable: they are saved with
    it, and no optimizer has slots for them. Its first EMA, if it has one, is
    what teaches.

    Args:
        model: a frozen interface, or a holder that samples.
        student: the model it teaches, on the same path.
        guidance_scale: of its predictions, 1.0 for none.
        sampler: a one-step sampler, by which it walks, or its name.
        steps: number of its steps in `walk`.
        needs: what it must predict.
    """

    @checked(guidance_scale=GUIDANCE, steps=SIZE)
    def __init__(self, model, student, guidance_scale=1.0, sampler="euler",
                 steps=1, needs=("velocity",)):  # fmt: skip
        check_teacher(model, student, needs)
        check_guidance(model, guidance_scale)
        super().__init__(name="teacher")
        self.model = model
        self.guidance_scale = guidance_scale
        self.sampler = one_step(sampler)
        self.steps = steps
        self.built = True

    @property
    def network(self):
        """The network that teaches."""
        return self.model.inference_network()

    def bound(self, condition, network=None):
        """The teacher as samplers see it, with its guidance.

        Args:
            condition: of the batch.
            network: called in the place of the teacher's own.
        """
        if network is None:
            network = self.network
        scale = self.guidance_scale
        if scale != 1.0:
            rows = ops.shape(tree.flatten(condition)[0])[0]
            condition, scale = self.model.absorb_guidance(
                condition, scale, rows
            )
        positive = self.model.bind(network, condition)
        if scale == 1.0:
            return positive
        null = null_like(condition, self.model.null_label)
        negative = self.model.bind(network, null)
        return samplers.Guided(positive, negative, scale)

    def velocity(self, x_t, t, condition=None):
        """Its (guided) velocity at x_t, (B, ...)."""
        return self.bound(condition).pred(x_t, t)

    def denoise(self, x_t, t, condition=None):
        """Its (guided) prediction of the data, (B, ...)."""
        return self.bound(condition).denoise(x_t, t)

    def walk(self, x_t, t, s, condition=None, noise=None):
        """x_s from x_t by `steps` of its sampler, (B, ...); see `walk`."""
        return walk(
            self.bound(condition), self.sampler, self.steps, x_t, t, s, noise
        )


def walk(predictor, sampler, steps, x_t, t, s, noise=None):
    """x_s from x_t by a one-step sampler, without gradient, (B, ...).

    Args:
        predictor: what the sampler sees.
        sampler: a one-step `Sampler`.
        steps: how many.
        x_t: (B, ...).
        t: (B,), the times of x_t.
        s: (B,), times nearer to the data.
        noise: function of a shape to standard normal noise, for a stochastic
            sampler.
    """
    path = predictor.interpolant
    high, low = path.level(t), path.level(s)
    # Even in level, and the ends themselves without rounding.
    between = [
        path.nearest_step(path.time_of_level(high + (low - high) * (k / steps)))
        for k in range(1, steps)
    ]
    for start, end in itertools.pairwise([t, *between, s]):
        drawn = noise(ops.shape(x_t)) if sampler.stochastic else None
        x_t = sampler.step(predictor, x_t, start, end, drawn, False)
    return ops.stop_gradient(x_t)


def one_step(identifier):
    """A one-step sampler, from its name or itself.

    Raises:
        ValueError: if it looks at earlier steps.
    """
    sampler = samplers.get(identifier, "teacher_sampler")
    if sampler.history:
        raise ValueError(
            "`teacher_sampler` must be a one-step sampler, such as 'ddim', "
            f"'heun' or kf.samplers.DDIM(eta=0.5). Received: {sampler}."
        )
    return sampler


def check_guidance(teacher, scale):
    """Refuse a scale of guidance that the teacher has no null label for."""
    if scale != 1.0 and (teacher is None or teacher.null_label is None):
        raise ValueError(
            "`teacher_guidance_scale` needs a teacher whose network has a "
            f"null label. Received {scale} and teacher {teacher!r}."
        )


def check_stable(stable_target):
    """Refuse stable targets beside a teacher."""
    if stable_target:
        raise ValueError(
            "`stable_target=True` averages what is sampled of data and "
            "noise, and a `teacher` leaves nothing of that. Give one of "
            "them; the teacher may be trained with it."
        )


def check_teacher(teacher, student, needs=()):
    """A frozen interface on the student's path, data and condition."""
    check_needs(teacher, needs)
    if not teacher.network.built:
        raise ValueError(
            f"`teacher` has a network ('{teacher.network.name}') that is not "
            "built yet, and nothing to teach: train it first."
        )
    own, other = student.interpolant, teacher.interpolant
    if other != own:
        raise ValueError(
            f"`teacher` must have the student's interpolant. Received {other} "
            f"beside {own}; kf.ReparametrizedInterface(teacher, interpolant) "
            "carries a teacher over to another path."
        )
    for what in ("sample_shape", "n_mu", "n_sigma"):
        own, other = getattr(student, what), getattr(teacher, what)
        same = contract.agree if what == "sample_shape" else operator.eq
        if not same(own, other):
            raise ValueError(
                f"`teacher` must have the student's {what}. Received {other} "
                f"beside {own}."
            )
    if not contract.same_condition(student.network, teacher.network):
        own, other = (
            contract.input_specs(m.network).get("condition", "none")
            for m in (student, teacher)
        )
        raise ValueError(
            "`teacher` must take the student's condition. Received "
            f"{other} beside {own}."
        )
    if teacher.trainable_variables:
        raise ValueError(
            "`teacher` is trainable, and the student's optimizer would move "
            f"its {len(teacher.trainable_variables)} variables. Set "
            "teacher.trainable = False first."
        )


def check_needs(teacher, needs):
    """Refuse a teacher that does not predict what it is to teach."""
    if not hasattr(teacher, "interpolant") or not hasattr(teacher, "pred"):
        raise ValueError(
            "`teacher` must be a trained Interface, such as "
            f"kf.SiTInterface. Received: {teacher!r}."
        )
    missing = sorted(set(needs) - set(teacher.provides))
    if missing:
        raise ValueError(
            f"`teacher` must predict {' and '.join(missing)}; a "
            f"{type(teacher).__name__} with objective "
            f"'{teacher.objective.name}' predicts "
            f"{' and '.join(sorted(teacher.provides))}."
        )
