"""Inductive moment matching (arXiv 2503.07565): one stage, no JVP.

Samples that reach r from t and from a nearer time w must have one
distribution: their maximum mean discrepancy is minimised, the second set
stopped, over groups of particles that share (t, w, r).
"""

import dataclasses

from keras import ops

from keras_flows.objectives.base import Objective
from keras_flows.ops import bcast_right
from keras_flows.ops import register
from keras_flows.ops.scalars import COUNT
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import REAL
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Integer
from keras_flows.ops.scalars import checked


@register
@checked(
    particles=Integer(2),
    power=SIZE,
    bias=REAL,
    alpha_power=COUNT,
    max_ratio=POSITIVE,
)
@dataclasses.dataclass(frozen=True)
class IMM(Objective):
    """weight(t) MMD^2(X_{t->r}(x_t), sg X_{w->r}(x_w)), x_t, x_w of one pair.

    w is where the ratio sigma / alpha is max_ratio / 2^power less than at t,
    and x_w the DDIM interpolant of x_t and x. Kernel: exp(-d), d = |a - b| /
    (D c_out) and c_out = |t - r| x_sigma. weight = (1/2) sigmoid(bias -
    lambda) (-dlambda/dl) alpha^alpha_power / (alpha^2 + sigma^2), lambda =
    2 log(alpha / sigma) and l the level.

    A particle and its own target are a pair, and this kernel draws the one to
    the median of what the other may be, where the velocity is a mean. In many
    dimensions, where all distances are alike, that is the same; in a few use
    `stable_target`: x_w follows from x_t then, by DDIM's step of the batch's
    denoiser, and each particle has one target.

    Args:
        particles: rows of a group; must divide the batch size.
        power: k of the distance from t to w.
        bias: b of the weight.
        alpha_power: a of the weight, 1 or 2.
        max_ratio: the largest sigma / alpha that counts.
    """

    particles: int = 4
    power: int = 12
    bias: float = 5.0
    alpha_power: int = 1
    max_ratio: float = 160.0

    name = "imm"
    takes_mask = False
    weighs = False
    terms = ("mmd",)
    needs_r = True
    sampler = "flow_map_jump"
    num_steps = 1
    stable = True

    def __call__(self, model, batch):
        x, condition = batch.x, batch.condition
        path, particles = model.interpolant, self.particles
        t, w, r = (
            ops.repeat(time, particles, axis=0)
            for time in self._times(model, _groups(x, particles))
        )
        n = model.sample_n(ops.shape(x))
        x_t = model.sample_x_t(x, n, t)
        x_w = model.sample_x_t(*model.endpoints(x, n, t, condition), w)
        ours = model.jump(x_t, t, r, condition=condition)
        target = ops.stop_gradient(model.jump(x_w, w, r, condition=condition))

        shape = (-1, particles, _size(x))
        ours, target = ops.reshape(ours, shape), ops.reshape(target, shape)
        scale = ops.abs(t - r) * model.x_sigma * _size(x)
        scale = bcast_right(ops.reshape(scale, (-1, particles))[:, 0], ours)
        scale = ops.maximum(scale, 1e-6)
        mmd = (
            _kernel(ours, ours, scale)
            + _kernel(target, target, scale)
            - 2.0 * _kernel(ours, target, scale)
        )
        mmd = ops.repeat(mmd, particles, axis=0)
        return {"loss": self._weight(path, t) * mmd, "mmd": mmd}

    def _times(self, model, groups):
        """(t, w, r) of each group, from noise to data."""
        path, step = model.interpolant, self.max_ratio / 2.0**self.power
        level = model.sample_uniform((groups,))
        t = path.within(path.time_of_level(level))
        level = level * model.sample_uniform((groups,))
        r = path.within(path.time_of_level(level))
        ratio_t, ratio_r = (
            _ratio(path, time, self.max_ratio) for time in (t, r)
        )
        w = path.time_from_ratio(ops.maximum(ratio_t - step, 1e-6))
        return t, ops.where(ratio_t - step > ratio_r, w, r), r

    def _weight(self, path, t):
        largest = self.max_ratio
        ratio = ops.maximum(_ratio(path, t, largest), 1.0 / largest)
        alpha, sigma = path.alpha(t), path.sigma(t)
        slope = path.sigma_dot(t) / ops.maximum(sigma, 1e-6)
        slope = slope - path.alpha_dot(t) / ops.maximum(alpha, sigma / largest)
        per_level = ops.abs(slope / path.level_dot(t))
        return (
            ops.sigmoid(self.bias + 2.0 * ops.log(ratio))
            * per_level
            * ops.power(alpha, self.alpha_power)
            / (ops.square(alpha) + ops.square(sigma))
        )


def _size(x):
    size = 1
    for side in x.shape[1:]:
        size *= side
    return size


def _groups(x, particles):
    """Number of groups in the batch."""
    batch = x.shape[0]
    if particles < 2 or (batch is not None and batch % particles):
        raise ValueError(
            "`particles` of the objective 'imm' must be at least 2 and divide "
            f"the batch size. Received: {particles}, and a batch of {batch}."
        )
    return ops.shape(x)[0] // particles


def _ratio(path, t, largest):
    """sigma / alpha, at most `largest`."""
    alpha, sigma = path.alpha(t), path.sigma(t)
    return sigma / ops.maximum(alpha, sigma / largest + 1e-12)


def _kernel(a, b, scale):
    """Mean over pairs of particles of the Laplace kernel, (groups,)."""
    difference = ops.expand_dims(a, 2) - ops.expand_dims(b, 1)
    # The square root's slope is infinite where two particles meet.
    square = ops.sum(ops.square(difference), axis=-1)
    distance = ops.sqrt(ops.maximum(square, 1e-12))
    return ops.mean(ops.exp(-distance / scale), axis=(1, 2))
