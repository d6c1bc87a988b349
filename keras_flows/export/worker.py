"""The TensorFlow process that writes what another backend cannot.

It reads orders, one JSON line each, from standard input, and answers each
with a line: {} or {"error": its traceback}.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import traceback

# The process that `tensorflow_process` keeps.
_KEPT = {"now": None}


@contextlib.contextmanager
def tensorflow_process():
    """Keep one TensorFlow process for all exports inside, on any backend.

    Without it every export that needs one starts its own, some seconds each.

    ```python
    with kf.export.tensorflow_process():
        model.export("served", num_steps=4)
        model.export("served_onnx", "onnx", num_steps=4)
    ```
    """
    if _KEPT["now"] is not None:
        yield _KEPT["now"]
        return
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "keras_flows.export.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={
                **os.environ,
                "KERAS_BACKEND": "tensorflow",
                "CUDA_VISIBLE_DEVICES": "",
            },
            text=True,
        )
        _KEPT["now"] = process, log
        try:
            yield _KEPT["now"]
        finally:
            _KEPT["now"] = None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()
            process.stdout.close()


def order(**what):
    """Have a TensorFlow process call `carry_out(**what)`.

    Raises:
        RuntimeError: if it fails; the message holds its last words.
    """
    with tensorflow_process() as (process, log):
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(what) + "\n")
            process.stdin.flush()
        reply = process.stdout.readline()
        if not reply:
            process.wait()
            log.seek(0)
            reply = json.dumps({"error": log.read()})
    error = json.loads(reply).get("error")
    if error is not None:
        raise RuntimeError(
            "The TensorFlow process that exports for this backend failed. A "
            "network of your own must be importable there, in a module that "
            "registers it. Its last words:\n" + error[-2000:]
        )


def carry_out(preset, decoder, folder, format, settings, use_ema):
    """Load a preset, and the decoder beside it, and write the export."""
    import keras

    import keras_flows as kf

    settings = {
        key: keras.saving.deserialize_keras_object(value)
        if isinstance(value, dict)
        else value
        for key, value in settings.items()
    }
    if decoder is not None:
        decoder = keras.saving.load_model(decoder, compile=False)
    model = kf.Interface.from_preset(preset)
    model._write_export(
        pathlib.Path(folder), format, settings, decoder, use_ema
    )


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
