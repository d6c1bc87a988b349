"""The TensorFlow process that writes what another backend cannot.

It reads orders, one JSON line each, from standard input, and answers each
with a line: {} or {"error": its traceback}.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import traceback
import typing

if typing.TYPE_CHECKING:
    from collections.abc import Iterator


class _Process:
    """A TensorFlow process, started by its first order."""

    def __init__(self):
        self.process = None

    def start(self):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "keras_flows.export.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env={
                **os.environ,
                "KERAS_BACKEND": "tensorflow",
                "CUDA_VISIBLE_DEVICES": "",
            },
            text=True,
        )

    def answer(self, line):
        """Its answer to an order; what it last wrote, if it died."""
        if self.process is None:
            self.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.write(line + "\n")
                self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BaseException:
            # Interrupted: what it writes is not wanted any more.
            self.process.kill()
            raise
        if answer:
            return json.loads(answer)
        self.process.wait()
        self.log.seek(0)
        error = self.log.read()
        self.stop()
        return {"error": error}

    def stop(self):
        if self.process is None:
            return
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()
        self.process = None


# The process that `tensorflow_process` keeps.
_KEPT = {"now": None}


@contextlib.contextmanager
def tensorflow_process() -> Iterator[None]:
    """Keep one TensorFlow process for all exports inside, on any backend.

    Without it every export that needs one starts its own, some seconds each.

    ```python
    with kf.export.tensorflow_process():
        model.export("served", num_steps=4)
        model.export("served_onnx", "onnx", num_steps=4)
    ```
    """
    if _KEPT["now"] is not None:
        yield
        return
    process = _KEPT["now"] = _Process()
    try:
        yield
    finally:
        _KEPT["now"] = None
        process.stop()


def order(**what):
    """Have a TensorFlow process call `carry_out(**what)`.

    Raises:
        RuntimeError: if it fails; the message holds its last words.
    """
    with tensorflow_process():
        error = _KEPT["now"].answer(json.dumps(what)).get("error")
    if error is not None:
        raise RuntimeError(
            "The TensorFlow process that exports for this backend failed. "
            "What is your own must run on TensorFlow there, in `keras.ops`. "
            "Its last words:\n" + error[-2000:]
        )


def carry_out(
    classes, preset, decoder, folder, format, options, output_range, use_ema
):
    """Load a preset, and the decoder beside it, and write the export."""
    import keras

    from keras_flows.export import exporter
    from keras_flows.export.objects import receive_objects
    from keras_flows.export.plan import Served
    from keras_flows.presets import from_preset

    receive_objects(classes)
    options = {
        key: keras.saving.deserialize_keras_object(value)
        if isinstance(value, dict)
        else value
        for key, value in options.items()
    }
    if decoder is not None:
        decoder = keras.saving.load_model(decoder, compile=False)
    model = from_preset(preset)
    served = Served(options, decoder, output_range, use_ema)
    exporter.write(model.export_plan(served), pathlib.Path(folder), format)


def main():
    """Serve orders until standard input ends."""
    # What libraries print must not end up among the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        answer = {}
        try:
            carry_out(**json.loads(line))
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
