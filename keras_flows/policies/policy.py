"""A policy: an interface whose data is a chunk of actions.

    chunk = inverse(interface(noise | encoder(normalised observations)))

The encoder runs once per chunk, outside JVPs and sampling steps, and trains
with the network. Source: arXiv 2512.01809, 2303.04137.
"""

from __future__ import annotations

import typing

import keras
import numpy as np
from keras import ops
from keras import tree

from keras_flows.datasets.robots import poses
from keras_flows.export import Served
from keras_flows.export import export
from keras_flows.interfaces import Holder
from keras_flows.networks import contract
from keras_flows.networks import normalizers
from keras_flows.ops import arguments
from keras_flows.ops import float_dtype
from keras_flows.ops import given
from keras_flows.ops import note_losses
from keras_flows.ops import register
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked
from keras_flows.policies import arguments as arguments_of
from keras_flows.policies import endpoints
from keras_flows.policies import observations
from keras_flows.policies.controller import Controller
from keras_flows.training import EMA

if typing.TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Mapping
    from typing import Any

    from keras_flows.datasets.robots.actions import ActionRepresentation
    from keras_flows.interfaces.interface import Interface
    from keras_flows.networks.normalizers import Normalizer
    from keras_flows.ops.types import Array
    from keras_flows.ops.types import ArrayLike
    from keras_flows.ops.types import PathLike
    from keras_flows.ops.types import Tree
    from keras_flows.samplers.base import Sampler


