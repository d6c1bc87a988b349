"""Objectives by name, and what an interface must know about each."""

import dataclasses
import inspect
from collections.abc import Callable

import keras
from keras import ops

from keras_flows.objectives import flow_map as maps
from keras_flows.objectives import policy
from keras_flows.objectives.flow_matching import flow
from keras_flows.objectives.mean_flow import mean_flow
from keras_flows.objectives.moment_matching import imm
from keras_flows.ops import Config
from keras_flows.ops import part
from keras_flows.ops import register


@register
@dataclasses.dataclass(frozen=True)
class Objective(Config):
    """An objective function and its needs.

    Attributes:
        fn: function (model, x, condition, training, **options) to a dict of
            per-example terms of shape (B,), "loss" first.
        needs_r: whether the network must take the second time `r`.
        teacher: "required", "optional" or "none".
        prediction: what the network predicts, "velocity" or "data".
        start: what sampling starts from, "noise" or "zero".
        sampler: name of the sampler that fits.
        num_steps: its default number of steps.
        stable: whether it makes its targets from `model.endpoints`, as
            `stable_target` asks.
    """

    fn: Callable
    needs_r: bool = False
    teacher: str = "none"
    prediction: str = "velocity"
    start: str = "noise"
    sampler: str = "euler"
    num_steps: int = 9
    stable: bool = False

    @property
    def name(self):
        return self.fn.__name__

    @property
    def terms(self):
        """Names of the terms beside "loss"."""
        return tuple(getattr(self.fn, "terms", ()))

    def get_config(self):
        fn = keras.saving.serialize_keras_object(self.fn)
        return {**super().get_config(), "fn": fn}

    @classmethod
    def from_config(cls, config):
        fn = keras.saving.deserialize_keras_object(config["fn"])
        return cls(**{**config, "fn": fn})

    def options(self, given):
        """`given` checked against the function's keyword-only arguments."""
        signature = inspect.signature(getattr(self.fn, "residual", self.fn))
        known = [
            p.name
            for p in signature.parameters.values()
            if p.kind == inspect.Parameter.KEYWORD_ONLY
        ]
        for key in given:
            if key not in known:
                raise ValueError(
                    f"`objective_args` has an unknown key {key!r} for "
                    f"objective '{self.name}'. Known: "
                    f"{', '.join(known) or 'none'}."
                )
        return dict(given)


def flow_map_objective(residual):
    """Turn a condition on pairs t -> r into an objective with `fit`.

    Args:
        residual: function (model, x_t, v, t, r, condition, **options) to a
            tensor shaped like x_t that vanishes at the exact flow map. Where
            it uses v, be it linear in v: with the model's `stable_target` v is
            a mean.

    Returns:
        An objective function. It splits the batch: the model's
        `diagonal_portion` trains u(x_t, t, t) against v, the other rows
        `residual`. Each term is 0 on rows where it does not apply and scaled
        by B / rows, so that its batch mean is the mean over its own rows;
        `weighting="batch"` on the model leaves the scale out.
    """

    def objective(model, x, condition, training, **options):
        n = model.sample_n(ops.shape(x))
        t, r = _pairs(model, residual, x)
        x_t = model.sample_x_t(x, n, t)
        x, n = model.endpoints(x, n, t, condition)
        v = model.interpolant.velocity(x, n, t)

        rows = model.rows(x)
        (x_o, x_d), (t_o, t_d), (v_o, v_d), (c_o, c_d) = (
            rows.split(part) for part in (x_t, t, v, condition)
        )
        r_o, _ = rows.split(r)

        with part("diagonal"):
            u_d = model.pred(x_d, t_d, t_d, condition=c_d, training=training)
        velocity = model.norm(u_d - v_d, lambda a: rows.split(a)[1])
        with part("off"):
            e_o = residual(model, x_o, v_o, t_o, r_o, c_o, **options)
        condition = model.norm(e_o, lambda a: rows.split(a)[0])

        def term(off, diagonal, count):
            if model.weighting == "rows":
                scale = _share(rows.batch_size, count, off.dtype)
                off, diagonal = off * scale, diagonal * scale
            return rows.merge(off, diagonal)

        velocity = term(ops.zeros_like(condition), velocity, rows.num_diagonal)
        condition = term(
            condition, ops.zeros_like(velocity[: rows.num_diagonal]),
            rows.num_off,
        )  # fmt: skip
        return {
            "loss": velocity + condition,
            "velocity_loss": velocity,
            "map_loss": condition,
        }

    objective.__name__ = residual.__name__
    objective.__doc__ = residual.__doc__
    objective.residual = residual
    objective.terms = ("velocity_loss", "map_loss")
    return objective


