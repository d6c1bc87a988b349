"""Consistency models: one call from any point of a path to its data end."""

import keras
from keras import layers
from keras import ops

from keras_flows.interfaces.interface import Interface
from keras_flows.interfaces.teacher import Taught
from keras_flows.interfaces.teacher import get_teacher_sampler
from keras_flows.interfaces.teacher import serialize_teacher
from keras_flows.interpolants import TrigFlow
from keras_flows.interpolants import VarianceExploding
from keras_flows.networks import TimeFeatures
from keras_flows.objectives import Objective
from keras_flows.objectives import consistency as theory
from keras_flows.ops import bcast_right
from keras_flows.ops import float_dtype
from keras_flows.ops import register
from keras_flows.samplers import FlowMapJump
from keras_flows.training import EMA

SCHEDULES = ("constant", "cm", "ict", "ect")


class DataJump:
    """Jumps of a model whose `denoise` ends on the data; a mixin.

    `denoise` is f(x_t, t), one call away. A jump to a time r before the data
    end keeps the noise that f implies (DDIM); sampling in several steps draws
    it anew (`FlowMapJump(renoise=1)`, multistep consistency sampling).
    """

    def jump(self, x_t, t, r, *, condition=None, network=None):
        """X_{t->r}: f itself at the data end, else alpha_r f + sigma_r n."""
        path = self.interpolant
        f = self.denoise(x_t, t, condition=condition, network=network)
        coefficients = (path.alpha(t), path.sigma(t), path.alpha(r))
        alpha, sigma, alpha_r = (bcast_right(c, x_t) for c in coefficients)
        sigma_r = bcast_right(
            ops.where(path.noise_fraction(r) > 0, path.sigma(r), 0.0), x_t
        )
        return alpha_r * f + sigma_r * (x_t - alpha * f) / sigma

    @property
    def default_sampler(self):
        return FlowMapJump(renoise=1.0)


class Scheduled:
    """Counts the optimizer's updates, for schedules; a mixin."""

    def _count_updates(self, total_steps):
        if total_steps < 1:
            raise ValueError(
                "`total_steps` must be at least 1, the steps over which the "
                f"schedule runs. Received: {total_steps!r}."
            )
        self.total_steps = total_steps
        self.updates = self._counter("updates")

    def after_update(self, updated):
        """Count the optimizer's updates."""
        super().after_update(updated)
        self.updates.assign_add(ops.cast(updated, "int32"))

    def progress(self):
        """Share of `total_steps` done, a scalar in [0, 1]."""
        done = ops.cast(self.updates, float_dtype()) / float(self.total_steps)
        return ops.minimum(done, 1.0)


class ConsistencyModel(DataJump, Scheduled, Taught):
    """What the consistency interfaces share; a mixin over `Interface`."""

    def _set_teacher(self, teacher, guidance_scale=1.0):
        super()._set_teacher(teacher, guidance_scale)
        if teacher is not None and self.stable_target:
            raise ValueError(
                "`stable_target=True` averages what is sampled of data and "
                "noise, and a `teacher` leaves nothing of that. Give one of "
                "them; the teacher may be trained with it."
            )

    def get_config(self):
        config = super().get_config()
        config.pop("objective")
        return {
            **config,
            "teacher": serialize_teacher(self.teacher),
            "teacher_guidance_scale": self.teacher_guidance_scale,
            "total_steps": self.total_steps,
        }


