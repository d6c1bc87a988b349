"""A scale of guidance, and an interval, that the network takes as inputs."""

from keras import ops

from keras_flows.networks import input_names
from keras_flows.ops import RowSplit
from keras_flows.ops import float_dtype


class GuidanceInput:
    """What `MeanFlowInterface` does with such a network, see there.

    Mixed into an `Interface` with `guidance_t_min`, `guidance_t_max` and
    `fm_portion`.

    Attributes:
        guidance_range: (low, high), the scales, or None without the input.
        guidance_power: their density falls as scale^(-guidance_power).
    """

    takes_guidance = True

    def _set_range(self, guidance_range, guidance_power, scale, mixture):
        names = input_names(self.network) or ()
        takes = "guidance" in names
        self._takes_interval = "guidance_interval" in names
        if self._takes_interval and not takes:
            raise ValueError(
                "`network` takes 'guidance_interval' without 'guidance', the "
                "scale that acts in it."
            )
        if takes != (guidance_range is not None):
            raise ValueError(
                "`guidance_range` and a network with the input 'guidance' "
                "(DiT(..., guidance=True)) go together. Received: "
                f"{guidance_range} and a network "
                + ("with it." if takes else "without it.")
            )
        if guidance_range is not None:
            low, high = guidance_range
            # Below 1/2 the target would grow from step to step.
            if not 0.5 < low < high or scale != 1.0:
                raise ValueError(
                    "`guidance_range` must be (low, high) with 0.5 < low < "
                    "high, in the place of a `guidance_scale`. Received: "
                    f"{guidance_range} and {scale}."
                )
            if mixture != 0.0:
                raise ValueError(
                    "`guidance_mixture_ratio` must be 0 beside a "
                    "`guidance_range`, whose scales it would change. "
                    f"Received: {mixture}."
                )
            guidance_range = (float(low), float(high))
        self.guidance_range = guidance_range
        self.guidance_power = guidance_power

    def sample_guidance(self, shape):
        """omega of density omega^(-guidance_power) on `guidance_range`."""
        low, high = self.guidance_range
        u, p = self.sample_uniform(shape), 1.0 - self.guidance_power
        if p == 0.0:
            return low * ops.power(high / low, u)
        return ops.power(low**p + u * (high**p - low**p), 1.0 / p)

    def inputs(self, x_t, t, r=None, condition=None, network=None):
        """As `Interface.inputs`; a condition may hold the guidance scale.

        `{"label": (B,), "guidance": (B,)[, "guidance_interval": (B, 2)]}`;
        labels alone mean a scale of 1.
        """
        if self.guidance_range is None:
            return super().inputs(x_t, t, r, condition, network)
        if not isinstance(condition, dict):
            condition = self._scaled(condition, ops.ones_like(t))
        inputs = super().inputs(x_t, t, r, condition["label"], network)
        others = {k: v for k, v in condition.items() if k != "label"}
        return {**inputs, **others}

    def _scaled(self, label, guidance, interval=None):
        """The condition of a label, a scale and, by default, all levels."""
        condition = {"label": label, "guidance": guidance}
        if self._takes_interval:
            if interval is None:
                interval = ops.stack(
                    [ops.zeros_like(guidance), ops.ones_like(guidance)], axis=-1
                )
            condition["guidance_interval"] = interval
        return condition

    def instant(self, condition, t):
        """The condition of the velocity at t under `condition`.

        Where the network takes an interval its velocity is trained under (0, 1)
        alone, with the scale 1 outside the interval.
        """
        if self.guidance_range is None or not self._takes_interval:
            return condition
        level, interval = (
            self.interpolant.level(t),
            condition["guidance_interval"],
        )
        inside = ops.logical_and(
            level >= interval[:, 0], level <= interval[:, 1]
        )
        scale = condition["guidance"]
        scale = ops.where(inside, scale, ops.ones_like(scale))
        return self._scaled(condition["label"], scale)

    def sample_interval(self, shape):
        """Levels (low, high) where guidance acts; (0, 1) where r = t."""
        half = 0.5 * self.sample_uniform((*shape, 2))
        drawn = half + ops.convert_to_tensor([0.0, 0.5], dtype=half.dtype)
        rows = RowSplit(shape[0], 1.0 - self.fm_portion)
        off, diagonal = rows.split(drawn)
        whole = ops.zeros_like(diagonal) + ops.convert_to_tensor(
            [0.0, 1.0], dtype=half.dtype
        )
        return rows.merge(off, whole)

    def absorb_guidance(self, condition, scale, rows, interval=None):
        """The scale goes into the network, where it takes one."""
        if self.guidance_range is None:
            return super().absorb_guidance(condition, scale, rows)
        if interval is not None and not self._takes_interval:
            raise ValueError(
                "`guidance_interval` needs a network with the input "
                "'guidance_interval' (DiT(..., guidance='interval')): this one "
                "takes the scale of guidance alone, and was trained to act on "
                f"it from t={self.guidance_t_min} to {self.guidance_t_max}. "
                f"Received: {interval}."
            )
        low, high = self.guidance_range
        if not min(low, 1.0) <= scale <= high:
            raise ValueError(
                "`guidance_scale` must lie in the trained `guidance_range`, "
                f"{low} to {high} (1.0 is off). Received: {scale}."
            )
        guidance = ops.full((rows,), scale, dtype=float_dtype())
        if interval is not None:
            interval = ops.ones((rows, 1), dtype=float_dtype()) * (
                ops.convert_to_tensor([interval], dtype=float_dtype())
            )
        return self._scaled(condition, guidance, interval), 1.0