def _pairs(model, residual, x):
    """The model's (t, r), with off-diagonal rows of the objective's own."""
    t, r = model.draw_t_r(x)
    if not hasattr(residual, "pairs"):
        return t, r
    rows = model.rows(x)
    off = residual.pairs(model, (rows.num_off,))
    return tuple(
        rows.merge(own, rows.split(drawn)[1])
        for own, drawn in zip(off, (t, r), strict=True)
    )


def _share(batch_size, count, dtype):
    """batch_size / count, where both may be tensors; 0 rows scale nothing."""
    if isinstance(batch_size, int):
        return batch_size / max(count, 1)
    return ops.cast(batch_size, dtype) / ops.cast(ops.maximum(count, 1), dtype)


def _flow_map(residual, teacher="none"):
    return Objective(
        flow_map_objective(residual),
        needs_r=True,
        teacher=teacher,
        sampler="flow_map_jump",
        num_steps=1,
        stable=True,
    )


def _action(fn, start, sampler, num_steps):
    return Objective(
        fn,
        prediction="data",
        start=start,
        sampler=sampler,
        num_steps=num_steps,
    )


_KNOWN = {
    objective.name: objective
    for objective in (
        Objective(flow, stable=True),
        Objective(
            mean_flow,
            needs_r=True,
            sampler="flow_map_jump",
            num_steps=1,
            stable=True,
        ),
        _flow_map(maps.ctm, teacher="optional"),
        _flow_map(maps.psd),
        _flow_map(maps.lsd),
        _flow_map(maps.esd),
        _flow_map(maps.mf),
        _flow_map(maps.lmd, teacher="required"),
        _flow_map(maps.emd, teacher="required"),
        _flow_map(maps.ayf, teacher="required"),
        _flow_map(maps.shortcut),
        Objective(
            imm,
            needs_r=True,
            sampler="flow_map_jump",
            num_steps=1,
            stable=True,
        ),
        _action(policy.regression, "zero", "euler", 1),
        _action(policy.straight_flow, "noise", "euler", 1),
        _action(policy.tsd, "noise", "two_step", 2),
        _action(policy.mip, "zero", "two_step", 2),
    )
}


def names():
    """The names that `get` knows."""
    return tuple(_KNOWN)


def get(identifier):
    """An `Objective` by name, as an instance, or from a function.

    A function (model, x, condition, training) -> terms is taken as a
    velocity objective; wrap it in `Objective` to say otherwise.

    Raises:
        ValueError: if the name is unknown; the message lists the known ones.
    """
    if isinstance(identifier, Objective):
        return identifier
    if isinstance(identifier, str) and identifier.lower() in _KNOWN:
        return _KNOWN[identifier.lower()]
    if callable(identifier) and not isinstance(identifier, type):
        if hasattr(identifier, "residual"):
            return dataclasses.replace(_KNOWN["lsd"], fn=identifier)
        return Objective(identifier)
    raise ValueError(
        f"Unknown `objective`: {identifier!r}. Known: "
        f"{', '.join(sorted(_KNOWN))}, an `Objective` or a function."
    )
