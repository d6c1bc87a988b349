"""Consistency models in continuous time on `TrigFlow`: sCT and sCD."""

from __future__ import annotations

import typing

import keras
from keras import layers

from keras_flows.interfaces.arguments import checked_arguments
from keras_flows.interfaces.arguments import with_arguments
from keras_flows.interfaces.interface import Interface
from keras_flows.interfaces.teacher import Teacher
from keras_flows.interfaces.teacher import check_stable
from keras_flows.interpolants import TrigFlow
from keras_flows.networks import TimeFeatures
from keras_flows.objectives import TrigConsistency
from keras_flows.ops import float_dtype
from keras_flows.ops import register
from keras_flows.parametrization import Trig
from keras_flows.training import Progress

if typing.TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from keras_flows.interfaces.generator import Generator
    from keras_flows.interpolants.time_laws import TimeLaw
    from keras_flows.objectives.base import Objective


@register
class SCTInterface(Interface):
    """sCT: continuous-time consistency training on `TrigFlow`.

    f(x_t, t) = cos(t) x_t - sin(t) sigma_d F(x_t / sigma_d, t). The loss is
    `objectives.TrigConsistency`, with a learned weight and a
    warm-up of the tangent. Source: arXiv 2410.11081.

    Args:
        network: F; see `Interface`.
        train_time_dist_type, t_mu, t_sigma: default "lognormal",
            ln(sigma_d tan t) ~ N(-1, 1.4^2).
        n_mu, n_sigma: see `Interface`.
        x_sigma: sigma_d, the standard deviation of the data.
        warmup_steps: steps over which the tangent's second part comes in; 0
            for all of it from the start.
        objective: a `kf.objectives.TrigConsistency`, for its options.
        t_shift_base, cond_drop_ratio, null_label, ema, max_skipped_steps,
            seed, name: see `Interface`.
    """

    @checked_arguments
    def __init__(
        self,
        network: keras.Model,
        train_time_dist_type: str | TimeLaw = "lognormal",
        t_mu: float = -1.0,
        t_sigma: float = 1.4,
        n_mu: float = 0.0,
        n_sigma: float = 1.0,
        x_sigma: float = 0.5,
        *,
        warmup_steps: int = 10_000,
        t_shift_base: float | None = None,
        objective: str | Objective | Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            network,
            TrigFlow(x_sigma),
            train_time_dist_type, t_mu, t_sigma, n_mu, n_sigma, x_sigma,
            t_shift_base,
            objective=TrigConsistency() if objective is None else objective,
            **kwargs,
        )  # fmt: skip
        self.warmup_steps = warmup_steps
        self.teacher = None
        self.training_progress = Progress(max(warmup_steps, 1))
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
        return self.training_progress.share() if self.warmup_steps else 1.0

    def log_weight(self, t):
        """w(t), learned, (B,)."""
        return self.weighting(t)[:, 0]

    def make_parametrization(self):
        return Trig(self.interpolant)

    def after_update(self, updated):
        self.training_progress.advance(updated)

    def get_config(self):
        config = super().get_config()
        for settled in ("interpolant", "norm", "objective"):
            config.pop(settled)
        return with_arguments(config, self, SCTInterface)


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
        warmup_steps, objective: see `SCTInterface`, and so all others.
    """

    @checked_arguments
    def __init__(
        self,
        network: keras.Model,
        teacher: Generator,
        *,
        teacher_guidance_scale: float = 1.0,
        x_sigma: float = 0.5,
        warmup_steps: int = 10_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            network, x_sigma=x_sigma, warmup_steps=warmup_steps, **kwargs
        )
        check_stable(self.stable_target)
        path = getattr(teacher, "interpolant", None)
        if isinstance(path, TrigFlow) and path != self.interpolant:
            raise ValueError(
                "`x_sigma` must be the sigma_d of the teacher's TrigFlow, "
                f"{path.sigma_d}. Received: {x_sigma}."
            )
        self.teacher = Teacher(teacher, self, teacher_guidance_scale)
        self.teacher_guidance_scale = teacher_guidance_scale

    def get_config(self):
        return with_arguments(super().get_config(), self, SCDInterface)
