"""From the words of a command line to a command that runs."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import signal
import sys
import typing

from keras_flows._backend import BACKENDS
from keras_flows._backend import chosen
from keras_flows._command import load
from keras_flows._quiet import muted
from keras_flows._quiet import silence
from keras_flows.cli.flags import parser

if typing.TYPE_CHECKING:
    from collections.abc import Sequence

# What a user can mend: told in a sentence, without a traceback.
FAULTS = (ValueError, TypeError, ImportError, OSError, RuntimeError)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command.

    Args:
        arguments: list of words; by default those of the process.

    Raises:
        SystemExit: with 0 after `--help`, 2 where the flags are wrong, 1 where
            the command cannot do its work, 130 where it was interrupted.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    flags = parser().parse_args([_dashed(word) for word in words])
    try:
        with _ended_by_signals():
            _run(flags)
    except KeyboardInterrupt:
        sys.exit(_say("interrupted; nothing was left half-written", 130))
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except FAULTS as error:
        if flags.verbose:
            raise
        sys.exit(_say(" ".join(str(error).split()) or repr(error), 1))


def _run(flags):
    _check_out(flags)
    if not flags.verbose:
        silence()
    _choose_backend(flags.backend)
    with contextlib.nullcontext() if flags.verbose else muted():
        load()
    module = flags.command.replace("-", "_")
    importlib.import_module(f"keras_flows.cli.commands.{module}").run(flags)


def _check_out(flags):
    """An `--out` that exists is refused before any work is done."""
    out = getattr(flags, "out", None)
    if out is not None and getattr(flags, "version", None) is not None:
        out = os.path.join(out, str(flags.version))
    if out is not None and os.path.exists(out) and not flags.overwrite:
        raise ValueError(
            f"--out={out} exists and is left alone: name another, or add "
            "--overwrite."
        )


def _choose_backend(backend):
    """Put the backend where Keras looks for it.

    The flag's, or what the user set up, or else one that is installed.

    Raises:
        ValueError: if it is not installed, or Keras is running on another.
    """
    installed = [name for name in BACKENDS if importlib.util.find_spec(name)]
    if "keras" in sys.modules:
        running = sys.modules["keras"].config.backend()
        if backend not in (None, running):
            raise ValueError(
                f"--backend={backend}: Keras runs on {running} in this "
                "process already."
            )
        return
    if backend is not None and backend not in installed:
        raise ValueError(
            f"--backend={backend} is not installed; installed: "
            f"{', '.join(installed) or 'none'}. pip install "
            f"'keras_flows[{backend}]'."
        )
    if backend is not None:
        os.environ["KERAS_BACKEND"] = backend
    elif "KERAS_BACKEND" not in os.environ and installed:
        # Keras's own default, which its file holds, may not be installed.
        known, _ = chosen()
        known = known if known in installed else installed[0]
        os.environ["KERAS_BACKEND"] = known


@contextlib.contextmanager
def _ended_by_signals():
    """SIGTERM ends the process as Ctrl-C does: files are cleared away."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:
        # Only the main thread hears signals.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _dashed(word):
    """--num_steps as --num-steps: both are understood."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def _say(text, code):
    print(f"keras-flows: {text}", file=sys.stderr)
    return code
