"""Observation histories: their shapes, normalisers and encoder."""

import keras
import numpy as np
from keras import tree

from keras_flows.datasets.robots import Windows
from keras_flows.datasets.robots import check_episodes
from keras_flows.datasets.robots.windows import as_floats
from keras_flows.datasets.robots.windows import in_parts
from keras_flows.networks import input_specs
from keras_flows.networks import normalizers
from keras_flows.networks.contract import fits
from keras_flows.ops import given
from keras_flows.training import data_checks


def chunk_inputs(interface):
    """(horizon, action_dim, spec of the condition) of an interface's network.

    Raises:
        ValueError: if they are not fixed and known.
    """
    shape = interface.sample_shape
    if shape is None or len(shape) != 2 or None in shape:
        raise ValueError(
            "`interface` must have a network of chunks (batch, horizon, "
            f"action_dim) of fixed sizes. Received shape: {shape}"
            + (
                "; call a subclassed network once on a batch first."
                if shape is None
                else "."
            )
        )
    condition = input_specs(interface.network).get("condition")
    if condition is None:
        raise ValueError(
            "`interface` must have a network with a 'condition', what "
            "the encoder makes of the observations."
        )
    return (*shape, condition)


def encoder_of(encoder, condition):
    """The encoder of a policy; without one the history is the condition.

    Args:
        encoder: `keras.Model` from histories to the network's condition, or
            None.
        condition: `Spec` of the network's input of that name.
    """
    if encoder is None:
        spec = keras.Input(condition.shape, name="observation")
        encoder = keras.Model(spec, spec, name="identity_encoder")
    if not isinstance(encoder, keras.Model) or not encoder.inputs:
        raise ValueError(
            "`encoder` must be a functional keras.Model, or None. Received: "
            f"{type(encoder).__name__}."
        )
    if not fits(tuple(encoder.output.shape[1:]), condition.shape):
        raise ValueError(
            "`encoder` must yield the network's condition, of shape "
            f"(batch, {', '.join(map(str, condition.shape))}). "
            f"Received: {tuple(encoder.output.shape)}."
        )
    return encoder


def history_length(spec):
    """The number of steps that all histories of a spec have."""
    lengths = {leaf.shape[1] for leaf in tree.flatten(spec)}
    if len(lengths) != 1 or None in lengths:
        raise ValueError(
            "`encoder` must take histories of one length, (batch, "
            f"obs_steps, ...). Received lengths: {lengths}."
        )
    return lengths.pop()


def make_normalizers(identifier, spec):
    """One normaliser for each array of an observation, as a dict.

    Args:
        identifier: name, `Normalizer`, or a dict of these.
        spec: the encoder's input, or a dict of its inputs.
    """
    if not isinstance(spec, dict):
        spec = {"observation": spec}
        if not is_table(identifier):
            identifier = {"observation": identifier}
    if not is_table(identifier):
        # A copy for each, since their statistics differ.
        first = normalizers.get(identifier, "observation_normalizer")
        identifier = {
            key: first
            if i == 0
            else type(first).from_config(
                {**first.get_config(), "name": f"{first.name}_{key}"}
            )
            for i, key in enumerate(spec)
        }
    if set(identifier) != set(spec):
        raise ValueError(
            "`observation_normalizer` must have the observation's keys, "
            f"{sorted(spec)}. Received: {sorted(identifier)}."
        )
    made = {}
    for key, leaf in spec.items():
        made[key] = normalizers.get(identifier[key], "observation_normalizer")
        made[key].build((None, leaf.shape[-1]))
    return made


def demonstrated(windows, spec):
    """(actions, {key: parts of the observations}) of demonstrations.

    Args:
        windows: `Windows`, or a list of episodes.
        spec: the encoder's input, or a dict of its inputs.

    Raises:
        ValueError: if the encoder does not take these observations.
    """
    if isinstance(windows, Windows):
        actions, observed = windows.action_parts(), [windows.observations]
    elif isinstance(windows, (list, tuple)):
        episodes = check_episodes(windows, "windows")
        actions = (episode["action"] for episode in episodes)
        observed = [episode["observation"] for episode in episodes]
    else:
        raise ValueError(
            "`windows` must be datasets.robots.Windows or a list of episodes. "
            f"Received: {type(windows).__name__}."
        )
    check_keys_of(observed[0], spec, "windows")
    keys = spec if isinstance(spec, dict) else ["observation"]
    return actions, {key: _parts(observed, key) for key in keys}


def _parts(observed, key):
    """Parts of the observations of one name."""
    for each in observed:
        yield from in_parts(each[key] if isinstance(each, dict) else each)


