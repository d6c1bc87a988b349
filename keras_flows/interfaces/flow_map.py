"""Flow maps and the policies' objectives, noise at t = 0."""

from __future__ import annotations

import typing

from keras import ops

from keras_flows.interfaces.arguments import checked_arguments
from keras_flows.interfaces.arguments import with_arguments
from keras_flows.interfaces.interface import Interface
from keras_flows.interfaces.teacher import Teacher
from keras_flows.interfaces.teacher import check_guidance
from keras_flows.interpolants import Linear
from keras_flows.interpolants import time_pairs
from keras_flows.ops import RowSplit
from keras_flows.ops import given
from keras_flows.ops import register

if typing.TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import keras

    from keras_flows.interfaces.generator import Generator
    from keras_flows.interpolants.base import Interpolant
    from keras_flows.interpolants.time_laws import TimeLaw
    from keras_flows.objectives.base import Objective


@register
class FlowMapInterface(Interface):
    """Learns a flow map X_{t->r}, or an action, by any named objective.

    `objective` is one of flow, regression, straight_flow, tsd, mip, ctm,
    psd, lsd, esd, mf, lmd, emd, ayf, shortcut, imm, or an `Objective` with
    options of its own, such as `kf.objectives.LSD(stop_gradient="none")`.
    x_t = t x + (1 - t) n: noise at t = 0, data at t = 1. The
    flow-map objectives need a network with a second time `r`.

    Args:
        network: see `Interface`.
        objective: name, `Objective`, its class, or a function.
        teacher: a frozen interface on the same interpolant, which lmd, emd
            and ayf need and ctm may use.
        teacher_guidance_scale: of the teacher's velocity, 1.0 for none.
        diagonal_portion: share of the batch on the diagonal r = t.
        weighting: "rows" (each term is a mean over its own rows) or "batch"
            (over the whole batch).
        train_time_dist_type: default "uniform".
        interpolant: default `Linear(noise_at=0.0)`.
        t_mu, t_sigma, n_mu, n_sigma, x_sigma, t_shift_base: see `Interface`.
        norm, cond_drop_ratio, ema, max_skipped_steps, seed, name: see
            `Interface`.
    """

    weighting = "rows"

    @checked_arguments
    def __init__(
        self,
        network: keras.Model,
        objective: str | Objective | Callable[..., Any] = "lsd",
        *,
        teacher: Generator | None = None,
        teacher_guidance_scale: float = 1.0,
        diagonal_portion: float = 0.75,
        weighting: str = "rows",
        train_time_dist_type: str | TimeLaw = "uniform",
        interpolant: str | Interpolant | None = None,
        t_mu: float = 0.0,
        t_sigma: float = 1.0,
        n_mu: float = 0.0,
        n_sigma: float = 1.0,
        x_sigma: float = 0.5,
        t_shift_base: float | None = 4096,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            network,
            Linear(noise_at=0.0) if interpolant is None else interpolant,
            train_time_dist_type, t_mu, t_sigma, n_mu, n_sigma, x_sigma,
            t_shift_base, objective=objective, **kwargs,
        )  # fmt: skip
        given.choice("weighting", weighting, ("rows", "batch"))
        self.diagonal_portion = diagonal_portion
        self.weighting = weighting
        self._check_use(teacher)
        self.teacher = None
        if teacher is not None:
            self.teacher = Teacher(teacher, self, teacher_guidance_scale)
        else:
            check_guidance(teacher, teacher_guidance_scale)
        self.teacher_guidance_scale = teacher_guidance_scale

    def _check_use(self, teacher):
        """A teacher exactly where the objective asks for one."""
        use = self.objective.teacher
        if use == "required" and teacher is None:
            raise ValueError(
                f"Objective '{self.objective.name}' needs a `teacher`: a "
                "trained interface whose velocity it follows."
            )
        if use == "none" and teacher is not None:
            raise ValueError(
                f"Objective '{self.objective.name}' uses no `teacher`; "
                "'lmd', 'emd', 'ayf' and 'ctm' do."
            )

    def rows(self, x):
        """A `RowSplit` of the batch x, by a draw where it must be."""
        share = 1.0 - self.diagonal_portion
        return RowSplit.of(ops.shape(x)[0], share, self.sample_uniform)

    def sample_t_r(self, shape, rows=None):
        """Time pairs of the given shape: see `interpolants.time_pairs`.

        Args:
            shape: (B,).
            rows: the `RowSplit` of the batch; by default one is drawn.
        """
        if rows is None:
            share = 1.0 - self.diagonal_portion
            rows = RowSplit.of(shape[0], share, self.sample_uniform)
        return time_pairs(self.interpolant, self.sample_t, shape, rows)

    def draw_t_r(self, x, rows=None):
        """Shifted time pairs for the batch x, each (B,); see `sample_t_r`."""
        pairs = self.sample_t_r(ops.shape(x)[:1], rows)
        return tuple(self.shifted(t, x) for t in pairs)

    def get_config(self):
        return with_arguments(super().get_config(), self, FlowMapInterface)
