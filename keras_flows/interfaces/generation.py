"""`generate`: from noise to samples, compiled once per shape."""

import numpy as np
from keras import ops
from keras import tree

from keras_flows import samplers
from keras_flows.interfaces import checks
from keras_flows.ops import compiled
from keras_flows.ops import float_dtype
from keras_flows.samplers.base import batch_of


def _rows(structure):
    return tree.flatten(structure)[0].shape[0]


def _as_array(condition):
    """Lists and numbers as NumPy arrays; everything else as it is."""
    if isinstance(condition, (int, float, list)):
        return np.asarray(condition)
    return condition


def _cut(structure, part):
    """Some rows of a condition."""
    if structure is None:
        return None
    return tree.map_structure(lambda leaf: leaf[part], structure)


class Generation:
    """`generate` and what it shares with export; a mixin of `Interface`."""

    def _init_generation(self):
        # Compiled steps by what is static in them.
        self._steps = {}

    def inference_network(self, use_ema=True):
        """The network for sampling: the first EMA, or the trained one.

        Before its first update an EMA is the live weights.
        """
        if not use_ema or not self.emas:
            return self.network
        self._start_emas()
        return self.emas[0].averaged()

    def predictor(self, network, condition, negative, scale, interval):
        """The `Predictor` that samplers see."""
        return samplers.Predictor(
            self, network, condition, negative, scale, interval
        )

    def generate(
        self,
        num_samples=None,
        *,
        condition=None,
        negative_condition=None,
        num_steps=None,
        guidance_scale=1.0,
        guidance_interval=None,
        seed=None,
        noise=None,
        sampler=None,
        batch_size=None,
        use_ema=True,
    ):
        """Sample.

        The noise is drawn by NumPy from `seed`, so one seed means the same
        noise on every backend.

        Args:
            num_samples: int; by default the number of rows of `condition`
                or `noise`.
            condition: one row per sample (or a structure of such tensors),
                or a single scalar label for all.
            negative_condition: what guidance leads away from; by default the
                network's null label.
            num_steps: int, at least 1; by default the objective's.
            guidance_scale: classifier-free guidance; 1.0 is off.
            guidance_interval: (low, high), the noise fractions (0 data,
                1 noise) between which guidance acts.
            seed: int, or None for a fresh one.
            noise: standard normal (B, ...), for runs that must agree.
            sampler: name or `Sampler`; by default the objective's.
            batch_size: how many to sample at once; by default all.
            use_ema: whether to use the first EMA's weights.

        Returns:
            Samples (B, ...), a tensor of the backend.

        Raises:
            ValueError: if an argument does not fit; the message says how.
        """
        sampler = (
            self.default_sampler if sampler is None else samplers.get(sampler)
        )
        num_steps = self.default_num_steps if num_steps is None else num_steps
        sampler.times(self.interpolant, num_steps)
        condition = _as_array(condition)
        negative_condition = _as_array(negative_condition)
        num_samples = self._count(num_samples, condition, noise)
        condition = self._rows_of(condition, num_samples, "condition")
        negative = self._negative(
            condition, negative_condition, guidance_scale, num_samples
        )
        interval = self._interval(guidance_interval)
        shape = self._shape(noise)
        if batch_size is None:
            batch_size = num_samples
        if batch_size < 1:
            raise ValueError(
                f"`batch_size` must be at least 1. Received: {batch_size!r}."
            )
        rng = np.random.Generator(np.random.Philox(seed))
        step = self._compiled_step(
            sampler, use_ema, condition, negative, interval
        )
        batches = []
        for start in range(0, num_samples, batch_size):
            part = slice(start, min(start + batch_size, num_samples))
            size = part.stop - part.start
            x, noises = self._noises(
                rng, size, shape, sampler, num_steps,
                None if noise is None else noise[part],
            )  # fmt: skip
            cut = [_cut(condition, part), _cut(negative, part)]
            batches.append(
                sampler.walk(
                    step(*cut, guidance_scale),
                    self.interpolant,
                    x,
                    noises,
                    num_steps,
                )
            )
        return batches[0] if len(batches) == 1 else ops.concatenate(batches)

    def _compiled_step(self, sampler, use_ema, condition, negative, interval):
        """step(condition, negative, scale)(x, t, r, noise, last)."""
        network = self.inference_network(use_ema)
        guided = negative is not None

        def build(last):
            def run(x, t, r, scale, *rest):
                rest = list(rest)
                noise = rest.pop(0) if sampler.stochastic else None
                bound = self.predictor(
                    network,
                    rest.pop(0) if condition is not None else None,
                    rest.pop(0) if guided else None,
                    scale,
                    interval,
                )
                return sampler.step(
                    bound, x, batch_of(t, x), batch_of(r, x), noise, last
                )

            return compiled(run, self.variables)

        def bind(condition, negative, scale):
            def step(x, t, r, noise, last):
                key = (
                    repr(sampler), bool(last), condition is not None, guided,
                    interval, id(network),
                )  # fmt: skip
                if key not in self._steps:
                    self._steps[key] = build(last)
                rest = [
                    part
                    for part in (
                        noise if sampler.stochastic else None,
                        condition,
                        negative,
                    )
                    if part is not None
                ]
                scale_now = np.asarray(scale, dtype=float_dtype())
                return self._steps[key](
                    x,
                    np.asarray(t, dtype=float_dtype()),
                    np.asarray(r, dtype=float_dtype()),
                    scale_now,
                    *rest,
                )

            return step

        return bind

    def _count(self, num_samples, condition, noise):
        counts = {}
        if num_samples is not None:
            if (
                isinstance(num_samples, bool)
                or not isinstance(num_samples, (int, np.integer))
                or num_samples < 1
            ):
                raise ValueError(
                    "`num_samples` must be an int of at least 1. "
                    f"Received: {num_samples!r}."
                )
            counts["num_samples"] = int(num_samples)
        if noise is not None:
            counts["noise"] = _rows(noise)
        scalar = condition is not None and not np.ndim(
            tree.flatten(condition)[0]
        )
        if condition is not None and not scalar:
            counts["condition"] = _rows(condition)
        if not counts:
            raise ValueError(
                "Pass `num_samples`, or a `condition` or `noise` with one "
                "row per sample."
            )
        if len(set(counts.values())) > 1:
            raise ValueError(
                "`num_samples`, `condition` and `noise` disagree about the "
                f"number of samples: {counts}."
            )
        return next(iter(counts.values()))

    def _rows_of(self, condition, num_samples, argument):
        """The condition with one row per sample, in the network's dtype."""
        if condition is None:
            checks.check_condition(None, self.network)
            return None
        expected = None
        if getattr(self.network, "inputs", None):
            checks_input = self.network.input.get("condition")
            expected = getattr(checks_input, "dtype", None)

        def rows(leaf):
            if isinstance(leaf, np.ndarray) and leaf.ndim == 0:
                leaf = np.full((num_samples,), leaf)
            leaf = ops.convert_to_tensor(leaf)
            return leaf if expected is None else ops.cast(leaf, expected)

        condition = tree.map_structure(rows, condition)
        checks.check_condition(condition, self.network, num_samples)
        return condition

    def _negative(self, condition, negative, scale, num_samples):
        if not np.isscalar(scale) or not np.isfinite(scale):
            raise ValueError(
                f"`guidance_scale` must be a finite number. Received: {scale}."
            )
        if scale == 1.0:
            return None
        if condition is None:
            raise ValueError(
                "`guidance_scale` needs a `condition` to guide towards. "
                f"Received guidance_scale={scale} without one."
            )
        if negative is None:
            if self.null_label is None:
                raise ValueError(
                    "`guidance_scale` needs `negative_condition`: the network "
                    "has no null label. Received guidance_scale="
                    f"{scale} without one."
                )
            return tree.map_structure(
                lambda c: ops.full_like(c, self.null_label), condition
            )
        return self._rows_of(negative, num_samples, "negative_condition")

    def _interval(self, interval):
        if interval is None:
            return None
        low, high = (float(edge) for edge in interval)
        if not 0.0 <= low <= high <= 1.0:
            raise ValueError(
                "`guidance_interval` must be (low, high), two noise "
                f"fractions with 0 <= low <= high <= 1. Received: {interval}."
            )
        return low, high

    def _shape(self, noise):
        if noise is not None:
            checks.check_data(noise, self.sample_shape, "noise")
            return tuple(noise.shape[1:])
        if self.sample_shape is None or None in self.sample_shape:
            raise ValueError(
                "`noise` is needed: the network does not tell the shape of "
                "a sample."
            )
        return self.sample_shape

    def _noises(self, rng, size, shape, sampler, num_steps, noise):
        """The start x at `t_noise`, and the noise of every step."""
        dtype = float_dtype()
        if noise is None:
            noise = rng.standard_normal((size, *shape), dtype=dtype)
        noises = None
        if sampler.stochastic:
            noises = [
                ops.convert_to_tensor(
                    rng.standard_normal((size, *shape), dtype=dtype)
                )
                for _ in range(num_steps)
            ]
        return self.start(ops.convert_to_tensor(noise, dtype=dtype)), noises

    def start(self, noise):
        """The state at `t_noise` from standard normal noise."""
        if self.objective.start == "zero":
            return ops.zeros_like(noise)
        return self.interpolant.initial(self.n_mu + self.n_sigma * noise)
