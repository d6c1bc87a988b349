"""Calls of the public API with drawn arguments, and what is held of each."""

import contextlib
import dataclasses
import inspect
import io
import math
import re
import signal
import tempfile
import threading
import warnings

import keras
import numpy as np
from contract import world
from contract.values import verdict_of
from hypothesis import strategies as st
from keras import tree

# What a call may raise. FileNotFoundError and its like are OSErrors.
DOCUMENTED = (ValueError, TypeError, NotImplementedError, ImportError, OSError)
# Of CPU; of a clock on the wall, which a busy machine stops for a while, more.
SECONDS, WAITING = 30, 300


class Hang(BaseException):
    """A call that did not end in time."""


@dataclasses.dataclass(frozen=True)
class Target:
    """A public function, class or method.

    Args:
        call: expression of what is called.
        required: {argument: (expression that works, kind)}; a kind of None
            is never changed.
        optional: {argument: kind}.
        use: expression of what is then done with `made`, the result.
        check: what holds of the result: "finite" (every number of it), a
            shape, or None for nothing.
        positional: arguments given by position.
        weight: how often it is drawn.
        slow: whether calls that should work are left out.
        aliases: what messages may call its arguments: {argument: word}.
        wanting: arguments that messages may name whatever is drawn, since
            what they are there is wrong.
    """

    call: str
    required: dict = dataclasses.field(default_factory=dict)
    optional: dict = dataclasses.field(default_factory=dict)
    use: str | None = None
    check: object = "finite"
    positional: tuple = ()
    weight: int = 1
    slow: bool = False
    aliases: dict = dataclasses.field(default_factory=dict)
    wanting: tuple = ()

    def kinds(self):
        kinds = {k: kind for k, (_, kind) in self.required.items() if kind}
        return kinds | self.optional

    def text(self, changed):
        """The call, with some arguments as in `changed`."""
        arguments = {k: text for k, (text, _) in self.required.items()}
        arguments |= changed
        given = [arguments.pop(k) for k in self.positional if k in arguments]
        given += [f"{k}={text}" for k, text in arguments.items()]
        return f"{self.call}({', '.join(given)})"