@register
class Policy(Holder):
    """Trains by `fit(Windows(...))`; acts by `predict_chunk`.

    Args:
        interface: the interface of normalised chunks (B, horizon, action_dim)
            under the encoder's output as condition, such as
            `kf.FlowMapInterface(kf.networks.ChunkMLP(...), "mip")`.
        encoder: `keras.Model` from observation histories, an array
            (B, obs_steps, ...) or a dict of such arrays, to the network's
            condition; by default the history itself is the condition.
        observation_normalizer: of every observation: "min_max", "mean_std",
            "quantile", "identity" or a `networks.normalizers.Normalizer`;
            or a dict of these for a dict of observations.
        action_normalizer: of the actions.
        act_steps: actions of a chunk that are executed before the next.
        representation: what the network's actions are relative to:
            "absolute", or a `datasets.robots.ActionRepresentation` such as
            `action_representation("relative", arms=1)`; then train on
            `Windows(..., transform=policy.encode_actions)`.
        pose: function of an observation (B, ...) to the pose that
            `representation` needs, registered with Keras to be saved; by
            default `datasets.robots.poses`, which knows robosuite's names.
        action_low, action_high: bounds of an action, numbers or one for each
            dimension; a chunk is clipped to them and `clipped_actions` counts
            how often. None for no bound.
        name: model name.

    Attributes:
        horizon, action_dim, obs_steps: shapes of a chunk and of a history.
        clipped_actions, predicted_actions: how many numbers `predict_chunk`
            clipped, and predicted.

    Raises:
        ValueError: if shapes do not fit.
    """

    @checked(act_steps=SIZE, pose=given.of(given.function, none=True))
    def __init__(
        self,
        interface: Interface,
        encoder: keras.Model | None = None,
        *,
        observation_normalizer: str
        | Normalizer
        | Mapping[str, str | Normalizer] = "min_max",
        action_normalizer: str | Normalizer = "min_max",
        act_steps: int = 8,
        representation: str | ActionRepresentation = "absolute",
        pose: Callable[..., Any] | None = None,
        action_low: ArrayLike | None = None,
        action_high: ArrayLike | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(interface, name=name)
        self.horizon, self.action_dim, condition = observations.chunk_inputs(
            interface
        )
        self.encoder = observations.encoder_of(encoder, condition)
        self._spec = {"observation": self.encoder.input}
        self.obs_steps = observations.history_length(self.encoder.input)
        # Of one observation, without batch and history.
        first = tree.flatten(self.encoder.input)[0]
        self.observation_rank = len(first.shape) - 2
        if not 1 <= act_steps <= self.horizon - self.obs_steps + 1:
            raise ValueError(
                "`act_steps` must be at least 1 and at most horizon - "
                f"obs_steps + 1 = {self.horizon - self.obs_steps + 1}. "
                f"Received: {act_steps!r}."
            )
        self.act_steps = act_steps
        self.observation_normalizers = observations.make_normalizers(
            observation_normalizer, self.encoder.input
        )
        self.action_normalizer = normalizers.get(
            action_normalizer, "action_normalizer"
        )
        self.action_normalizer.build((None, self.action_dim))
        self.representation = arguments_of.represented(representation)
        dim = self.representation.action_dim
        if self.representation.needs_pose and dim != self.action_dim:
            raise ValueError(
                f"`representation` is of actions of {dim} numbers; those of "
                f"`interface` have {self.action_dim}."
            )
        self.pose = poses if pose is None else pose
        self.action_low = arguments_of.bound(
            action_low, self.action_dim, "action_low"
        )
        self.action_high = arguments_of.bound(
            action_high, self.action_dim, "action_high"
        )
        self.adapted = self.counter("adapted")
        self.encoder_emas = []
        if self.encoder.trainable_variables:
            self.encoder_emas = [
                EMA.get(ema.get_config() | {"name": f"encoder_{ema.name}"})
                for ema in interface.emas
            ]
        self.average(self.encoder_emas, self.encoder, "encoder_ema")
        self.clipped_actions = self.predicted_actions = 0
        self._control = {"now": None}
        self.built = True

    # Construction.

    @property
    def observation_spec(self):
        """Shapes of an observation history, without the batch."""
        return tree.map_structure(
            lambda leaf: tuple(leaf.shape[1:]), self._spec["observation"]
        )

    def adapt(self, windows: Any) -> None:
        """Fit the normalisers to demonstrations.

        Args:
            windows: `datasets.Windows`, or a list of episodes.
        """
        actions, by_key = observations.demonstrated(
            windows, self._spec["observation"]
        )
        self.action_normalizer.adapt(actions)
        for key, normalizer in self.observation_normalizers.items():
            normalizer.adapt(by_key[key])
        self.adapted.assign(1)

    # Training.

    def encode_actions(self, actions, observations):
        """Chunks as the network learns them: the `transform` of `Windows`.

        Args:
            actions: (B, horizon, action_dim), absolute.
            observations: their histories.
        """
        pose = self._first_pose(observations)
        return self.representation.encode(actions, pose)

    def _first_pose(self, observations):
        """The pose at the first step of chunks, where one is needed."""
        if not self.representation.needs_pose:
            return None
        return self.pose(tree.map_structure(lambda a: a[:, 0], observations))

    def encode(self, observation, encoder=None, training=False):
        """The network's condition from an observation history."""
        self.check_observation(observation)
        encoder = self.encoder if encoder is None else encoder
        observation = observations.normalize(
            self.observation_normalizers, observation
        )
        condition = encoder(observation, training=training)
        note_losses(encoder, tree.flatten(observation)[0])
        return condition

    def loss(self, x, condition=None, extras=None, *, training=True):
        """The interface's terms on normalised chunks, each (B,).

        Args:
            x: actions, (B, horizon, action_dim).
            condition: observation histories.
            extras: None or {"mask": (B, horizon)}.
            training: whether dropout and random crops are on.
        """
        contract.check_data(x, self.data_shape, "actions")
        self.check_observation(condition, x.shape[0])
        return self.interface.loss(
            self.action_normalizer(ops.cast(x, float_dtype())),
            self.encode(condition, training=training),
            extras,
            training=training,
        )

    def check_observation(self, observation, batch=None):
        """Raise where keys or shapes are not those of `observation_spec`."""
        observations.check_observation(
            observation, self._spec["observation"], batch
        )

    def check_fit(self, x, y):
        observations.check_fit(self, x, y)

    def check_first(self, batch):
        """Nothing: actions are in their own units."""

    # Acting.

    def predict_chunk(
        self,
        observation: Tree,
        *,
        num_steps: int | None = None,
        start: str | None = None,
        seed: int | None = None,
        noise: ArrayLike | None = None,
        sampler: str | Sampler | None = None,
        use_ema: bool = True,
    ) -> Array:
        """Chunks of actions for observation histories.

        Action number obs_steps - 1 is the one for the newest observation.

        Args:
            observation: (B, obs_steps, ...), or a dict of such arrays, in the
                demonstrations' units (images as bytes, or floats of -1 to 1);
                without the batch axis for a single robot.
            num_steps: sampling steps; by default the objective's.
            start: "noise" or "zero", what sampling starts from; by default
                the objective's.
            seed: int, of the noise; None for a fresh one.
            noise: standard normal (B, horizon, action_dim), in its place.
            sampler: the objective's by default; without noise in its steps.
            use_ema: whether to use the first average of the weights.

        Returns:
            NumPy array (B, horizon, action_dim), or without the batch axis.
        """
        observation = observations.as_given(observation)
        leaf = tree.flatten(observation)[0]
        single = len(leaf.shape) == self.observation_rank + 1
        if single:
            observation = tree.map_structure(lambda a: a[None], observation)
        self.check_observation(observation)
        batch = tree.flatten(observation)[0].shape[0]
        plan = endpoints.acting(self, num_steps, start, sampler, use_ema)
        inputs = {"observation": observation}
        if plan.start == "noise":
            inputs["noise"] = endpoints.noise_of(self, batch, seed, noise)
        chunk = plan.compiled()(arguments(inputs))
        # A copy: what a backend gives may be read-only.
        chunk = np.array(ops.convert_to_numpy(chunk))
        if self.representation.needs_pose:
            pose = self._first_pose(observation)
            chunk = self.representation.decode(chunk, pose)
        chunk = self._clip(chunk)
        return chunk[0] if single else chunk

    def sampling_layers(self, use_ema=True):
        """Everything whose weights acting reads: encoder, network, ..."""
        encoder = self.encoder
        if use_ema and self.encoder_emas:
            encoder = self.encoder_emas[0].averaged()
        return [
            encoder,
            *self.interface.sampling_layers(use_ema),
            self.action_normalizer,
            *self.observation_normalizers.values(),
        ]

    def _clip(self, chunk):
        """Actions within their bounds, counted."""
        self.predicted_actions += chunk.size
        if self.action_low is None and self.action_high is None:
            return chunk
        clipped = np.clip(chunk, self.action_low, self.action_high)
        self.clipped_actions += int((clipped != chunk).sum())
        return clipped

    # Control, one step at a time.

    def reset(self, **options: Any) -> Any:
        """Begin an episode; options as those of `Controller`."""
        self._control["now"] = Controller(self, **options)

    def select_action(self, observation: Tree) -> Array:
        """The action for the newest observation, (action_dim,) or (B, ...).

        Args:
            observation: as the environment gives it, without a history.

        Raises:
            RuntimeError: before `reset`.
        """
        if self._control["now"] is None:
            raise RuntimeError(
                "`select_action` needs a `reset()` before the first step of "
                "an episode: it keeps the history and a queue of actions."
            )
        return self._control["now"](observation)

    def generate(self, *args, **kwargs):
        """Not defined: use `predict_chunk` or `select_action`."""
        raise NotImplementedError(
            "A policy acts by `predict_chunk(observation)` or "
            "`select_action(observation)`; `policy.interface.generate` samples "
            "normalised chunks from the encoder's output."
        )

    # Saving.

    def export(
        self,
        filepath: PathLike,
        format: str = "tf_saved_model",
        *,
        version: int | None = None,
        num_steps: int | None = None,
        sampler: str | Sampler | None = None,
        start: str | None = None,
        use_ema: bool = True,
        verbose: bool = True,
    ) -> None:
        """Export the policy, normalisers inside, as a SavedModel or as ONNX.

        The endpoint `serve` maps a dict of the observation history,
        "observation" (B, obs_steps, ...) or one such input for each key, and
        standard normal "noise" (B, horizon, action_dim), ignored where
        sampling starts from zero, to clipped chunks, "actions"; `velocity`
        maps a normalised chunk "x", times and the observation to the
        velocity of `Policy.pred`. `Interface.export` tells the rest.

        Args:
            filepath: folder to write; its parent must be writable.
            format: "tf_saved_model" or "onnx".
            version: int, to write filepath/<version>; None for filepath.
            num_steps, sampler, start: see `predict_chunk`; fixed in the file.
            use_ema: whether to export the first average of the weights.
            verbose: whether to print a line.
        """
        served = Served(
            {"num_steps": num_steps, "sampler": sampler, "start": start},
            use_ema=use_ema,
        )
        export(self, served, filepath, format, version, verbose)

    def export_plan(self, served):
        return endpoints.policy_plan(self, served)

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        table = {
            key: serialize(n) for key, n in self.observation_normalizers.items()
        }
        return {
            "interface": serialize(self.interface),
            "encoder": serialize(self.encoder),
            "observation_normalizer": table,
            "action_normalizer": serialize(self.action_normalizer),
            "act_steps": self.act_steps,
            "representation": {
                "identifier": arguments_of.kind(self.representation),
                **self.representation.get_config(),
            },
            "pose": None if self.pose is poses else serialize(self.pose),
            "action_low": arguments_of.plain(self.action_low),
            "action_high": arguments_of.plain(self.action_high),
            "name": self.name,
        }