def check_keys_of(observation, spec, argument):
    """Refuse observations that the encoder has no such inputs for.

    Raises:
        ValueError: naming what the encoder takes, and how to make them fit.
    """
    given = sorted(observation) if isinstance(observation, dict) else None
    taken = sorted(spec) if isinstance(spec, dict) else None
    if given == taken:
        return
    shapes = {key: f"{key!r}: (obs_steps, ...)" for key in given or ()}
    if taken is None:
        remedy = (
            "make the encoder of a dict of shapes, {"
            + ", ".join(shapes.values())
            + "}, or read one observation, by `keys` of the reader or "
            "datasets.robots.select_keys"
        )
    else:
        remedy = "choose the same by datasets.robots.select_keys"
    raise ValueError(
        f"`{argument}` have observations {_named(given)}, and `encoder` takes "
        f"{_named(taken)}: {remedy}."
    )


def _named(keys):
    return "that are one array" if keys is None else f"named {keys}"


def as_given(observation):
    """An observation as floats, refused where it is not finite.

    Raises:
        ValueError: naming `observation`.
    """

    def leaf(value):
        value = as_floats(given.plain_array("observation", value))
        if not np.isfinite(value).all():
            raise ValueError(
                "`observation` must be finite. It holds NaN or infinity."
            )
        return value

    if not tree.flatten(observation):
        raise ValueError(f"`observation` is empty: {observation!r}.")
    return tree.map_structure(leaf, observation)


def normalize(normalizers_of, observation):
    """A normalised observation history."""
    if not isinstance(observation, dict):
        return normalizers_of["observation"](observation)
    return {
        key: normalizer(observation[key])
        for key, normalizer in normalizers_of.items()
    }


def check_observation(observation, spec, batch=None):
    """Raise where keys or shapes are not those of the spec.

    Args:
        observation: histories (B, obs_steps, ...), or a dict of them.
        spec: the encoder's input, or a dict of its inputs.
        batch: how many rows there must be, or None.
    """
    if isinstance(spec, dict) != isinstance(observation, dict):
        raise ValueError(
            "`observation` must be "
            + (f"a dict of {sorted(spec)}" if isinstance(spec, dict)
               else f"an array (batch, {spec.shape[1:]})")
            + f". Received: {type(observation)}."
        )  # fmt: skip
    if isinstance(spec, dict) and set(spec) != set(observation):
        missing = sorted(set(spec) - set(observation))
        extra = sorted(set(observation) - set(spec))
        raise ValueError(
            "`observation` must have the keys the policy was built for, "
            f"{sorted(spec)}. Missing: {missing}; not known: {extra}."
        )
    for key in spec if isinstance(spec, dict) else (None,):
        expected = spec if key is None else spec[key]
        leaf = observation if key is None else observation[key]
        name = "observation" if key is None else f"observation[{key!r}]"
        given.rows(name, leaf)
        shape = tuple(expected.shape[1:])
        if not fits(tuple(leaf.shape[1:]), shape):
            raise ValueError(
                f"`{name}` must have shape (batch, "
                f"{', '.join(map(str, shape))}): {shape[0]} steps "
                f"of history. Received: {tuple(leaf.shape)}."
            )
        if None not in (batch, leaf.shape[0]) and leaf.shape[0] != batch:
            raise ValueError(
                f"`{name}` must have one row for each of the {batch} "
                f"chunks. Received: {leaf.shape[0]}."
            )


def is_table(identifier):
    """Whether it is one normaliser per key."""
    return isinstance(identifier, dict) and "class_name" not in identifier


def check_windows(x, representation):
    """Refuse episodes that are not cut, and actions that are not relative.

    Args:
        x: what `fit` was given.
        representation: of the policy's actions.
    """
    if isinstance(x, (list, tuple)) and x and isinstance(x[0], dict):
        raise ValueError(
            "`x` is a list of episodes: pass "
            "datasets.robots.Windows(episodes, ...), which cuts them into "
            "chunks and histories."
        )
    if (
        representation.needs_pose
        and isinstance(x, Windows)
        and x.transform is None
    ):
        raise ValueError(
            "The policy's actions are relative and those of the windows "
            "are not: pass transform=policy.encode_actions to Windows."
        )


def check_fit(policy, x, y):
    """What a policy's `fit` was given, before any work."""
    if not int(policy.adapted.numpy()):
        raise ValueError(
            "The policy's normalisers know no data yet: call "
            "policy.adapt(windows) before fit, once."
        )
    check_windows(x, policy.representation)
    data_checks.check_host_array(x, policy.data_shape, "actions")
    if isinstance(x, np.ndarray):
        policy.check_observation(y, len(x))
        for leaf in tree.flatten(y):
            data_checks.check_pixels(leaf, "observation")