@register
class ConsistencyInterface(ConsistencyModel, Interface):
    """Consistency training and distillation in discrete time.

    f(x_t, t) = c_skip x_t + c_out network(c_in x_t, c_noise) is x_t where the
    path ends, on any interpolant: with a = alpha, s = sigma, sd = x_sigma and
    m = s - a s_last / a_last (0 at `t_last`),

        c_in = 1 / sqrt(a^2 sd^2 + s^2),  c_out = sd m c_in,
        c_skip = a sd^2 / (m^2 + a^2 sd^2),

    which is the published form on `VarianceExploding`. The loss compares f at
    t and at s nearer to the data, where `schedule` says:

    - "constant": neighbours among `max_levels` noise levels, drawn evenly;
      with a teacher and its averages as target consistency distillation
      (arXiv 2303.01469);
    - "cm": as many levels as the training has come to, from `min_levels`;
    - "ict": improved training (arXiv 2310.14189), doubling levels, times from
      the law, weight 1 / |t - s|;
    - "ect": easy tuning (arXiv 2406.14548), s = t (1 - n(t) / q^j) in stages
      j, times from the law, weight 1 / |t - s|.

    Levels are Karras's on `VarianceExploding` and even in t elsewhere.

    Args:
        network: see `Interface`.
        interpolant: default `VarianceExploding()`.
        schedule: see above.
        total_steps: training steps over which the schedule runs.
        min_levels, max_levels: of the schedules but "ect".
        ect_stages, ect_factor: number of stages and q of "ect".
        target_decay: 0 for the live weights as target (stopped), else the
            decay of the average that is the target.
        teacher: None for training on pairs (x, n); else a frozen interface
            on the same interpolant, whose walk from x_t gives x_s.
        teacher_guidance_scale: of the teacher, 1.0 for none.
        teacher_sampler: how it walks: a one-step sampler. A stochastic one,
            such as `kf.samplers.DDIM(eta=0.5)`, is a stochastic teacher
            (SCott, arXiv 2403.01505).
        teacher_steps: number of its steps from t to s.
        train_time_dist_type, t_mu, t_sigma: law of "ict" and "ect"; default
            "lognormal", ln(sigma / alpha) ~ N(-1.1, 2).
        norm: default "pseudo_huber".
        n_mu, n_sigma, x_sigma, t_shift_base, cond_drop_ratio, null_label,
            ema, max_skipped_steps, seed, name: see `Interface`.
    """

    def __init__(
        self,
        network,
        interpolant=None,
        *,
        schedule="ict",
        total_steps=100_000,
        min_levels=10,
        max_levels=1280,
        ect_stages=8,
        ect_factor=2.0,
        target_decay=0.0,
        teacher=None,
        teacher_guidance_scale=1.0,
        teacher_sampler="ddim",
        teacher_steps=1,
        train_time_dist_type="lognormal",
        t_mu=-1.1,
        t_sigma=2.0,
        norm="pseudo_huber",
        t_shift_base=None,
        objective_args=None,
        **kwargs,
    ):
        super().__init__(
            network,
            VarianceExploding() if interpolant is None else interpolant,
            train_time_dist_type,
            t_mu,
            t_sigma,
            t_shift_base=t_shift_base,
            objective=Objective(
                theory.consistency,
                prediction="data",
                sampler="flow_map_jump",
                num_steps=1,
                stable=True,
            ),
            objective_args=objective_args,
            norm=norm,
            **kwargs,
        )
        if schedule not in SCHEDULES:
            raise ValueError(
                f"`schedule` must be one of {SCHEDULES}. "
                f"Received: {schedule!r}."
            )
        if not 2 <= min_levels <= max_levels:
            raise ValueError(
                "`min_levels` and `max_levels` must satisfy 2 <= min <= max. "
                f"Received: {min_levels}, {max_levels}."
            )
        if ect_stages < 1 or ect_factor <= 1:
            raise ValueError(
                "`ect_stages` must be at least 1 and `ect_factor` above 1. "
                f"Received: {ect_stages}, {ect_factor}."
            )
        self.schedule = schedule
        self.min_levels, self.max_levels = min_levels, max_levels
        self.ect_stages, self.ect_factor = ect_stages, ect_factor
        self.target_decay = target_decay
        self.teacher_sampler = get_teacher_sampler(teacher_sampler)
        self.teacher_steps = teacher_steps
        self._set_teacher(teacher, teacher_guidance_scale)
        self._count_updates(total_steps)
        self.targets = [EMA(decay=target_decay)] if target_decay else []
        self._average(self.targets, network, "target")

    def target_network(self):
        """The network on the target's side."""
        return self.targets[0].averaged() if self.targets else self.network

    # Preconditioning.

    def _scales(self, t):
        """(alpha, m, 1 / sqrt(alpha^2 sd^2 + sigma^2))."""
        path = self.interpolant
        a, s = path.alpha(t), path.sigma(t)
        last = ops.full_like(t, path.t_last)
        m = s - a * path.sigma(last) / path.alpha(last)
        total = ops.square(a * self.x_sigma) + ops.square(s)
        return a, m, ops.rsqrt(total)

    def c_in(self, t):
        """1 / sqrt(a^2 sd^2 + s^2)."""
        return self._scales(t)[2]

    def c_out(self, t):
        """sd m / sqrt(a^2 sd^2 + s^2)."""
        _, m, c_in = self._scales(t)
        return self.x_sigma * m * c_in

    def c_skip(self, t):
        """a sd^2 / (m^2 + a^2 sd^2)."""
        a, m, _ = self._scales(t)
        square = ops.square(a * self.x_sigma)
        return a * self.x_sigma**2 / (ops.square(m) + square)

    def c_noise(self, t):
        """ln(t) / 4 on `VarianceExploding`, else t."""
        if isinstance(self.interpolant, VarianceExploding):
            return 0.25 * ops.log(t)
        return t

    # Pairs of times.

    def _level(self, u):
        """The time of the level at u in [0, 1], 1 at the noise."""
        path = self.interpolant
        if isinstance(path, VarianceExploding):
            return theory.karras_levels(u, path.sigma_min, path.sigma_max)
        return path.time_from_fraction(u)

    def _place(self, t):
        """The inverse of `_level`."""
        path = self.interpolant
        if isinstance(path, VarianceExploding):
            u = theory.inverse_karras_levels(t, path.sigma_min, path.sigma_max)
        else:
            u = path.noise_fraction(t)
        return ops.clip(u, 0.0, 1.0)

    def draw_pair(self, x):
        """(t, s, weight) for the batch x, each (B,)."""
        shape = ops.shape(x)[:1]
        if self.schedule == "ect":
            return self._easy_pair(self.draw_t(x))
        intervals = (
            theory.num_levels(
                self.schedule, self.progress(), self.min_levels, self.max_levels
            )
            - 1.0
        )
        if self.schedule == "ict":
            place = self._place(self.draw_t(x))
        else:
            place = self.sample_uniform(shape)
        index = ops.minimum(ops.floor(place * intervals), intervals - 1.0)
        t = self._level((index + 1.0) / intervals)
        s = self._level(index / intervals)
        if self.schedule == "ict":
            return t, s, 1.0 / ops.abs(t - s)
        return t, s, ops.ones_like(t)

    def _easy_pair(self, t):
        """s = t (1 - n(t) / q^j) in the noise fraction, n = 1 + 8 sigmoid(-t).

        In stage 0 s is the data end: the loss of a denoiser.
        """
        path = self.interpolant
        # The law may go beyond the path's ends.
        t = self._level(self._place(t))
        stage = ops.minimum(
            ops.floor(self.progress() * self.ect_stages), self.ect_stages - 1.0
        )
        ratio = path.sigma(t) / ops.maximum(path.alpha(t), 1e-6)
        nearer = (1.0 + 8.0 * ops.sigmoid(-ratio)) / ops.power(
            self.ect_factor, stage
        )
        f = path.noise_fraction(t)
        s = path.time_from_fraction(f * ops.maximum(1.0 - nearer, 0.0))
        # Where t is the end itself, nothing is compared.
        distance = ops.maximum(ops.abs(t - s), 1e-6)
        return t, s, 1.0 / distance

    def get_config(self):
        return {
            **super().get_config(),
            "schedule": self.schedule,
            "min_levels": self.min_levels,
            "max_levels": self.max_levels,
            "ect_stages": self.ect_stages,
            "ect_factor": self.ect_factor,
            "target_decay": self.target_decay,
            "teacher_sampler": keras.saving.serialize_keras_object(
                self.teacher_sampler
            ),
            "teacher_steps": self.teacher_steps,
        }


