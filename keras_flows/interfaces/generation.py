"""`generate`: from noise to samples, compiled once per shape."""

import numpy as np
from keras import ops
from keras import tree

from keras_flows import samplers
from keras_flows.interfaces import checks
from keras_flows.networks import input_names
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


def _acts(interval, calls, path, t, r):
    """Whether a step from t to r calls the model inside the interval."""
    if interval is None or calls == "anywhere":
        return True
    low, high = interval
    start, end = path.noise_fraction(t), path.noise_fraction(r)
    if calls == "between":
        return end <= high and start >= low
    called = (start,) if calls == "start" else (start, end)
    return any(low <= f <= high for f in called)


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

    guidance_acts = staticmethod(_acts)

    def inference_network(self, use_ema=True):
        """The network for sampling: the first EMA, or the trained one.

        Before its first update an EMA is the live weights.
        """
        if not use_ema or not self.emas:
            return self.network
        self._start_emas()
        return self.emas[0].averaged()

    def predictor(self, network, condition, negative=None, scale=1.0,
                  interval=None, channels=None, guide=None):  # fmt: skip
        """The `Predictor` that samplers see.

        Args:
            guide: None, or the interface of autoguidance and its network,
                whose condition `negative` then is.
        """
        if guide is not None:
            model, weak = guide
            guide = samplers.Predictor(model, weak, negative)
            negative = None
        return samplers.Predictor(
            self, network, condition, negative, scale, interval, channels, guide
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
        guidance_channels=None,
        guidance_model=None,
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
            guidance_scale: of classifier-free guidance, or of autoguidance
                with a `guidance_model`; 1.0 is off and costs nothing.
            guidance_interval: (low, high), the noise fractions (0 data,
                1 noise) between which guidance acts.
            guidance_channels: how many channels are guided, the first ones;
                by default all (DiT's and SiT's published figures guide 3 of
                a latent's 4).
            guidance_model: a weaker interface on the same interpolant, to
                lead away from (autoguidance, arXiv 2406.02507); it is called
                with `negative_condition`, or `condition` without one, and
                with its own EMA weights.
            seed: int, or None for a fresh one.
            noise: standard normal (B, ...), for runs that must agree.
            sampler: name or `Sampler`; by default the objective's.
            batch_size: how many to sample at once; by default all.
            use_ema: whether to use the first EMA's weights, here and of the
                `guidance_model`.

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
        condition, guidance_scale = self.absorb_guidance(
            condition, guidance_scale, num_samples
        )
        guide = self._guide(guidance_model, guidance_scale, use_ema)
        negative = self._negative(
            condition, negative_condition, guidance_scale, num_samples, guide
        )
        guided = guide is not None or negative is not None
        channels = self._channels(guidance_channels)
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
            sampler, use_ema, guided, interval, channels, guide
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

    def _compiled_step(
        self, sampler, use_ema, guided, interval, channels, guide
    ):
        """bind(condition, negative, scale)(x, t, r, noise, state, left)."""
        network = self.inference_network(use_ema)
        variables = {id(v): v for v in self.variables}
        if guide is not None:
            variables |= {id(v): v for v in guide[0].variables}

        def build(left, acts):
            def run(x, t, r, scale, state, inputs):
                guidance = {}
                if acts:
                    guidance = {
                        "negative": inputs.get("negative"),
                        "scale": scale,
                        "interval": interval,
                        "channels": channels,
                        "guide": guide,
                    }
                bound = self.predictor(
                    network, inputs.get("condition"), **guidance
                )
                noise = inputs.get("noise")
                t, r = batch_of(t, x), batch_of(r, x)
                return sampler.advance(bound, x, t, r, noise, state, left)

            return compiled(run, list(variables.values()))

        def bind(condition, negative, scale):
            def advance(x, t, r, noise, state, left):
                acts = guided and _acts(
                    interval, sampler.calls, self.interpolant, t, r
                )
                inputs = {
                    "noise": noise if sampler.stochastic else None,
                    "condition": condition,
                    "negative": negative if acts else None,
                }
                inputs = {k: v for k, v in inputs.items() if v is not None}
                key = (repr(sampler), left, id(network), tuple(inputs))
                key += (len(state),)
                if acts:
                    models = None if guide is None else tuple(map(id, guide))
                    key += (interval, channels, models)
                if key not in self._steps:
                    self._steps[key] = build(left, acts)
                return self._steps[key](
                    x,
                    np.asarray(t, dtype=float_dtype()),
                    np.asarray(r, dtype=float_dtype()),
                    np.asarray(scale, dtype=float_dtype()),
                    state,
                    inputs,
                )

            return advance

        return bind

    def absorb_guidance(self, condition, scale, rows):
        """(condition, scale of guidance) that sampling uses."""
        return condition, scale

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

    def _guide(self, model, scale, use_ema):
        """The guiding interface and its network, or None."""
        if model is None:
            return None
        if not isinstance(model, Generation):
            raise ValueError(
                "`guidance_model` must be an Interface, a weaker one. "
                f"Received: {model!r}."
            )
        for what in ("interpolant", "sample_shape", "n_mu", "n_sigma"):
            own, other = getattr(self, what), getattr(model, what)
            if own != other:
                raise ValueError(
                    f"`guidance_model` must have the same {what} as the "
                    f"model it guides. Received: {other} beside {own}."
                )
        if scale == 1.0:
            return None
        return model, model.inference_network(use_ema)

    def _negative(self, condition, negative, scale, num_samples, guide=None):
        """The condition of the negative prediction, or None."""
        if not np.isscalar(scale) or not np.isfinite(scale):
            raise ValueError(
                f"`guidance_scale` must be a finite number. Received: {scale}."
            )
        if scale == 1.0:
            return None
        if guide is not None:
            names = input_names(guide[1])
            if negative is None and (names is None or "condition" in names):
                negative = condition
            return guide[0]._rows_of(
                negative, num_samples, "negative_condition"
            )
        if condition is None:
            raise ValueError(
                "`guidance_scale` needs a `condition` to guide towards, or a "
                f"`guidance_model`. Received guidance_scale={scale} without."
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

    def _channels(self, channels):
        if channels is None:
            return None
        shape = self.sample_shape or ()
        most = shape[-1] if shape else None
        whole = isinstance(channels, (int, np.integer))
        if (
            isinstance(channels, bool)
            or not whole
            or channels < 1
            or (most is not None and channels > most)
        ):
            raise ValueError(
                "`guidance_channels` must be an int from 1 to the number of "
                f"channels ({most}). Received: {channels!r}."
            )
        return int(channels)

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
