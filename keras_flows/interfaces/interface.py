"""The Interface: a `keras.Model` that joins a network and an interpolant.

It samples times and noise, holds preconditioning and loss, predicts
velocity and score, trains by `fit` and samples by `generate`. The network
is called in one method, `raw`.
"""

import keras
from keras import ops

from keras_flows import objectives
from keras_flows import ops as kf_ops
from keras_flows import samplers
from keras_flows.export import Exportable
from keras_flows.interfaces import checks
from keras_flows.interfaces.generation import Generation
from keras_flows.interpolants import get as get_interpolant
from keras_flows.interpolants import get_time_law
from keras_flows.networks import input_names
from keras_flows.networks import sample_shape
from keras_flows.objectives import norms
from keras_flows.presets import Preset
from keras_flows.training import TrainStep


class Interface(Generation, Exportable, Preset, TrainStep, keras.Model):
    """Base class of all diffusion and flow-matching interfaces.

    Subclasses give the preconditioning `c_in`, `c_out`, `c_skip`, `c_noise`
    (default: none, the network predicts the velocity), `target`, and the
    default objective.

    Args:
        network: `keras.Model` called with a dict of `x`, `t`[, `r`]
            [, `condition`], returning a tensor of x's shape.
        interpolant: an `Interpolant`, its name or config.
        train_time_dist_type: "uniform", "lognormal", "logitnormal", "beta"
            or a `TimeLaw`.
        t_mu: location of the (log-, logit-) normal law.
        t_sigma: scale of the (log-, logit-) normal law.
        n_mu: mean of the noise.
        n_sigma: standard deviation of the noise.
        x_sigma: standard deviation of the data, for preconditioning.
        t_shift_base: number of elements of one example above which times
            shift towards the noise, by k = sqrt(elements / base); None for
            no shift.
        objective: name, `objectives.Objective` or function of your own.
        objective_args: dict of the objective's own options.
        norm: "l2", "l1", "smooth_l1" or "pseudo_huber", of the residual.
        cond_drop_ratio: share of labels replaced by the network's
            `null_label` in training; without a null label none are.
        null_label: the label that stands for none, where the network does
            not have a `null_label` of its own.
        stable_target: whether targets are averaged over the examples of the
            batch that x_t may come from: same mean, less noise, for data of
            few dimensions (see `endpoints`).
        ema: None, a decay, an `EMA`, or a list of these.
        max_skipped_steps: how many steps in a row may be non-finite.
        seed: int or None, the seed of times, noise and label dropping.
        name: model name.

    Attributes:
        latents_of: None, or the `datasets.describe_autoencoder` of the
            autoencoder on whose latents the model works. The first `fit` on
            `datasets.Latents` sets it; latents of another are an error. The
            autoencoder itself would be trained and saved with the model.
    """

    latents_of = None
    # Whether the network may take the scale of guidance as an input.
    takes_guidance = False

    def __init__(
        self,
        network,
        interpolant,
        train_time_dist_type="uniform",
        t_mu=0.0,
        t_sigma=1.0,
        n_mu=0.0,
        n_sigma=1.0,
        x_sigma=0.5,
        t_shift_base=4096,
        *,
        objective="flow",
        objective_args=None,
        norm="l2",
        cond_drop_ratio=0.1,
        null_label=None,
        stable_target=False,
        ema=0.9999,
        max_skipped_steps=20,
        seed=None,
        name=None,
    ):
        super().__init__(name=name)
        self.autocast = False
        # Keras's Trainer sets `self.loss = None`, which hides the method.
        self.__dict__.pop("loss", None)
        self.objective = objectives.get(objective)
        self.objective_args = self.objective.options(objective_args or {})
        checks.check_network(
            network,
            self.objective.needs_r,
            f"objective '{self.objective.name}'",
            self.takes_guidance,
        )
        for argument, value in (("n_sigma", n_sigma), ("x_sigma", x_sigma)):
            if not value > 0:
                raise ValueError(
                    f"`{argument}` must be positive. Received: {value!r}."
                )
        if not 0.0 <= cond_drop_ratio <= 1.0:
            raise ValueError(
                "`cond_drop_ratio` must lie between 0 and 1. "
                f"Received: {cond_drop_ratio!r}."
            )
        if stable_target and not self.objective.stable:
            raise ValueError(
                "`stable_target=True` averages the targets of objectives that "
                "regress a velocity or the data at x_t; "
                f"'{self.objective.name}' does not."
            )
        self.stable_target = stable_target
        self.network = network
        self.interpolant = get_interpolant(interpolant)
        self.time_law = get_time_law(train_time_dist_type, t_mu, t_sigma)
        self.t_mu, self.t_sigma = t_mu, t_sigma
        self.n_mu, self.n_sigma, self.x_sigma = n_mu, n_sigma, x_sigma
        self.t_shift_base = t_shift_base
        self.cond_drop_ratio = cond_drop_ratio
        self.norm_name = norm
        self._residual_norm = norms.get(norm)
        # The mask of the batch whose loss is being computed, and its use.
        self._mask = {"now": None, "used": False}
        self.null_label = getattr(network, "null_label", null_label)
        # What is called in the trained network's place (see `FeatureTap`).
        self.tap = None
        self.sample_shape = sample_shape(network)
        self._takes_r = (
            self.objective.needs_r
            if input_names(network) is None
            else "r" in input_names(network)
        )
        self._init_training(self.objective.terms, ema, max_skipped_steps, seed)
        self._init_generation()
        self.built = True

    # Preconditioning: net = c_skip x_t + c_out network(c_in x_t, c_noise(t)).

    def c_in(self, t):
        """Input scale, (B,)."""
        return ops.ones_like(t)

    def c_out(self, t):
        """Output scale, (B,)."""
        return ops.ones_like(t)

    def c_skip(self, t):
        """Scale of the skip connection, (B,)."""
        return ops.zeros_like(t)

    def c_noise(self, t):
        """The time as the network sees it, (B,)."""
        return t

    def net(self, x_t, t, r=None, *, condition=None, network=None,
            training=False):  # fmt: skip
        """The preconditioned network.

        Args:
            x_t: (B, ...).
            t: (B,), the time of x_t.
            r: (B,), the time to go to; None means r = t.
            condition: tensor or structure, or None.
            network: the network to call, by default the trained one.
            training: whether dropout is on.

        Returns:
            What the network predicts (see `prediction`), (B, ...), in
            float32 under every dtype policy.
        """
        output = self.raw(
            x_t, t, r, condition=condition, network=network, training=training
        )
        bcast = kf_ops.bcast_right
        return bcast(self.c_skip(t), x_t) * x_t + (
            bcast(self.c_out(t), x_t) * output
        )

    def raw(self, x_t, t, r=None, *, condition=None, guidance=None,
            network=None, training=False):  # fmt: skip
        """The network's own output; the only place that calls it."""
        network = self.network if network is None else network
        checks.check_data(x_t, self.sample_shape, "x_t")
        checks.check_time(t, x_t, "t")
        checks.check_condition(condition, network, x_t.shape[0])
        bcast = kf_ops.bcast_right
        inputs = {"x": bcast(self.c_in(t), x_t) * x_t, "t": self.c_noise(t)}
        if self._takes_r:
            r = t if r is None else r
            checks.check_time(r, x_t, "r")
            inputs["r"] = self.c_noise(r)
        if condition is not None:
            inputs["condition"] = keras.tree.map_structure(
                ops.convert_to_tensor, condition
            )
        if guidance is not None:
            inputs["guidance"] = guidance
        if self.tap is not None and network is self.network:
            output = self.tap(inputs, training=training)
        else:
            output = network(inputs, training=training)
        return ops.cast(output, kf_ops.float_dtype())

    @property
    def prediction(self):
        """What `net` returns: "velocity" or "data"."""
        return self.objective.prediction

    # Predictions.

    def pred(self, x_t, t, r=None, *, condition=None, network=None,
             training=False):  # fmt: skip
        """Velocity dx_t/dt, in the interpolant's own time; u(x_t, t, r).

        Args and shapes as in `net`. For a flow map the average velocity
        from t to r; with r=None (r = t) the velocity itself.
        """
        output = self.net(
            x_t, t, r, condition=condition, network=network, training=training
        )
        if self.prediction == "data":
            return self.interpolant.velocity_from_data(x_t, output, t)
        return output

    def denoise(self, x_t, t, *, condition=None, network=None):
        """Predicted data E[x | x_t], (B, ...)."""
        if self.prediction == "data":
            return self.net(x_t, t, condition=condition, network=network)
        v = self.pred(x_t, t, condition=condition, network=network)
        return self.interpolant.data_from_velocity(x_t, v, t)

    def jump(self, x_t, t, r, *, condition=None, network=None):
        """X_{t->r}(x_t) = x_t + (r - t) u(x_t, t, r), (B, ...)."""
        checks.check_order(self.interpolant, t, r)
        u = self.pred(x_t, t, r, condition=condition, network=network)
        return x_t + kf_ops.bcast_right(r - t, x_t) * u

    def pred_and_score(self, x_t, t, *, condition=None, network=None):
        """(velocity, score) from one network call."""
        v = self.pred(x_t, t, condition=condition, network=network)
        return v, self.interpolant.score_from_velocity(
            x_t, v, t, self.n_mu, self.n_sigma
        )

    def score(self, x_t, t, *, condition=None, network=None):
        """Score grad log p_t(x_t), through the interpolant, (B, ...)."""
        return self.pred_and_score(
            x_t, t, condition=condition, network=network
        )[1]

    # Training.

    def target(self, x, n, t):
        """What the network regresses: dx_t/dt, (B, ...)."""
        return self.interpolant.velocity(x, n, t)

    def loss_weight(self, t):
        """Weight of the loss, (B,)."""
        return ops.ones_like(t)

    def sample_t(self, shape):
        """Times from the training law, without time shift."""
        return self.time_law(self.interpolant, shape, self._rng["now"])

    def sample_n(self, shape):
        """Noise n ~ N(n_mu, n_sigma^2) of the given shape."""
        return keras.random.normal(
            shape,
            self.n_mu,
            self.n_sigma,
            dtype=kf_ops.float_dtype(),
            seed=self._rng["now"],
        )

    def sample_uniform(self, shape):
        """Uniform on [0, 1)."""
        return keras.random.uniform(
            shape, dtype=kf_ops.float_dtype(), seed=self._rng["now"]
        )

    def sample_x_t(self, x, n, t):
        """x_t = alpha(t) x + sigma(t) n."""
        return self.interpolant.interpolate(x, n, t)

    def endpoints(self, x, n, t, condition=None):
        """The (x, n) that targets at x_t are made from, each (B, ...).

        What x_t was made from; with `stable_target` their mean given x_t, see
        `objectives.stable_endpoints`: for noise, x_t and a target, linear in
        (x, n), as this class has them.
        """
        if not self.stable_target:
            return x, n
        if self._mask["now"] is not None:
            raise ValueError(
                "`stable_target=True` compares whole examples, and would mix "
                "what the batch's 'mask' leaves out into the targets. Leave "
                "one of them out."
            )
        return objectives.stable_endpoints(self, x, n, t, condition)

    def draw_t(self, x):
        """Shifted training times for the batch x, (B,)."""
        return self._shifted(self.sample_t(ops.shape(x)[:1]), x)

    def _shifted(self, t, x):
        elements = 1
        for size in x.shape[1:]:
            elements *= size
        if self.t_shift_base is None or elements <= self.t_shift_base:
            return t
        return self.interpolant.shift(t, (elements / self.t_shift_base) ** 0.5)

    def norm(self, residual, part=None):
        """Norm of a residual, mean over what the batch's mask keeps: (B,).

        Scaled so that its batch mean is the mean over the kept elements.

        Args:
            residual: (B, ...), or of some rows of the batch.
            part: None, or the function that takes these rows of the batch.
        """
        mask = self._mask["now"]
        if mask is None:
            return self._residual_norm(residual)
        self._mask["used"] = True
        mask = mask if part is None else part(mask)
        ones = (1,) * (len(residual.shape) - len(mask.shape))
        kept = ops.reshape(mask, (*ops.shape(mask), *ones)) * residual
        share = ops.maximum(ops.mean(mask), keras.config.epsilon())
        return self._residual_norm(kept) / share

    def drop_condition(self, condition):
        """Replace a share of the integer labels by the null label."""
        if (
            condition is None
            or self.null_label is None
            or self.cond_drop_ratio == 0
        ):
            return condition
        drop = self.sample_uniform(ops.shape(condition)) < self.cond_drop_ratio
        return ops.where(
            drop,
            ops.full_like(condition, self.null_label),
            condition,
        )

    def loss(self, x, condition=None, extras=None, *, training=True):
        """Per-example loss terms, "loss" first.

        Args:
            x: clean data, (B, ...).
            condition: tensor or structure, or None.
            extras: None or {"mask": (B, T)}, 1 where x (B, T, ...) counts
                in the loss and 0 where it is padding.
            training: whether labels are dropped and dropout is on.

        Returns:
            Dict of tensors of shape (B,).
        """
        checks.check_data(x, self.sample_shape)
        checks.check_condition(condition, self.network, x.shape[0])
        mask = checks.check_extras(extras, x, self)
        x = ops.cast(x, kf_ops.float_dtype())
        if training:
            condition = self.drop_condition(condition)
        self._mask["now"], self._mask["used"] = mask, False
        try:
            terms = self.objective.fn(
                self, x, condition, training, **self.objective_args
            )
        finally:
            self._mask["now"] = None
        if mask is not None and not self._mask["used"]:
            raise ValueError(
                f"Objective '{self.objective.name}' does not use the batch's "
                "'mask' and would train on the padding. Leave the mask out, "
                "or take the residual's `model.norm` in the objective."
            )
        return terms

    def unpack(self, data):
        """(x, condition, extras) of a batch."""
        if not isinstance(data, (tuple, list)):
            data = (data,)
        if not 1 <= len(data) <= 3:
            raise ValueError(
                "A batch must be x, (x, condition) or (x, condition, "
                f"extras). Received {len(data)} elements."
            )
        return (*data, None, None)[:3]

    def call(self, x, condition=None, training=False):
        """The loss: an interface called on data is its `loss`."""
        return self.loss(x, condition, training=training)

    def predict(self, *args, **kwargs):
        """Not defined: use `generate`, `pred` or `score`."""
        raise NotImplementedError(
            "`predict` has no meaning for a generative model: use "
            "`generate(...)` to sample, `pred(x_t, t)` for the velocity or "
            "`score(x_t, t)`."
        )

    def fit(self, x=None, y=None, **kwargs):
        """`CommonSteps.fit`, in the dataset's own order if it has one."""
        if getattr(x, "ordered", False):
            # An order to resume in, which Keras would shuffle unseeded.
            kwargs.setdefault("shuffle", False)
        return super().fit(x, y, **kwargs)

    def _check_fit(self, x, y):
        if "loss" in self.__dict__:
            raise ValueError(
                "An interface has its own loss: compile it with an "
                "optimizer only, not with `loss` or `metrics`."
            )
        checks.check_host_array(x, self.sample_shape, "x")
        if hasattr(x, "shape") and input_names(self.network) is not None:
            checks.check_condition(y, self.network, x.shape[0])
        checks.check_manifest(x, self)
        checks.check_first_batch(x, y, self)

    @property
    def default_num_steps(self):
        """Number of sampling steps where `generate` is given none."""
        return self.objective.num_steps

    @property
    def default_sampler(self):
        """The sampler where `generate` is given none."""
        return samplers.get(self.objective.sampler)

    mean_flat = staticmethod(kf_ops.mean_flat)
    bcast_right = staticmethod(kf_ops.bcast_right)

    @staticmethod
    def t_shift(t, shift):
        """t -> shift t / (1 + (shift - 1) t), for t a noise fraction."""
        return shift * t / (1.0 + (shift - 1.0) * t)

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            "network": serialize(self.network),
            "interpolant": serialize(self.interpolant),
            "train_time_dist_type": serialize(self.time_law),
            "t_mu": self.t_mu,
            "t_sigma": self.t_sigma,
            "n_mu": self.n_mu,
            "n_sigma": self.n_sigma,
            "x_sigma": self.x_sigma,
            "t_shift_base": self.t_shift_base,
            "objective": self.objective.name
            if self.objective.name in objectives.names()
            else serialize(self.objective),
            "objective_args": dict(self.objective_args),
            "norm": self.norm_name,
            "cond_drop_ratio": self.cond_drop_ratio,
            "null_label": self.null_label,
            "stable_target": self.stable_target,
            "ema": [serialize(e) for e in self.emas],
            "max_skipped_steps": self.max_skipped_steps,
            "seed": self.seed,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = {
            key: keras.saving.deserialize_keras_object(
                value, custom_objects=custom_objects
            )
            if isinstance(value, dict) and "class_name" in value
            else value
            for key, value in config.items()
        }
        return cls(**config)
