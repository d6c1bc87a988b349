"""The Interface: a network on a path.

It samples times and noise, predicts velocity and score through a
parametrization, trains by `fit` and samples by `generate`. The network is
called in one method, `net`.
"""

import keras
from keras import ops

from keras_flows import objectives
from keras_flows import parametrization
from keras_flows.interfaces import types
from keras_flows.interfaces.arguments import checked_arguments
from keras_flows.interfaces.arguments import deserialized
from keras_flows.interfaces.arguments import with_arguments
from keras_flows.interfaces.generator import Generator
from keras_flows.interpolants import get as get_interpolant
from keras_flows.interpolants import get_time_law
from keras_flows.networks import contract
from keras_flows.networks import input_names
from keras_flows.networks import null_labels
from keras_flows.networks import serialize_network
from keras_flows.networks.keys import as_tensors
from keras_flows.networks.labels import host_condition
from keras_flows.objectives import norms
from keras_flows.ops import bcast_right
from keras_flows.ops import example_size
from keras_flows.ops import float_dtype
from keras_flows.ops import note_losses
from keras_flows.ops import on_jump
from keras_flows.ops import on_state
from keras_flows.presets import from_preset
from keras_flows.training import data_checks


class Interface(Generator):
    """Base class of all diffusion and flow-matching interfaces.

    Subclasses give a parametrization (default: that of the objective, without
    preconditioning) and the default objective.

    Args:
        network: `keras.Model` called with a dict of `x`, `t`[, `r`]
            [, `condition`], returning a tensor of x's shape.
        interpolant: an `Interpolant`, its name or config.
        train_time_dist_type: "uniform", "lognormal", "logitnormal", "beta"
            or a `TimeLaw`.
        t_mu, t_sigma: location and scale of the (log-, logit-) normal law.
        n_mu, n_sigma: mean and standard deviation of the noise.
        x_sigma: standard deviation of the data, for preconditioning.
        t_shift_base: number of elements of one example above which times
            shift towards the noise, by k = sqrt(elements / base); None for
            no shift.
        objective: name, `objectives.Objective` or function of your own.
        norm: "l2", "l1", "smooth_l1" or "pseudo_huber", of the residual.
        cond_drop_ratio: share of examples whose condition is replaced by the
            `null_label` in training; without a null label none is.
        null_label: what stands for no condition, where the network has no
            `null_label` of its own: a number, or a dict of one for each part.
        stable_target: whether targets are averaged over the examples of the
            batch that x_t may come from: same mean, less noise, for data of
            few dimensions (see `endpoints`).
        ema: None, a decay, an `EMA`, or a list of these.
        max_skipped_steps: how many steps in a row may be non-finite.
        seed: int or None, the seed of times, noise and label dropping.
        name: model name.

    Attributes:
        parametrization: what the network predicts, and its scales.
        provides: what the model predicts: "velocity", "score", "data" (the
            mean E[x | x_t]), "map", "action"; samplers ask for it.
        latents_of: None, or the `datasets.describe_autoencoder` of the latents
            that it works on. The first `fit` on `datasets.Latents` sets it.
    """

    latents_of = None
    # Whether the network may take the scale of guidance as an input.
    takes_guidance = False

    @checked_arguments
    def __init__(
        self,
        network: types.Model,
        interpolant: types.Path,
        train_time_dist_type: types.TimeLaw = "uniform",
        t_mu: float = 0.0,
        t_sigma: float = 1.0,
        n_mu: float = 0.0,
        n_sigma: float = 1.0,
        x_sigma: float = 0.5,
        t_shift_base: float | None = 4096,
        *,
        objective: types.Objective = "flow",
        norm: str = "l2",
        cond_drop_ratio: float = 0.1,
        null_label: types.NullLabel | None = None,
        stable_target: bool = False,
        ema: types.Averages | None = 0.9999,
        max_skipped_steps: int = 20,
        seed: int | None = None,
        name: str | None = None,
    ) -> None:
        objective = objectives.get(objective)
        contract.check_network(
            network,
            objective.needs_r,
            f"objective '{objective.name}'",
            self.takes_guidance,
            self.output_parts,
        )
        objective.check_stable(stable_target)
        super().__init__(
            network, terms=objective.terms, ema=ema, seed=seed, name=name,
            max_skipped_steps=max_skipped_steps,
        )  # fmt: skip
        self.objective = objective
        self.interpolant = get_interpolant(interpolant)
        self.time_law = get_time_law(train_time_dist_type, t_mu, t_sigma)
        self.t_mu, self.t_sigma = t_mu, t_sigma
        self.n_mu, self.n_sigma, self.x_sigma = n_mu, n_sigma, x_sigma
        self.t_shift_base = t_shift_base
        self.cond_drop_ratio = cond_drop_ratio
        self.norm_name = norm
        self._residual_norm = norms.get(norm)
        self.stable_target = stable_target
        self.null_label = null_labels.null_label_of(network, null_label)
        # Notes features of layers on the way, see `networks.FeatureTap`.
        self.tap = None
        names = input_names(network)
        self.takes_r = objective.needs_r if names is None else "r" in names
        self.parametrization = self.make_parametrization()
        objective.check_path(self.interpolant)
        objective.check(self)
        self.built = True

    # Preconditioning: net = c_skip x_t + c_out network(c_in x_t, c_noise(t)).

    def make_parametrization(self):
        """What the network predicts, a `Parametrization` on the path."""
        kind = parametrization.BY_NAME[self.objective.predicts]
        return kind(self.interpolant)

    def c_in(self, t):
        """Input scale, (B,)."""
        return self.parametrization.c_in(t)

    def c_out(self, t):
        """Output scale, (B,)."""
        return self.parametrization.c_out(t)

    def c_skip(self, t):
        """Scale of the skip connection, (B,)."""
        return self.parametrization.c_skip(t)

    def c_noise(self, t):
        """The time as the network sees it, (B,)."""
        return self.parametrization.c_noise(t)

    def inputs(self, x_t, t, r=None, condition=None, network=None):
        """The dict that the network sees; arguments as in `net`."""
        network = self.network if network is None else network
        condition = host_condition(condition, network, x_t.shape[0])
        contract.check_call(x_t, t, condition, network)
        inputs = {
            "x": bcast_right(self.c_in(t), x_t) * x_t,
            "t": self.c_noise(t),
        }
        if self.takes_r:
            r = t if r is None else ops.convert_to_tensor(r)
            contract.check_time(r, x_t, "r")
            inputs["r"] = self.c_noise(r)
        if condition is not None:
            specs = contract.input_specs(network)
            inputs["condition"] = as_tensors(condition, specs)
        return inputs

    def net(self, x_t, t, r=None, *, condition=None, network=None,
            training=False):  # fmt: skip
        """The preconditioned network; the only place that calls it.

        Args:
            x_t: (B, ...), a tensor or an array.
            t, r: (B,) or a number, the times of x_t and to go to (or None).
            condition: tensor or structure, or None.
            network: the network to call, by default the trained one.
            training: whether dropout is on.

        Returns:
            What the network predicts (see `parametrization`), (B, ...), in
            float32 under every dtype policy.
        """
        x_t, t, r = on_state(x_t, t, r)
        inputs = self.inputs(x_t, t, r, condition, network)
        network = self.network if network is None else network
        called = (network is self.network and self.tap) or network
        output = called(inputs, training=training)
        contract.check_output(output, x_t, self.output_parts, network)
        note_losses(network, x_t)
        return self.scale_output(x_t, t, output)

    def scale_output(self, x_t, t, output):
        """c_skip x_t + c_out output, in float32."""
        output = ops.cast(output, float_dtype())
        return bcast_right(self.c_skip(t), x_t) * x_t + (
            bcast_right(self.c_out(t), x_t) * output
        )

    # Predictions.

    @property
    def provides(self):
        """See the class's attributes."""
        return self.objective.provides(self.parametrization.posterior)

    def pred(self, x_t, t, r=None, *, condition=None, network=None,
             training=False):  # fmt: skip
        """Velocity dx_t/dt, in the interpolant's own time; u(x_t, t, r).

        Args and shapes as in `net`. For a flow map the average velocity
        from t to r; with r=None (r = t) the velocity itself.

        Raises:
            ValueError: if the model has no velocity; or no map, with `r`.
        """
        self.require("velocity" if r is None else "map", "pred")
        x_t, t, r = on_state(x_t, t, r)
        output = self.net(
            x_t, t, r, condition=condition, network=network, training=training
        )
        return self.parametrization.velocity(x_t, output, t)

    def denoise(self, x_t, t, *, condition=None, network=None):
        """Predicted data E[x | x_t], (B, ...).

        Of a consistency model the end of the flow from x_t, and of a policy
        that predicts actions the action.
        """
        inputs = {"condition": condition, "network": network}
        x_t, t, _ = on_state(x_t, t)
        if type(self).pred is not Interface.pred:
            # A velocity of one's own says what the data is.
            v = self.pred(x_t, t, **inputs)
            return self.interpolant.data_from_velocity(x_t, v, t)
        return self.parametrization.data(x_t, self.net(x_t, t, **inputs), t)

    def jump(self, x_t, t, r, *, condition=None, network=None):
        """X_{t->r}(x_t) = x_t + (r - t) u(x_t, t, r), (B, ...).

        Raises:
            ValueError: if the model has no map, or r lies before t.
        """
        inputs = {"condition": condition, "network": network}
        asked, (x_t, t, r) = (t, r), on_jump(x_t, t, r)
        if "map" not in self.provides:
            self.require_end(asked[1])
            return self.end(x_t, t, **inputs)
        contract.check_order(self.interpolant, *asked)
        u = self.pred(x_t, t, r, **inputs)
        return x_t + bcast_right(r - t, x_t) * u

    def end(self, x_t, t, *, condition=None, network=None):
        """Where the flow from x_t ends, at `t_last`, (B, ...)."""
        self.require("end", "end")
        inputs = {"condition": condition, "network": network}
        x_t, t, _ = on_state(x_t, t)
        if "map" not in self.provides:
            return self.denoise(x_t, t, **inputs)
        last = ops.full_like(t, self.interpolant.t_last)
        return self.jump(x_t, t, last, **inputs)

    def pred_and_score(self, x_t, t, *, condition=None, network=None):
        """(velocity, score) from one network call."""
        self.require("score", "score")
        x_t, t, _ = on_state(x_t, t)
        v = self.pred(x_t, t, condition=condition, network=network)
        return v, self.interpolant.score_from_velocity(
            x_t, v, t, self.n_mu, self.n_sigma
        )

    # Training.

    def target(self, x, n, t):
        """What `net` regresses, (B, ...)."""
        return self.parametrization.target(x, n, t)

    def loss_weight(self, t):
        """Weight of the loss, (B,)."""
        return self.parametrization.weight(t)

    def sample_t(self, shape, seed=None):
        """Times from the training law, unshifted; `seed` as in `random`."""
        seed = self.seed_generator if seed is None else seed
        return self.time_law(self.interpolant, shape, seed)

    def sample_n(self, shape):
        """Noise n ~ N(n_mu, n_sigma^2) of the given shape."""
        return keras.random.normal(
            shape, self.n_mu, self.n_sigma, float_dtype(), self.seed_generator
        )

    def sample_uniform(self, shape):
        """Uniform on [0, 1)."""
        return keras.random.uniform(
            shape, dtype=float_dtype(), seed=self.seed_generator
        )

    def sample_x_t(self, x, n, t):
        """x_t = alpha(t) x + sigma(t) n."""
        return self.interpolant.interpolate(x, n, t)

    def endpoints(self, x, n, t, condition=None):
        """The (x, n) that targets at x_t are made from, each (B, ...).

        What x_t was made from; with `stable_target` their mean given x_t, see
        `objectives.stable_endpoints`.
        """
        if not self.stable_target:
            return x, n
        return objectives.stable_endpoints(self, x, n, t, condition)

    def draw_t(self, x):
        """Shifted training times for the batch x, (B,)."""
        return self.shifted(self.sample_t(ops.shape(x)[:1]), x)

    def shifted(self, t, x):
        """Times shifted by the size of an example of x."""
        k = self.shift_of(x)
        known = isinstance(k, float) and k == 1.0
        return t if known else self.interpolant.shift(t, k)

    def shift_of(self, x):
        """k = max(1, sqrt(elements of an example of x / t_shift_base))."""
        if self.t_shift_base is None:
            return 1.0
        ratio = example_size(x) / self.t_shift_base
        known = isinstance(ratio, float)
        return max(1.0, ratio**0.5) if known else ops.maximum(ratio, 1.0) ** 0.5

    def drop_condition(self, condition):
        """The null label in a share of the examples, all their parts."""
        return null_labels.dropped(
            condition, self.null_label, self.cond_drop_ratio,
            self.sample_uniform,
        )  # fmt: skip

    def loss(self, x, condition=None, extras=None, *, training=True):
        """Per-example loss terms, "loss" first, each (B,).

        Args:
            x: clean data, (B, ...).
            condition: tensor or structure, or None.
            extras: None or {"mask": (B, T)}, 1 where x (B, T, ...) counts
                in the loss and 0 where it is padding.
            training: whether labels are dropped and dropout is on.
        """
        condition, mask = data_checks.check_loss(
            self, x, condition, extras, training
        )
        return self.batch_loss(
            ops.cast(x, float_dtype()), condition, mask, training
        )

    def batch_loss(self, x, condition, mask, training):
        """The objective's terms for a checked batch."""
        if training:
            condition = self.drop_condition(condition)
        batch = objectives.Batch(
            x, condition, training, mask, residual_norm=self._residual_norm
        )
        return batch.terms(self.objective, self)

    def call(self, x, condition=None, training=False):
        """The loss: an interface called on data is its `loss`."""
        return self.loss(x, condition, training=training)

    def check_fit(self, x, y):
        data_checks.check_fit(x, y, self)

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        config = {
            "network": serialize_network(self.network),
            "interpolant": serialize(self.interpolant),
            "train_time_dist_type": serialize(self.time_law),
            "objective": objectives.serialize(self.objective),
            "norm": self.norm_name,
            "ema": [serialize(e) for e in self.emas],
        }
        return with_arguments(config, self, Interface)

    @classmethod
    def from_preset(cls, preset, load_weights=True, dtype=None, **arguments):
        """As `Trainable.from_preset`; `Interface` loads all that samples."""
        kind = Generator if cls is Interface else cls
        return from_preset(preset, load_weights, dtype, kind, **arguments)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**deserialized(config, custom_objects))
