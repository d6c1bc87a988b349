"""Flow maps: learn X_{t->r}(x) = x + (r - t) u(x, t, r) in one piece.

Each function is the residual of one paper's condition on pairs t -> r, at
x_t on the path with velocity v = dx_t/dt; `registry.flow_map_objective`
adds flow matching on the diagonal, u(x, t, t) = velocity:
L = E |u(x_t, t, t) - v|^2 + E |residual|^2.

`stop_gradient` names, as in arXiv 2505.18825: "convex" stops the teacher's
side, so that each term is convex in what it trains; "full" stops the
spatial Jacobian too; "none" stops nothing.
"""

from keras import ops

from keras_flows.objectives.derivatives import directional
from keras_flows.objectives.derivatives import normalized_tangent


def _check_stop(stop_gradient, allowed):
    if stop_gradient not in allowed:
        raise ValueError(
            f"`stop_gradient` must be one of {allowed} for this objective. "
            f"Received: {stop_gradient!r}."
        )


def _lagrangian(
    model, velocity, x_t, t, r, condition, stop_gradient, derivative
):
    """d/dr X_{t->r}(x_t) - b_r(X_{t->r}(x_t)), b = velocity."""
    _check_stop(stop_gradient, ("convex", "none"))
    x_r, dx_dr = directional(
        lambda r: model.jump(x_t, t, r, condition=condition),
        (r,),
        (ops.ones_like(r),),
        derivative,
    )
    if stop_gradient == "none":
        return dx_dr - velocity(x_r, r, condition=condition)
    x_r = ops.stop_gradient(x_r)
    return dx_dr - ops.stop_gradient(velocity(x_r, r, condition=condition))


def _eulerian(model, b, x_t, t, r, condition, stop_gradient, derivative):
    """d/dt X_{t->r}(x_t) + grad X_{t->r}(x_t) . b."""
    _check_stop(stop_gradient, ("convex", "full", "none"))
    one = ops.ones_like(t)
    if stop_gradient != "none":
        b = ops.stop_gradient(b)
    if stop_gradient != "full":
        return directional(
            lambda x, t: model.jump(x, t, r, condition=condition),
            (x_t, t),
            (b, one),
            derivative,
        )[1]
    _, time_part = directional(
        lambda t: model.jump(x_t, t, r, condition=condition),
        (t,),
        (one,),
        derivative,
    )
    _, space_part = directional(
        lambda x: model.jump(x, t, r, condition=condition),
        (x_t,),
        (b,),
        derivative,
    )
    return time_part + ops.stop_gradient(space_part)


def lsd(model, x_t, v, t, r, condition, *, stop_gradient="convex",
        derivative="jvp"):  # fmt: skip
    """Lagrangian self-distillation (arXiv 2505.18825).

    d/dr X_{t->r}(x_t) against the model's own velocity at X_{t->r}(x_t).
    """
    return _lagrangian(
        model, model.pred, x_t, t, r, condition, stop_gradient, derivative
    )


def lmd(model, x_t, v, t, r, condition, *, stop_gradient="convex",
        derivative="jvp"):  # fmt: skip
    """Lagrangian map distillation (arXiv 2406.07507): a teacher's velocity."""
    return _lagrangian(
        model, model.teach, x_t, t, r, condition, stop_gradient, derivative
    )


def esd(model, x_t, v, t, r, condition, *, stop_gradient="full",
        derivative="jvp"):  # fmt: skip
    """Eulerian self-distillation (arXiv 2505.18825).

    d/dt X_{t->r}(x_t) + grad X . b_t(x_t), with the model's own velocity at
    the START of the jump, (t, x_t).
    """
    b = model.pred(x_t, t, condition=condition)
    return _eulerian(model, b, x_t, t, r, condition, stop_gradient, derivative)


def emd(model, x_t, v, t, r, condition, *, stop_gradient="convex",
        derivative="jvp"):  # fmt: skip
    """Eulerian map distillation (arXiv 2406.07507): a teacher's velocity."""
    b = model.teach(x_t, t, condition=condition)
    return _eulerian(model, b, x_t, t, r, condition, stop_gradient, derivative)


def mf(model, x_t, v, t, r, condition, *, stop_gradient="full",
       derivative="jvp"):  # fmt: skip
    """Mean flow as a flow map: d/dt X + sg(grad X . dx_t/dt).

    As the policy literature writes it (arXiv 2512.01809), with the sampled
    velocity v. The spatial part is always stopped: v is in it and in its
    gradient, whose mean would not vanish at the exact map. What is left to
    train is the time derivative, against a lagging spatial one, which may
    diverge in long runs. `stop_gradient="target"` is the loss of arXiv
    2505.13447, which trains u itself and takes no gradient through a
    derivative: u - sg(v + (r - t) du/dt), du/dt along (v, 1) for (x_t, t).
    """
    _check_stop(stop_gradient, ("full", "target"))
    if stop_gradient == "full":
        return _eulerian(model, v, x_t, t, r, condition, "full", derivative)
    u, du_dt = directional(
        lambda x, t: model.pred(x, t, r, condition=condition),
        (x_t, t),
        (v, ops.ones_like(t)),
        derivative,
    )
    return u - ops.stop_gradient(v + model.bcast_right(r - t, x_t) * du_dt)


