"""A trained model carried over to another path."""

from __future__ import annotations

import typing

from keras import ops

from keras_flows import objectives
from keras_flows import samplers
from keras_flows.interfaces.arguments import with_arguments
from keras_flows.interfaces.generator import Generator
from keras_flows.interfaces.holder import Holder
from keras_flows.interpolants import get as get_interpolant
from keras_flows.ops import register

if typing.TYPE_CHECKING:
    from keras_flows.interfaces.interface import Interface
    from keras_flows.interpolants.base import Interpolant


@register
class ReparametrizedInterface(Holder):
    """The same model on another interpolant, exactly.

    Its predictions are `samplers.OnPath` around the held model's. So an EDM
    can teach a student on `TrigFlow`, and a flow be sampled on the path that a
    solver likes. Training (`loss`) is the held model's, on its own path.

    Args:
        interface: the interface to hold.
        interpolant: the new path, an `Interpolant` or its name.
        name: model name.
    """

    def __init__(
        self,
        interface: Interface,
        interpolant: str | Interpolant,
        name: str | None = None,
    ) -> None:
        super().__init__(interface, name=name)
        self._path = get_interpolant(interpolant)
        for argument, path in (
            ("interpolant", self._path), ("interface", interface.interpolant),
        ):  # fmt: skip
            if not path.gaussian:
                raise ValueError(
                    f"`{argument}` must be on a path from Gaussian noise, "
                    "which two coefficients describe. Received: "
                    f"{path}."
                )
        if not {"velocity", "map", "end"} & set(interface.provides) or (
            isinstance(interface, Holder)
        ):
            raise ValueError(
                "`interface` must be an interface trained at all times of its "
                f"path. Received a {type(interface).__name__} with objective "
                f"'{interface.objective.name}', which predicts "
                f"{' and '.join(sorted(interface.provides))}."
            )
        self.built = True

    @property
    def interpolant(self):
        """The new path."""
        return self._path

    def loss(self, x, condition=None, extras=None, *, training=True):
        """The held interface's loss, on its own path."""
        return self.interface.loss(x, condition, extras, training=training)

    def bind(self, network, condition):
        inner = self.interface.bind(network, condition)
        return samplers.OnPath(inner, self._path)

    def sampling_times(self, sampler=None, num_steps=None, start=None):
        # On the path here, not the held model's.
        return Generator.sampling_times(self, sampler, num_steps, start)

    # What a copy of the network learns here (DMD's fake network).

    def net(self, x_t, t, r=None, *, condition=None, network=None):
        """The velocity: what `target` is regressed by here."""
        return self.pred(x_t, t, r, condition=condition, network=network)

    def target(self, x, n, t):
        """dx_t/dt on the new path."""
        return self._path.velocity(x, n, t)

    def loss_weight(self, t):
        """1."""
        return ops.ones_like(t)

    def endpoints(self, x, n, t, condition=None):
        """As `Interface.endpoints`, at x_t of the new path."""
        if not self.interface.stable_target:
            return x, n
        return objectives.stable_endpoints(self, x, n, t, condition)

    def sample_t(self, shape, seed=None):
        """The held model's times, on the new path."""
        old = self.interface.interpolant
        t = self.interface.sample_t(shape, seed)
        ratio = old.sigma(t) / ops.maximum(old.alpha(t), 1e-6)
        return self._path.within(self._path.time_from_ratio(ratio))

    def shifted(self, t, x):
        k = self.interface.shift_of(x)
        known = isinstance(k, float) and k == 1.0
        return t if known else self._path.shift(t, k)

    def get_config(self):
        return with_arguments({}, self, ReparametrizedInterface)
