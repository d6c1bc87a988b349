"""What samples: `generate` and `export` of any model with a predictor."""

from __future__ import annotations

import numpy as np
from keras import ops

from keras_flows import samplers
from keras_flows.export import Served
from keras_flows.export import export
from keras_flows.export import sampling_plan
from keras_flows.interfaces import types
from keras_flows.interfaces.binding import bound_for
from keras_flows.networks import building
from keras_flows.networks import contract
from keras_flows.networks import labels_of
from keras_flows.ops import bcast_right
from keras_flows.ops import familiar
from keras_flows.ops import known
from keras_flows.ops import mean_flat
from keras_flows.ops.scalars import FLAG
from keras_flows.training import Trainable
from keras_flows.training import data_checks


@familiar.answers_familiar_names
class Generator(Trainable):
    """A `Trainable` that samples.

    A subclass gives the attributes `interpolant`, `network` (of whose
    condition the arguments are), `emas`, `null_label`, `n_mu`, `n_sigma`,
    `objective` and `provides` (what it predicts, see
    `samplers.Sampler.needs`), and overrides what it does in its own way.
    """

    output_parts = 1  # how many times x's channels the network returns

    @property
    def sample_shape(self):
        """Shape of one sample, None for free sizes; None if not known yet.

        Of a subclassed network that of the first batch.
        """
        return contract.sample_shape(self.network)

    @property
    def data_shape(self):
        """The shape that data must have, None for free sizes, or None."""
        return contract.data_shape(self.network)

    def networks(self):
        """Networks of the model's own that are called, those held aside."""
        return [] if self.held() else [self.network]

    def complete(self, x, condition=None):
        """Build subclassed networks by a batch, those that wait for one."""
        for model in self.held():
            model.complete(x, condition)
        for network in self.networks():
            if building.needs_batch(network):
                building.complete(
                    network, x, condition, self.takes_r, self.output_parts
                )

    def bind(self, network, condition):
        """The predictor that samplers see, such as `samplers.Bound`.

        Args:
            network: the network to call.
            condition: tensor or structure, or None.
        """
        return samplers.Bound(self, network, condition)

    def start(self, noise, t=None):
        """The state at `t_noise` from standard normal noise, (B, ...).

        At another time t, a number, it is sigma(t) times that noise.
        """
        if self.objective.start == "zero":
            return ops.zeros_like(noise)
        return self.interpolant.initial(self.n_mu + self.n_sigma * noise, t)

    def inference_network(self, use_ema=True):
        """The network for sampling: the first EMA, or the trained one.

        Before its first update an EMA is the live weights.
        """
        if not FLAG("use_ema", use_ema) or not self.emas:
            return self.network
        return self.emas[0].averaged()

    def sampling_layers(self, use_ema=True):
        """Everything whose weights sampling reads."""
        return [self.inference_network(use_ema)]

    def absorb_guidance(self, condition, scale, rows, interval=None):
        """(condition, scale of guidance) that sampling uses.

        Args:
            condition: with one row per sample, or None.
            scale: the user's.
            rows: number of samples.
            interval: (low, high), where it acts, or None for everywhere.
        """
        return condition, scale

    @property
    def default_sampler(self):
        """The sampler where `generate` is given none."""
        return samplers.get(self.objective.default_sampler())

    @property
    def default_num_steps(self):
        """Number of sampling steps where `generate` is given none."""
        return self.objective.num_steps

    def sampling_times(self, sampler=None, num_steps=None, start=None):
        """(sampler, num_steps, times) of what a user asked for.

        `start` is the first time, None for the grid's own.

        Raises:
            ValueError: if the model cannot be sampled so.
        """
        if sampler is None:
            sampler = self.default_sampler
        sampler = samplers.get(sampler)
        samplers.check_fit(sampler, self.provides, type(self).__name__)
        if num_steps is None:
            num_steps = self.default_num_steps
        # A sampler of the user's may know no `start`.
        given = () if start is None else (start,)
        times = sampler.times(self.interpolant, num_steps, *given)
        return sampler, int(num_steps), times

    def require(self, what, method):
        """Refuse a method whose result would not mean what it says."""
        if what not in self.provides:
            raise ValueError(
                f"`{method}` is not defined for {type(self).__name__} with "
                f"objective '{self.objective.name}', which predicts "
                f"{' and '.join(sorted(self.provides))}. Sample it by "
                f"`generate`, with {self.default_sampler}."
            )

    def require_end(self, r):
        """Refuse a jump of a model that only knows where the flow ends."""
        self.require("end", "jump")
        last = self.interpolant.t_last
        values = known(r)
        if values is None or not np.allclose(values, last, rtol=1e-5):
            raise ValueError(
                f"`r` must be the end of the path, {last}: "
                f"{type(self).__name__} knows no other place of the flow. "
                f"Received: r={r}; `end(x_t, t)` leads there."
            )

    def labels(self):
        return labels_of(self.network, self.null_label)

    def check_first(self, batch):
        data_checks.check_batch(batch, self)

    def score(self, x_t, t, *, condition=None, network=None):
        """Score grad log p_t(x_t), through the interpolant, (B, ...)."""
        return self.pred_and_score(
            x_t, t, condition=condition, network=network
        )[1]

    def __init__(self, network: types.Model = None, **kwargs: object) -> None:
        super().__init__(network, **kwargs)
        self.loop = samplers.Loop()

    def generate(
        self,
        num_samples: int | None = None,
        *,
        condition: types.Tree | None = None,
        negative_condition: types.Tree | None = None,
        num_steps: int | None = None,
        guidance_scale: float = 1.0,
        guidance_interval: types.Range | None = None,
        guidance_channels: int | None = None,
        guidance_model: Generator | None = None,
        seed: int | None = None,
        noise: types.ArrayLike | None = None,
        sampler: types.Sampler | None = None,
        batch_size: int | None = None,
        use_ema: bool = True,
        start: tuple[types.ArrayLike, float] | None = None,
        return_trajectory: bool = False,
        progress: bool = False,
        **others: object,
    ) -> types.Tensor:
        """Sample.

        The noise is drawn by NumPy, a stream for the start and one for each
        step: a sample depends on `seed` and its index alone, on every backend,
        however many there are, and whatever the `batch_size`.

        Args:
            num_samples: int; by default the rows of `condition` or `noise`.
            condition: one row per sample (or a structure of such tensors),
                or a single scalar label for all.
            negative_condition: what guidance leads from; the null label.
            num_steps: int, at least 1; by default the objective's.
            guidance_scale: of classifier-free guidance, or of autoguidance
                with a `guidance_model`; 1.0 is off and costs nothing.
            guidance_interval: (low, high), the levels of noise (0 data,
                1 noise) between which guidance acts.
            guidance_channels: how many channels are guided, the first ones;
                by default all (published figures of DiT and SiT: 3 of 4).
            guidance_model: a weaker interface on the same interpolant, to
                lead away from (autoguidance, arXiv 2406.02507), called with
                `negative_condition`, or `condition`, and its own EMA weights.
            seed: int, or None for a fresh one.
            noise: standard normal (B, ...), for runs that must agree.
            sampler: name or `Sampler`; by default the objective's.
            batch_size: how many to sample at once; by default all.
            use_ema: whether to use the first EMA's weights, here and of the
                `guidance_model`.
            start: (x, t), a state x (B, ...) of the path at one time t, to
                start from in the place of noise: `num_steps` lead from t to
                the data. For image to image x is data with noise on it,
                `model.sample_x_t(data, model.sample_n(data.shape), t)`.
            return_trajectory: whether to return the states at all times of the
                grid, `sampler.times(model.interpolant, num_steps)`.
            progress: whether to show a bar of the batches.

        Returns:
            Samples (B, ...), a tensor of the backend; with
            `return_trajectory` (num_steps + 1, B, ...), the samples last.

        Raises:
            ValueError: if an argument does not fit; the message says how.
        """
        familiar.refuse("generate", others)
        request = samplers.make_request(
            self, num_samples, condition, negative_condition, num_steps,
            guidance_scale, guidance_interval, guidance_channels,
            guidance_model, seed, noise, sampler, batch_size, start,
        )  # fmt: skip
        if return_trajectory:
            request = request.with_trajectory()
        predictors = bound_for(self, request, use_ema)
        return self.loop.run(request, *predictors, FLAG("progress", progress))

    def show(
        self,
        num_samples: int | None = None,
        *,
        path: types.PathLike | None = None,
        **options: object,
    ) -> types.Figure:
        """A figure of samples, for a notebook; see `plot.samples`.

        Args:
            num_samples, path: by default 16, or 10,000 points; no PNG file.
            options: of `generate`; by default the seed is 0.
        """
        from keras_flows import plot

        return plot.show(self, num_samples, path, options)

    def encode(
        self,
        x: types.ArrayLike,
        *,
        condition: types.Tree | None = None,
        negative_condition: types.Tree | None = None,
        num_steps: int = 50,
        guidance_scale: float = 1.0,
        guidance_interval: types.Range | None = None,
        sampler: types.Sampler = "heun",
        batch_size: int | None = None,
        use_ema: bool = True,
    ) -> types.Tensor:
        """The noise that the probability flow makes x from, (B, ...).

        The flow runs from the data to the noise, on the times of `sampler` in
        reverse, and `generate(noise=model.encode(x), sampler=sampler)` leads
        back to x, up to the solver's error, with the same condition, guidance
        and `num_steps`. Where `t_last` is not `t_data` it starts at `t_last`,
        else at a level of 1e-5, from the mean of x_t there.

        Args:
            x: data, (B, ...).
            condition, negative_condition, guidance_scale, guidance_interval,
                batch_size, use_ema: see `generate`. Under strong guidance the
                way back is far from x.
            num_steps: int, at least 2; that of the grid in reverse.
            sampler: a reversible one: "heun", "euler", "ddim" or
                "dormand_prince".

        Returns:
            Noise, as `generate` takes it: standard normal where the model is
            exact. Of a stochastic interpolant it is x_0.

        Raises:
            ValueError: if an argument does not fit; the message says how.
        """
        self.require("velocity", "encode")
        contract.check_data(x, self.data_shape)
        request = samplers.make_request(
            self, None, condition, negative_condition, num_steps,
            guidance_scale, guidance_interval, None, None, None, x, sampler,
            batch_size,
        )  # fmt: skip
        request = samplers.inverse(request, self)
        end = self.loop.run(request, *bound_for(self, request, use_ema))
        # `start` is affine in the noise.
        zero = self.start(ops.zeros_like(end))
        return (end - zero) / (self.start(ops.ones_like(end)) - zero)

    def export(
        self,
        filepath: types.PathLike,
        format: str = "tf_saved_model",
        *,
        version: int | None = None,
        num_steps: int | None = None,
        sampler: types.Sampler | None = None,
        guidance_scale: float = 1.0,
        guidance_interval: types.Range | None = None,
        guidance_channels: int | None = None,
        decoder: types.Model | None = None,
        output_range: types.Range | None = None,
        use_ema: bool = True,
        verbose: bool = True,
    ) -> None:
        """Export the sampler as a SavedModel or as ONNX.

        A SavedModel is loaded by TensorFlow alone, without Keras. Each of its
        endpoints takes any batch size:

        - `serve`: "noise" (B, ...), standard normal, and, for a conditional
          model, "condition" (or a "condition_<key>" for each key of one that
          is a dict), to "samples" (B, ...);
        - `from_seed`: "seed", and "condition" or, without one, "batch_size",
          to "samples". The noise is TensorFlow's, by Philox, the same
          wherever the file runs, but not that of `generate(seed=...)`;
        - `velocity`: "x", "t"[, "r"][, "condition"] to "velocity" dx/dt in
          the interpolant's time, unguided, undecoded: what `pred` gives. Of a
          model that predicts no velocity there is none.

        ONNX, folder/model.onnx, has `serve` alone. Beside either lies
        signature.json: inputs, outputs, settings, weights, versions and the
        files' SHA-256.

        Before the export takes its place each endpoint is loaded and compared
        with `generate` and `pred`. A difference above 1e-4 (of the largest
        value, where that is above 1) is an error and leaves nothing behind.
        What this backend cannot write (PyTorch a SavedModel, PyTorch and JAX
        ONNX) a TensorFlow subprocess writes.

        Args:
            filepath: folder to write; its parent must be writable. An earlier
                export there is replaced.
            format: "tf_saved_model" or "onnx".
            version: int, to write filepath/<version> beside other versions,
                as TensorFlow Serving lays them out; None for filepath itself.
            num_steps, sampler: see `generate`; fixed in the export. A sampler
                without noise of its own.
            guidance_scale, guidance_interval, guidance_channels: see
                `generate`; fixed in the export.
            decoder: `keras.Model` from samples to what is served, such as the
                `decoder` of a `networks.AutoencoderKL`.
            output_range: (low, high) to which the served values are mapped
                from [-1, 1], after clipping, such as (0, 255) for pixels.
            use_ema: whether to export the first EMA's weights.
            verbose: whether to print a line.

        Raises:
            ValueError: on an argument that does not fit, or if the folder
                exists and is no export.
            ImportError: if a package that the format needs is not installed.
            RuntimeError: if the file differs from the model.
        """
        served = Served(
            decoder=decoder, output_range=output_range, use_ema=use_ema,
            options={
                "sampler": sampler,
                "num_steps": num_steps,
                "guidance_scale": guidance_scale,
                "guidance_interval": guidance_interval,
                "guidance_channels": guidance_channels,
            },
        )  # fmt: skip
        export(self, served, filepath, format, version, verbose)

    def export_plan(self, served):
        """What an exported file computes, for `keras_flows.export`."""
        return sampling_plan(self, served)

    @staticmethod
    def t_shift(t, shift):
        """t -> shift t / (1 + (shift - 1) t), for t a level of noise."""
        return shift * t / (1.0 + (shift - 1.0) * t)

    mean_flat, bcast_right = staticmethod(mean_flat), staticmethod(bcast_right)