def psd(model, x_t, v, t, r, condition, *, midpoint=True,
        stop_gradient="convex"):  # fmt: skip
    """Progressive self-distillation (arXiv 2505.18825), in u.

    u(x_t, t, r) against g u(x_t, t, w) + (1 - g) u(X_{t->w}(x_t), w, r) with
    w = t + g (r - t); g = 1/2 (`midpoint=True`, PSD-M) or uniform (PSD-U).
    """
    _check_stop(stop_gradient, ("convex", "none"))
    if midpoint:
        g = 0.5 * ops.ones_like(t)
    else:
        g = model.sample_uniform(ops.shape(t))
    w = t + g * (r - t)
    first = model.pred(x_t, t, w, condition=condition)
    x_w = x_t + model.bcast_right(w - t, x_t) * first
    if stop_gradient == "convex":
        x_w = ops.stop_gradient(x_w)
    second = model.pred(x_w, w, r, condition=condition)
    g = model.bcast_right(g, x_t)
    target = g * first + (1.0 - g) * second
    if stop_gradient == "convex":
        target = ops.stop_gradient(target)
    return model.pred(x_t, t, r, condition=condition) - target


def ctm(model, x_t, v, t, r, condition, *, dt=0.01):
    """Consistency trajectory model (arXiv 2310.02279).

    X_{t->r}(x_t) against sg X_{s->r}(x_s), x_s one small step along: with
    the teacher's velocity (Euler) where there is one, else the model's own
    map. s = t + dt towards r, and never past it.
    """
    step = ops.sign(r - t) * ops.minimum(dt, ops.abs(r - t))
    s = t + step
    if model.teacher is None:
        x_s = model.jump(x_t, t, s, condition=condition)
    else:
        x_s = x_t + model.bcast_right(step, x_t) * model.teach(
            x_t, t, condition=condition
        )
    target = model.jump(ops.stop_gradient(x_s), s, r, condition=condition)
    return model.jump(x_t, t, r, condition=condition) - ops.stop_gradient(
        target
    )


def ayf(model, x_t, v, t, r, condition, *, tangent_norm=0.1,
        derivative="jvp"):  # fmt: skip
    """Align Your Flow's Eulerian map distillation (arXiv 2506.14603).

    u - sg(u + g / (|g| + c)), whose g = b - u + (r - t) du/dt vanishes at the
    map of the teacher's velocity b; du/dt runs along (b, 1) for (x_t, t) and
    c = `tangent_norm` (see `normalized_tangent`).
    """
    b = ops.stop_gradient(model.teach(x_t, t, condition=condition))
    u, du_dt = directional(
        lambda x, t: model.pred(x, t, r, condition=condition),
        (x_t, t),
        (b, ops.ones_like(t)),
        derivative,
    )
    g = b - u + model.bcast_right(r - t, x_t) * du_dt
    return u - ops.stop_gradient(u + normalized_tangent(g, tangent_norm))


def shortcut(model, x_t, v, t, r, condition):
    """Shortcut models (arXiv 2410.12557): two steps of d make one of 2 d.

    u(x_t, t, t + 2d) against the mean of u(x_t, t, t + d) and u(x', t + d,
    t + 2d), by the averaged weights; (t, r) are `dyadic` pairs.
    """
    network = model.emas[0].averaged() if model.emas else None
    w = 0.5 * (t + r)
    first = model.pred(x_t, t, w, condition=condition, network=network)
    x_w = x_t + model.bcast_right(w - t, x_t) * first
    second = model.pred(x_w, w, r, condition=condition, network=network)
    target = ops.stop_gradient(0.5 * (first + second))
    return model.pred(x_t, t, r, condition=condition) - target


def dyadic(model, shape, finest=7):
    """Pairs on grids of 1, 2, ..., 2^(finest - 1) steps, each (B,).

    The steps' number is uniform among the powers of two, and then the step.
    """
    path = model.interpolant
    steps = ops.power(
        2.0, ops.floor(model.sample_uniform(shape) * float(finest))
    )
    start = ops.floor(model.sample_uniform(shape) * steps)
    return tuple(
        path.time_from_fraction(1.0 - (start + i) / steps) for i in (0, 1)
    )


shortcut.pairs = dyadic
