"""Policy objectives of "Much Ado About Noising" (arXiv 2512.01809).

a = x is the action chunk, o = condition the observation, z ~ N(0, I), and
I_t = t a + (1 - t) z with noise at t = 0; t_fix = 0.9. The network predicts
the action itself. `form="paper"` is the text's; `form="public"` is the
authors' code, which weighs the terms by 1/t_fix^2 and 1/(1 - t_fix)^2 and
drops the factor t_fix from the input of the second call, in training and in
acting alike.
"""

from keras import ops
from keras import tree

FORMS = ("paper", "public")


def _check_form(form):
    if form not in FORMS:
        raise ValueError(f"`form` must be one of {FORMS}. Received: {form!r}.")


def _fixed(x, t_fix):
    return ops.full(ops.shape(x)[:1], t_fix, dtype=x.dtype)


def _noise_end(model, x):
    return _fixed(x, model.interpolant.t_noise)


def regression(model, x, condition, training):
    """|pi(o, 0, t=0) - a|^2: behaviour cloning of the conditional mean."""
    action = model.net(
        ops.zeros_like(x),
        _noise_end(model, x),
        condition=condition,
        training=training,
    )
    return {"loss": model.norm(action - x)}


def straight_flow(model, x, condition, training):
    """|pi(o, z, t=0) - a|^2: regression from noise, one step of a flow."""
    z = model.sample_n(ops.shape(x))
    action = model.net(
        z, _noise_end(model, x), condition=condition, training=training
    )
    return {"loss": model.norm(action - x)}


def _two_step(model, x, condition, training, start, first_target, t_fix, form):
    """The two regressions that tsd and mip share."""
    _check_form(form)
    noise = model.sample_n(ops.shape(x))
    t = _fixed(x, t_fix)
    kept = 1.0 if form == "public" else t_fix
    x_fix = kept * x + (1.0 - t_fix) * noise
    # One call on both: faster than two, above all for small networks.
    if condition is not None:
        condition = tree.map_structure(
            lambda c: ops.concatenate([c, c]), condition
        )
    both = model.net(
        ops.concatenate([start, x_fix]),
        ops.concatenate([_noise_end(model, x), t]),
        condition=condition,
        training=training,
    )
    first, second = ops.split(both, 2)
    first, second = first - first_target(x_fix), second - x
    if form == "public":
        first, second = first / t_fix, second / (1.0 - t_fix)
    first, second = model.norm(first), model.norm(second)
    return {"loss": first + second, "first": first, "second": second}


def mip(model, x, condition, training, *, t_fix=0.9, form="paper"):
    """Minimum iterative policy.

    |pi(o, 0, 0) - a|^2 + |pi(o, I_fix, t_fix) - a|^2; acts by
    a0 = pi(o, 0, 0), then pi(o, t_fix a0, t_fix).
    """
    return _two_step(
        model, x, condition, training,
        ops.zeros_like(x), lambda x_fix: x, t_fix, form,
    )  # fmt: skip


def tsd(model, x, condition, training, *, t_fix=0.9, form="paper"):
    """Two-step denoising.

    |pi(o, z, 0) - I_fix / t_fix|^2 + |pi(o, I_fix, t_fix) - a|^2, I_fix with
    noise of its own; acts by a0 = pi(o, z, 0), then
    pi(o, t_fix a0 + (1 - t_fix) z, t_fix). Without the 1 / t_fix, which the
    public code lacks, the first call would regress t_fix a. (In
    `form="public"` I_fix already is a plus noise, and needs no factor.)
    """
    scale = 1.0 if form == "public" else t_fix
    return _two_step(
        model, x, condition, training,
        model.sample_n(ops.shape(x)), lambda x_fix: x_fix / scale, t_fix, form,
    )  # fmt: skip


mip.terms = tsd.terms = ("first", "second")
