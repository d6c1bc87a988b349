"""A scale of guidance, and an interval, that a network takes as inputs."""

import dataclasses

from keras import ops

from keras_flows.networks import input_names
from keras_flows.ops import float_dtype


@dataclasses.dataclass(frozen=True)
class GuidanceInput:
    """The scales of a network with the input `guidance`, see MeanFlow's.

    A condition then is {"label": (B,), "guidance": (B,)} and, where the network
    takes it, "guidance_interval": (B, 2), levels of noise.

    Attributes:
        low, high: the trained scales.
        power: their density falls as scale^(-power).
        intervals: whether the network takes the interval as well.
    """

    low: float
    high: float
    power: float
    intervals: bool

    def scale(self, uniform):
        """Scales of density scale^(-power), from uniform numbers (B,)."""
        p = 1.0 - self.power
        if p == 0.0:
            return self.low * ops.power(self.high / self.low, uniform)
        low, high = self.low**p, self.high**p
        return ops.power(low + uniform * (high - low), 1.0 / p)

    def interval(self, uniform, rows):
        """Intervals from uniform numbers (B, 2); (0, 1) on diagonal `rows`."""
        ends = ops.convert_to_tensor([0.0, 0.5], dtype=uniform.dtype)
        off, diagonal = rows.split(0.5 * uniform + ends)
        return rows.merge(off, ops.zeros_like(diagonal) + 2.0 * ends)

    def condition(self, label, scale, interval=None):
        """The condition of a label and a scale (B,), by default everywhere."""
        found = {"label": label, "guidance": scale}
        if self.intervals:
            if interval is None:
                ends = [ops.zeros_like(scale), ops.ones_like(scale)]
                interval = ops.stack(ends, axis=-1)
            found["guidance_interval"] = interval
        return found

    def instant(self, condition, level):
        """The condition of the velocity at noise levels (B,).

        An interval is one of maps: the velocity is trained under (0, 1) alone,
        and has the scale 1 outside the interval.
        """
        if not self.intervals:
            return condition
        interval = condition["guidance_interval"]
        low, high = interval[:, 0], interval[:, 1]
        inside = ops.logical_and(level >= low, level <= high)
        scale = condition["guidance"]
        scale = ops.where(inside, scale, ops.ones_like(scale))
        return self.condition(condition["label"], scale)

    def asked(self, label, scale, rows, interval):
        """The condition of a user's scale and interval, numbers.

        Raises:
            ValueError: if the network was not trained for them.
        """
        if interval is not None and not self.intervals:
            raise ValueError(
                "`guidance_interval` needs a network with the input "
                "'guidance_interval' (DiT(..., guidance='interval')): this one "
                "takes the scale of guidance alone, and acts on it where it "
                f"did in training. Received: {interval}."
            )
        if not min(self.low, 1.0) <= scale <= self.high:
            raise ValueError(
                "`guidance_scale` must lie in the trained `guidance_range`, "
                f"{self.low} to {self.high} (1.0 is off). Received: {scale}."
            )
        scale = ops.full((rows,), scale, dtype=float_dtype())
        if interval is not None:
            ends = ops.convert_to_tensor([interval], dtype=float_dtype())
            interval = ops.ones_like(scale)[:, None] * ends
        return self.condition(label, scale, interval)


def guidance_input(network, guidance_range, power, scale, mixture):
    """The `GuidanceInput` of a network, or None for one without.

    Args:
        network, guidance_range, power, scale, mixture: those of
            `MeanFlowInterface`, or its `guidance_...`.

    Raises:
        ValueError: if they do not go together.
    """
    names = input_names(network) or ()
    takes, intervals = "guidance" in names, "guidance_interval" in names
    if takes != (guidance_range is not None) or (intervals and not takes):
        raise ValueError(
            "`guidance_range` and a network with the input 'guidance' "
            "(DiT(..., guidance=True)) go together. Received: "
            f"{guidance_range} and a network "
            + ("with it." if takes else "without it.")
        )
    if guidance_range is None:
        return None
    low, high = guidance_range
    # Below 1/2 the target would grow from step to step.
    if not 0.5 < low < high or scale != 1.0:
        raise ValueError(
            "`guidance_range` must be (low, high) with 0.5 < low < high, in "
            "the place of a `guidance_scale`. Received: "
            f"{guidance_range} and {scale}."
        )
    if mixture != 0.0:
        raise ValueError(
            "`guidance_mixture_ratio` must be 0 beside a `guidance_range`, "
            f"whose scales it would change. Received: {mixture}."
        )
    return GuidanceInput(float(low), float(high), power, intervals)
