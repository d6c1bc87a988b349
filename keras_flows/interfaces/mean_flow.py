"""MeanFlow: one-step generation from the average velocity."""

from __future__ import annotations

import typing

from keras import ops
from keras import tree

from keras_flows.interfaces.arguments import checked_arguments
from keras_flows.interfaces.arguments import with_arguments
from keras_flows.interfaces.guidance_input import guidance_input
from keras_flows.interfaces.interface import Interface
from keras_flows.interpolants import PAIRS
from keras_flows.interpolants import Linear
from keras_flows.interpolants import get_time_law
from keras_flows.interpolants import time_pairs
from keras_flows.networks import null_labels
from keras_flows.ops import RowSplit
from keras_flows.ops import bcast_right
from keras_flows.ops import given
from keras_flows.ops import register

if typing.TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import keras

    from keras_flows.interpolants.base import Interpolant
    from keras_flows.interpolants.time_laws import TimeLaw
    from keras_flows.objectives.base import Objective


@register
class MeanFlowInterface(Interface):
    """u(x_t, t, r), with x_r = x_t - (t - r) u, on x_t = (1 - t) x + t n.

    L = |u - sg(v - (t - r) du/dt)|^2 / sg(|.|^2 + norm_eps)^norm_power.
    A share `fm_portion` of the rows has r = t; the JVP runs on the others
    only. Source: arXiv 2505.13447.

    With guidance in training the velocity v, target and tangent alike, is
    omega v + (1 - omega - kappa) u(x_t, t, t | null)
    + kappa u(x_t, t, t | c) for t in [guidance_t_min, guidance_t_max]
    (omega = guidance_scale, kappa = guidance_mixture_ratio): guidance of
    scale omega / (1 - kappa) in one call at sampling. Dropped labels get
    the unguided v. The published code defaults to kappa = 0.5, which at
    omega = 1 is a scale of 2; here 1.0 is off, with kappa = 0.

    A network with an input `guidance` learns all scales at once (improved
    MeanFlow, arXiv 2512.02012): omega is drawn for each example from
    `guidance_range`, with a density falling as omega^(-guidance_power), and
    `generate(guidance_scale=omega)` chooses it, still in one call. The target
    is then the official code's

        v + (1 - 1 / omega) (u(x_t, t, t | c, omega) - u(x_t, t, t | null, 1)),

    whose fixed point is guidance of scale omega too, with the variance of v
    itself in the place of omega^2 times that. One with an input
    `guidance_interval` as well learns the interval: on rows with r != t its
    ends are uniform on [0, 1/2] and [1/2, 1], levels of noise, on the others
    it is (0, 1), and outside it omega is 1;
    `generate(guidance_interval=(low, high))` chooses it. A dropped label's
    tangent, in `MeanFlow(tangent="predicted")`, is the null label's velocity.
    The official code's is that of the label that was dropped, whose mean given
    x_t is the same, with the variance of the labels on top.

    Args:
        network: takes `r`; see `Interface`.
        train_time_dist_type, t_mu, t_sigma: default logit-normal(-0.4, 1).
        n_mu, n_sigma, x_sigma, t_shift_base: see `Interface`.
        guidance_scale: omega.
        guidance_mixture_ratio: kappa, below 1.
        guidance_t_min: lowest guided t.
        guidance_t_max: highest guided t.
        guidance_range: (low, high), 1/2 < low, the scales that a network
            with an input `guidance` learns; None for one without. It leaves
            no `guidance_mixture_ratio`.
        guidance_power: how their density falls.
        norm_eps: eps of the adaptive weight.
        norm_power: p of the adaptive weight; 0 is the plain loss.
        fm_portion: share of rows with r = t.
        time_pairs: "ordered" for the published law of (t, r), in which t is
            the noisier of two draws, on the rows with r = t as well; "first"
            or "clipped", see `interpolants.time_pairs`.
        r_law: a `TimeLaw` of r, or its name; None for that of t. The PyTorch
            code's second sampler is `time_pairs="clipped"` with t_mu=-0.6,
            t_sigma=1.6 and `r_law=kf.interpolants.LogitNormal(-4.0, 1.6)`.
        cond_drop_ratio: share of labels dropped.
        interpolant: default `Linear(noise_at=1.0)`.
        objective: `kf.objectives.MeanFlow(tangent="predicted")` is improved
            MeanFlow's loss (arXiv 2512.02012).
        ema, max_skipped_steps, seed, name: see `Interface`.
    """

    takes_guidance = True

    @checked_arguments
    def __init__(
        self,
        network: keras.Model,
        train_time_dist_type: str | TimeLaw = "logitnormal",
        t_mu: float = -0.4,
        t_sigma: float = 1.0,
        n_mu: float = 0.0,
        n_sigma: float = 1.0,
        x_sigma: float = 0.5,
        guidance_scale: float = 1.0,
        guidance_mixture_ratio: float = 0.0,
        guidance_t_min: float = 0.0,
        guidance_t_max: float = 1.0,
        norm_eps: float = 1e-3,
        norm_power: float = 1.0,
        fm_portion: float = 0.75,
        cond_drop_ratio: float = 0.1,
        t_shift_base: float | None = 4096,
        *,
        interpolant: str | Interpolant | None = None,
        objective: str | Objective | Callable[..., Any] = "mean_flow",
        guidance_range: tuple[float, float] | None = None,
        guidance_power: float = 1.0,
        time_pairs: str = "ordered",
        r_law: str | TimeLaw | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            network,
            Linear(noise_at=1.0) if interpolant is None else interpolant,
            train_time_dist_type, t_mu, t_sigma, n_mu, n_sigma, x_sigma,
            t_shift_base, objective=objective, cond_drop_ratio=cond_drop_ratio,
            **kwargs,
        )  # fmt: skip
        if guidance_t_min > guidance_t_max:
            raise ValueError(
                "`guidance_t_min` must not be above `guidance_t_max`. "
                f"Received: {guidance_t_min!r} and {guidance_t_max!r}."
            )
        given.choice("time_pairs", time_pairs, PAIRS)
        if r_law is not None:
            r_law = get_time_law(r_law, argument="r_law")
        self.scales = guidance_input(
            network, guidance_range, guidance_power, guidance_scale,
            guidance_mixture_ratio,
        )  # fmt: skip
        if guidance_range is not None:
            guidance_range = self.scales.low, self.scales.high
        self.guidance_range = guidance_range
        self.guidance_power = guidance_power
        self._guided = (
            guidance_scale != 1.0
            or guidance_mixture_ratio != 0.0
            or guidance_range is not None
        )
        if self._guided and self.null_label is None:
            raise ValueError(
                "Guidance in training needs a network with a null label: "
                "`network.null_label`. Received guidance_scale="
                f"{guidance_scale}, guidance_mixture_ratio="
                f"{guidance_mixture_ratio} and a network without one."
            )
        self.guidance_scale = guidance_scale
        self.guidance_mixture_ratio = guidance_mixture_ratio
        self.guidance_t_min = guidance_t_min
        self.guidance_t_max = guidance_t_max
        self.norm_eps = norm_eps
        self.norm_power = norm_power
        self.fm_portion = fm_portion
        self.time_pairs, self.r_law = time_pairs, r_law

    def sample_guidance(self, shape):
        """omega of density omega^(-guidance_power) on `guidance_range`."""
        return self.scales.scale(self.sample_uniform(shape))

    def sample_interval(self, shape, rows):
        """Levels (low, high), (B, 2), of guidance; (0, 1) where r = t.

        `rows`: the `RowSplit` of the batch.
        """
        return self.scales.interval(self.sample_uniform((*shape, 2)), rows)

    def instant(self, condition, t):
        """The condition of the velocity at t under `condition`."""
        if self.scales is None:
            return condition
        return self.scales.instant(condition, self.interpolant.level(t))

    def _has_scale(self, condition):
        """Whether a condition is {"label": ..., "guidance": (B,)}."""
        return self.scales is not None and (
            isinstance(condition, dict) and "guidance" in condition
        )

    def inputs(self, x_t, t, r=None, condition=None, network=None):
        """As `Interface.inputs`; a condition may hold the guidance scale.

        `{"label": (B,), "guidance": (B,)[, "guidance_interval": (B, 2)]}`;
        labels alone mean a scale of 1.
        """
        if self.scales is None:
            return super().inputs(x_t, t, r, condition, network)
        if not self._has_scale(condition):
            condition = self.scales.condition(condition, ops.ones_like(t))
        inputs = super().inputs(x_t, t, r, condition["label"], network)
        others = {k: v for k, v in condition.items() if k != "label"}
        return {**inputs, **others}

    def absorb_guidance(self, condition, scale, rows, interval=None):
        """The scale goes into the network, where it takes one."""
        if self.scales is None:
            return super().absorb_guidance(condition, scale, rows, interval)
        return self.scales.asked(condition, scale, rows, interval), 1.0

    def rows(self, x):
        """A `RowSplit` of the batch x, by a draw where it must be."""
        share = 1.0 - self.fm_portion
        return RowSplit.of(ops.shape(x)[0], share, self.sample_uniform)

    def _sample_r(self, shape):
        return self.r_law(self.interpolant, shape, self.seed_generator)

    def sample_t_r(self, shape, rows=None):
        """Time pairs of the given shape: see `interpolants.time_pairs`.

        Args:
            shape: (B,).
            rows: the `RowSplit` of the batch; by default one is drawn.
        """
        if rows is None:
            share = 1.0 - self.fm_portion
            rows = RowSplit.of(shape[0], share, self.sample_uniform)
        return time_pairs(
            self.interpolant, self.sample_t, shape, rows,
            self.time_pairs, None if self.r_law is None else self._sample_r,
        )  # fmt: skip

    def draw_t_r(self, x, rows=None):
        """Shifted time pairs for the batch x, each (B,); see `sample_t_r`."""
        pairs = self.sample_t_r(ops.shape(x)[:1], rows)
        return tuple(self.shifted(t, x) for t in pairs)

    def insta_velocity(self, x, n, t, *, y=None, neg_y=None):
        """The (guided) instantaneous velocity at x_t.

        Args:
            x, n: data and noise, (B, ...).
            t: (B,).
            y: labels, (B,), or None; with the scale as the network's input
                the dict of `inputs`.
            neg_y: null labels, (B,), or None for the network's own.

        Returns:
            (v, y, neg_y).
        """
        v = self.interpolant.velocity(x, n, t)
        if y is None or not self._guided:
            return v, y, neg_y
        label = y["label"] if self._has_scale(y) else y
        if neg_y is None:
            neg_y = null_labels.null_like(label, self.null_label)
        x_t = self.sample_x_t(x, n, t)
        null, own = neg_y, y
        if self._has_scale(y):
            own = self.instant(y, t)
            null = self.scales.condition(neg_y, ops.ones_like(t))
        both = self.pred(
            ops.concatenate([x_t, x_t]),
            ops.concatenate([t, t]),
            condition=tree.map_structure(
                lambda a, b: ops.concatenate([a, b]), null, own
            ),
        )
        u_null, u_cond = ops.split(ops.stop_gradient(both), 2)
        if self._has_scale(y):
            share = bcast_right(1.0 - 1.0 / own["guidance"], v)
            guided = v + share * (u_cond - u_null)
        else:
            omega, kappa = self.guidance_scale, self.guidance_mixture_ratio
            guided = omega * v + (1.0 - omega - kappa) * u_null + kappa * u_cond
        inside = ops.logical_and(
            t >= self.guidance_t_min, t <= self.guidance_t_max
        )
        v = ops.where(bcast_right(inside, v), guided, v)
        return v, y, neg_y

    def cond_drop(self, x, n, v, y, neg_y, t=None):
        """Drop labels, and with them the guidance of the velocity.

        Rows are dropped independently of the diagonal, so that the null
        label sees r != t as well. `t` is the time of the velocity, (B,), which
        only the linear path's does not depend on.

        Returns:
            (v, y) after dropping.
        """
        if y is None or self.null_label is None or self.cond_drop_ratio == 0:
            return v, y
        if self._has_scale(y):
            v, label = self.cond_drop(x, n, v, y["label"], neg_y, t)
            return v, {**y, "label": label}
        if neg_y is None:
            neg_y = null_labels.null_like(y, self.null_label)
        drop = null_labels.drawn(y, self.cond_drop_ratio, self.sample_uniform)
        if t is None:
            if not isinstance(self.interpolant, Linear):
                raise ValueError(
                    "`t` is needed: the velocity of "
                    f"{self.interpolant} depends on it. Received: None."
                )
            t = ops.zeros(ops.shape(x)[:1])
        plain = self.interpolant.velocity(x, n, t)
        return (
            ops.where(bcast_right(drop, v), plain, v),
            null_labels.where(drop, neg_y, y),
        )

    def training_velocity(self, x, n, t, condition, training=True, rows=None):
        """(v, condition) after guidance and, in training, label dropping.

        `rows` is the `RowSplit` of the batch; by default one is drawn.
        """
        if self.scales is not None:
            shape, interval = ops.shape(t), None
            guidance = self.sample_guidance(shape)
            if self.scales.intervals:
                rows = self.rows(x) if rows is None else rows
                interval = self.sample_interval(shape, rows)
            condition = self.scales.condition(condition, guidance, interval)
        v, y, neg_y = self.insta_velocity(x, n, t, y=condition)
        return self.cond_drop(x, n, v, y, neg_y, t) if training else (v, y)

    def drop_condition(self, condition):
        """Labels drop in `cond_drop`, together with the velocity."""
        return condition

    def get_config(self):
        return with_arguments(super().get_config(), self, MeanFlowInterface)