def cases(targets):
    """A strategy of (target, {argument: expression})."""
    weighted = [t for t in targets for _ in range(t.weight)]

    @st.composite
    def case(draw):
        target = draw(st.sampled_from(weighted))
        kinds = target.kinds()
        names = sorted(kinds)
        count = 1 if draw(st.integers(0, 3)) else 2
        chosen = (
            draw(
                st.lists(
                    st.sampled_from(names),
                    min_size=min(count, len(names)),
                    max_size=min(count, len(names)),
                    unique=True,
                )
            )
            if names
            else []
        )
        return target, {k: draw(kinds[k].expressions()) for k in chosen}

    return case()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a call.

    Args:
        fault: None where all is well, or a class of fault.
        call: expression that reproduces it.
        changed: names of the drawn arguments.
        detail: the exception, or what is wrong with the result.
    """

    fault: str | None
    call: str
    changed: tuple = ()
    detail: str = ""


def outcome(target, changed, space):
    """Run a call and judge it.

    Args:
        target: a `Target`.
        changed: {argument: expression}.
        space: dict of names, `world.space()`.
    """
    text = target.text(changed)
    # A word may be taken for a file to write.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        scope = {**space, "folder": folder}
        verdicts = [
            verdict_of(target.kinds()[k], v, eval(v, dict(scope)))
            for k, v in changed.items()
        ]
        bad = "bad" in verdicts
        if target.slow and not bad:
            return Outcome(None, text, tuple(changed), "left out")
        fault, detail = _run(target, text, changed, scope, bad, verdicts)
    if fault is None:
        fault, detail = _unusable(space, f"{text} {target.use}")
    return Outcome(fault, text, tuple(changed), detail)


def _run(target, text, changed, scope, bad, verdicts):
    try:
        with quiet(), limit(SECONDS, WAITING):
            made = result = eval(text, scope)
            if target.use is not None:
                scope["made"] = made
                result = eval(target.use, scope)
    except Hang:
        return "hangs", f"more than {SECONDS} s of CPU, or {WAITING} s"
    except DOCUMENTED as error:
        return _judged(error, target, changed, verdicts)
    except Exception as error:
        kind = type(error).__name__
        if isinstance(error, RuntimeError) and _names(error, target, changed):
            return None, ""
        return f"raises {kind}", str(error)[:300]
    if bad:
        return "taken silently", ""
    wrong = _wrong(result, target.check)
    return ("wrong result", wrong) if wrong else (None, "")


def _judged(error, target, changed, verdicts):
    detail = f"{type(error).__name__}: {str(error)[:300]}"
    if not _names(error, target, changed):
        return f"{type(error).__name__} without a name", detail
    if set(verdicts) <= {"good"} and not target.wanting:
        return "refuses what is right", detail
    return None, ""


def _names(error, target, changed):
    """Whether the text names an argument that is not as it should be."""
    words = [*changed, *(target.aliases.get(name, name) for name in changed)]
    words += target.wanting
    return not changed or any(
        re.search(rf"(?<!\w){re.escape(word)}(?!\w)", str(error))
        for word in words
    )


def _wrong(result, check):
    """What is wrong with a result, or ""."""
    if check is None:
        return ""
    if isinstance(check, tuple) and tuple(np.shape(result)) != check:
        return f"shape {np.shape(result)} in place of {check}"
    for leaf in tree.flatten(result):
        if not (hasattr(leaf, "dtype") or isinstance(leaf, float)):
            continue
        values = keras.ops.convert_to_numpy(leaf)
        if values.dtype.kind in "fc" and not np.isfinite(values).all():
            return f"not finite: {str(values)[:100]}"
        if isinstance(leaf, float) and not math.isfinite(leaf):
            return f"not finite: {leaf}"
    return ""


def _unusable(space, text):
    """What has become of the shared models, or (None, "").

    Looked at are those that the text names, and one of all in turn: a call
    may leave something wrong that is not the model's own.
    """
    turn = next(space["turns"]) % max(len(space["before"]), 1)
    for i, (name, before) in enumerate(list(space["before"].items())):
        if i != turn and not re.search(rf"\b{name}\b", text):
            continue
        try:
            with quiet():
                now = world.samples(space[name])
        except Exception as error:
            found = f"{type(error).__name__}: {str(error)[:200]}"
        else:
            if np.allclose(now, before, atol=1e-4):
                continue
            found = "other samples than before"
        world.renew(space, name)
        return "leaves a model unusable", f"{name}: {found}"
    return None, ""


@contextlib.contextmanager
def quiet():
    """Nothing is printed, and no warning is an error."""
    out = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(out):
        warnings.simplefilter("ignore")
        with np.errstate(all="ignore"):
            yield


@contextlib.contextmanager
def limit(seconds, waiting):
    """`Hang` after some seconds, in the main thread of a Unix process.

    Args:
        seconds: of CPU, of all threads.
        waiting: seconds on the wall.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(*_):
        raise Hang

    clocks = (
        (signal.ITIMER_PROF, signal.SIGPROF, seconds),
        (signal.ITIMER_REAL, signal.SIGALRM, waiting),
    )
    before = [signal.signal(number, stop) for _, number, _ in clocks]
    for clock, _, after in clocks:
        signal.setitimer(clock, after)
    try:
        yield
    finally:
        for (clock, number, _), handler in zip(clocks, before, strict=True):
            signal.setitimer(clock, 0)
            signal.signal(number, handler)


def parameters(thing):
    """Names of the parameters of a callable, `self` and `name` aside."""
    try:
        found = inspect.signature(thing).parameters.values()
    except ValueError:
        return []
    plain = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in found if p.kind not in plain]
