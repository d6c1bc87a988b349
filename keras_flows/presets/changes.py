"""A preset with other arguments: its config, and which weights still fit."""

import collections
import re
import warnings

import keras
from keras import ops

# Most variables that a warning names.
_NAMED = 12


def with_arguments(config, arguments, preset):
    """A preset's config with other arguments, found by their names.

    An argument may be one of the model or of any model inside it, such as its
    network. Where several have one of that name, `places` tell them apart:
    "network.width", "encoder.width".

    Args:
        config: the preset's config, changed in place.
        arguments: {name, or place and name: value}.
        preset: for messages.

    Raises:
        ValueError: if no model has such an argument, or several do.
    """
    known = dict(_places(config))
    for name, value in arguments.items():
        where, _, short = name.rpartition(".")
        found = [
            place
            for place, own in known.items()
            if short in own and where in ("", place)
        ]
        if short == "name" and not where:
            found = [""]
        if not found:
            listed = "; ".join(
                f"of {place or 'the model'}: {', '.join(sorted(own))}"
                for place, own in known.items()
            )
            raise ValueError(
                f"`{name}` is no argument of preset {str(preset)!r}. It has, "
                f"{listed}."
            )
        if len(found) > 1:
            ways = " or ".join(
                f"from_preset(..., **{{'{f'{place}.{short}'.lstrip('.')}': "
                "...})"
                for place in found
                if place
            )
            raise ValueError(
                f"`{name}` is ambiguous: several models of preset "
                f"{str(preset)!r} have such an argument. Say which by {ways}."
            )
        known[found[0]][short] = value
    return config


def _places(config, place=""):
    """(where a model is, its arguments) of every model, the outer first."""
    if not isinstance(config, dict):
        return
    if "class_name" not in config:
        inner = config
    else:
        inner = config.get("config")
        if not isinstance(inner, dict):
            return
        kind = keras.saving.get_registered_object(
            config.get("registered_name") or ""
        )
        if isinstance(kind, type) and issubclass(kind, keras.Model):
            yield place, inner
    for key, value in inner.items():
        yield from _places(value, f"{place}.{key}".lstrip("."))


def carry_over(old, new, preset, arguments):
    """Give `new` every weight of `old` that has a place of its shape there.

    A weight's place is its path, such as "label_embedding/embeddings"; of
    several on one path the first is the first. What is left keeps its fresh
    value, and averages of it start from that; a warning names it.

    Args:
        old: the preset's model.
        new: the model with other arguments.
        preset, arguments: for the warning.
    """
    fresh, saved = _by_place(new), _by_place(old)
    other = _renumbered(fresh, saved)
    left = []
    for place, variable in fresh.items():
        source = saved.get(other.get(place, place))
        if source is not None and source.shape == variable.shape:
            # A copy: JAX would donate a buffer that two variables share.
            value = ops.cast(source.value, variable.dtype)
            variable.assign(ops.copy(value))
        else:
            was = None if source is None else tuple(source.shape)
            left.append((variable, was))
    started = _restart_averages(new, {id(variable) for variable, _ in left})
    left = [each for each in left if id(each[0]) not in started]
    if left:
        shown = [
            f"{variable.path} {tuple(variable.shape)}"
            + (f", saved as {was}" if was is not None else "")
            for variable, was in left[:_NAMED]
        ]
        more = len(left) - len(shown)
        shown += [f"and {more} more"] if more else []
        given = ", ".join(f"{k}={v!r}" for k, v in arguments.items())
        warnings.warn(
            f"Preset {str(preset)!r} with {given}: {len(left)} of "
            f"{len(fresh)} weights were not loaded and start afresh: "
            f"{'; '.join(shown)}.",
            stacklevel=4,
        )


def _by_place(model):
    """{(path, which of that path): variable}."""
    count, found = collections.Counter(), {}
    for variable in model.variables:
        path = variable.path.removeprefix(f"{model.name}/")
        found[path, count[path]] = variable
        count[path] += 1
    return found


def _renumbered(fresh, saved):
    """{place: place in `saved`} of those that differ in numbers alone.

    Keras numbers layers that were given no name through the whole process.
    """

    def plain(places, others):
        groups = {}
        for place in places:
            if place not in others:
                path = re.sub(r"_\d+(?=/|$)", "", place[0])
                groups.setdefault(path, []).append(place)
        return groups

    ours, theirs = plain(fresh, saved), plain(saved, fresh)
    return {
        place: source
        for path, places in ours.items()
        if len(places) == len(theirs.get(path, ()))
        for place, source in zip(places, theirs[path], strict=True)
    }


def _restart_averages(model, fresh):
    """Averages of fresh weights are those weights.

    Returns:
        The ids of the variables of averages that are wholly new.
    """
    started = set()
    for interface in interfaces(model):
        for ema, network in interface.averages.pairs:
            if id(ema.updates) in fresh:
                started.update(id(v) for v in ema.variables)
            for live, average in zip(
                network.variables, ema.averages, strict=True
            ):
                if {id(average), id(live)} & fresh:
                    value = ops.cast(live.value, average.dtype)
                    average.assign(ops.copy(value))
    return started


def interfaces(model):
    """The model, what it holds and its teacher; of a network none."""
    if not hasattr(model, "everything"):
        return
    for each in model.everything():
        yield each
        teacher = getattr(each, "teacher", None)
        if teacher is not None:
            yield from interfaces(teacher.model)