@register
class SCTInterface(ConsistencyModel, Interface):
    """sCT: continuous-time consistency training on `TrigFlow`.

    f(x_t, t) = cos(t) x_t - sin(t) sigma_d F(x_t / sigma_d, t). The loss is
    `objectives.consistency.trig_consistency`, with a learned weight and a
    warm-up of the tangent. Source: arXiv 2410.11081.

    Args:
        network: F; see `Interface`.
        train_time_dist_type, t_mu, t_sigma: default "lognormal",
            ln(sigma_d tan t) ~ N(-1, 1.4^2).
        n_mu, n_sigma: see `Interface`.
        x_sigma: sigma_d, the standard deviation of the data.
        warmup_steps: steps over which the tangent's second part comes in; 0
            for all of it from the start.
        objective_args: see `objectives.consistency.trig_consistency`.
        t_shift_base, cond_drop_ratio, null_label, ema, max_skipped_steps,
            seed, name: see `Interface`.
    """

    def __init__(
        self,
        network,
        train_time_dist_type="lognormal",
        t_mu=-1.0,
        t_sigma=1.4,
        n_mu=0.0,
        n_sigma=1.0,
        x_sigma=0.5,
        *,
        warmup_steps=10_000,
        t_shift_base=None,
        objective_args=None,
        **kwargs,
    ):
        super().__init__(
            network,
            TrigFlow(x_sigma),
            train_time_dist_type,
            t_mu,
            t_sigma,
            n_mu,
            n_sigma,
            x_sigma,
            t_shift_base,
            objective=Objective(
                theory.trig_consistency,
                sampler="flow_map_jump",
                num_steps=1,
                stable=True,
            ),
            objective_args=objective_args,
            **kwargs,
        )
        self.warmup_steps = warmup_steps
        self._set_teacher(None)
        self._count_updates(max(warmup_steps, 1))
        inputs = keras.Input((), dtype=float_dtype())
        weight = layers.Dense(
            1,
            kernel_initializer="zeros",
            dtype=float_dtype(),
            name="log_weight",
        )(TimeFeatures(8, max_frequency=16.0)(inputs))
        self.weighting = keras.Model(inputs, weight, name="weighting")

    def warmup(self):
        """k, the share of the tangent's second part, a scalar."""
        return self.progress() if self.warmup_steps else 1.0

    def log_weight(self, t):
        """w(t), learned, (B,)."""
        return self.weighting(t)[:, 0]

    def c_in(self, t):
        """1 / sigma_d."""
        return ops.full_like(t, 1.0 / self.x_sigma)

    def c_out(self, t):
        """sigma_d."""
        return ops.full_like(t, self.x_sigma)

    def get_config(self):
        config = super().get_config()
        for settled in ("interpolant", "total_steps", "norm"):
            config.pop(settled)
        if self.teacher is None:
            config.pop("teacher")
            config.pop("teacher_guidance_scale")
        return {**config, "warmup_steps": self.warmup_steps}


@register
class SCDInterface(SCTInterface):
    """sCD: continuous-time consistency distillation of a teacher.

    As `SCTInterface`, with dx_t/dt the teacher's velocity. A teacher trained
    on another path comes by `kf.ReparametrizedInterface(teacher,
    kf.interpolants.TrigFlow(sigma_d))`. Source: arXiv 2410.11081.

    Args:
        network: F; see `Interface`.
        teacher: a frozen interface on `TrigFlow(x_sigma)`.
        teacher_guidance_scale: 1.0 for none.
        x_sigma: sigma_d, the standard deviation of the data.
        warmup_steps, objective_args: see `SCTInterface`, and so all others.
    """

    def __init__(
        self,
        network,
        teacher,
        *,
        teacher_guidance_scale=1.0,
        x_sigma=0.5,
        warmup_steps=10_000,
        **kwargs,
    ):
        super().__init__(
            network, x_sigma=x_sigma, warmup_steps=warmup_steps, **kwargs
        )
        self._set_teacher(teacher, teacher_guidance_scale)
