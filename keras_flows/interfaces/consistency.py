"""Consistency models in discrete time: one call to the end of the flow."""

from __future__ import annotations

import typing

from keras_flows.interfaces.arguments import checked_arguments
from keras_flows.interfaces.arguments import with_arguments
from keras_flows.interfaces.interface import Interface
from keras_flows.interfaces.teacher import Teacher
from keras_flows.interfaces.teacher import check_guidance
from keras_flows.interfaces.teacher import check_stable
from keras_flows.interfaces.teacher import one_step
from keras_flows.interpolants import VarianceExploding
from keras_flows.objectives import Consistency
from keras_flows.ops import register
from keras_flows.parametrization import Boundary
from keras_flows.training import EMA
from keras_flows.training import Progress

if typing.TYPE_CHECKING:
    from typing import Any

    import keras

    from keras_flows.interfaces.generator import Generator
    from keras_flows.interpolants.base import Interpolant
    from keras_flows.interpolants.time_laws import TimeLaw
    from keras_flows.samplers.base import Sampler


@register
class ConsistencyInterface(Interface):
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

    Levels are the path's: Karras's on `VarianceExploding`. The model knows
    where the flow ends, and so jumps; it has neither velocity nor score.

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

    @checked_arguments
    def __init__(
        self,
        network: keras.Model,
        interpolant: str | Interpolant | None = None,
        *,
        schedule: str = "ict",
        total_steps: int = 100_000,
        min_levels: int = 10,
        max_levels: int = 1280,
        ect_stages: int = 8,
        ect_factor: float = 2.0,
        target_decay: float = 0.0,
        teacher: Generator | None = None,
        teacher_guidance_scale: float = 1.0,
        teacher_sampler: str | Sampler = "ddim",
        teacher_steps: int = 1,
        train_time_dist_type: str | TimeLaw = "lognormal",
        t_mu: float = -1.1,
        t_sigma: float = 2.0,
        norm: str = "pseudo_huber",
        t_shift_base: float | None = None,
        stable_target: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            network,
            VarianceExploding() if interpolant is None else interpolant,
            train_time_dist_type,
            t_mu,
            t_sigma,
            t_shift_base=t_shift_base,
            objective=Consistency(
                schedule, min_levels, max_levels, ect_stages, ect_factor
            ),
            norm=norm,
            stable_target=stable_target,
            **kwargs,
        )
        self.target_decay = target_decay
        self.teacher_sampler = one_step(teacher_sampler)
        self.teacher_steps = teacher_steps
        self.teacher = None
        if teacher is not None:
            check_stable(stable_target)
            self.teacher = Teacher(
                teacher, self, teacher_guidance_scale, self.teacher_sampler,
                teacher_steps, self.teacher_sampler.needs,
            )  # fmt: skip
        check_guidance(teacher, teacher_guidance_scale)
        self.teacher_guidance_scale = teacher_guidance_scale
        self.training_progress = Progress(total_steps)
        self.targets = [EMA(decay=target_decay)] if target_decay else []
        self.average(self.targets, network, "target")

    def make_parametrization(self):
        return Boundary(self.interpolant, self.x_sigma)

    def target_network(self):
        """The network on the target's side."""
        return self.targets[0].averaged() if self.targets else self.network

    def standard_noise(self, shape):
        """Noise of mean 0 and variance 1, for a stochastic teacher."""
        return (self.sample_n(shape) - self.n_mu) / self.n_sigma

    def progress(self):
        """Share of `total_steps` done, a scalar in [0, 1]."""
        return self.training_progress.share()

    def after_update(self, updated):
        self.training_progress.advance(updated)

    def draw_pair(self, x):
        """(t, s, weight) for the batch x, see `objectives.Consistency`."""
        return self.objective.draw_pair(self, x)

    def get_config(self):
        config = super().get_config()
        config.pop("objective")
        config |= self.objective.get_config()
        config["total_steps"] = self.training_progress.total_steps
        return with_arguments(config, self, ConsistencyInterface)
