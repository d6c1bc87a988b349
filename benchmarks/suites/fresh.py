"""What only a process of its own can tell: first steps, memory, imports."""

import json
import os
import subprocess
import sys
import tempfile

from absl import flags

from benchmarks.timing import rows

FLAGS = flags.FLAGS


def child(what, *arguments, **environment):
    """The JSON that `python -m benchmarks.child` prints."""
    text = subprocess.run(
        [sys.executable, "-m", "benchmarks.child", what, *map(str, arguments)],
        env={**os.environ, **environment},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    return json.loads(text.split("MEASURED")[1])


def first_step():
    """Seconds to the first loss, compiled anew and out of the cache."""
    case = FLAGS.network, FLAGS.batch_size or 0, FLAGS.seed
    values = {name: [] for name in ("by hand", "fit", "fit, cached")}
    with tempfile.TemporaryDirectory() as folder:
        child("first_step", "fit", *case, folder)
        for _ in range(FLAGS.rounds):
            for name, found in values.items():
                kept = folder if name == "fit, cached" else ""
                kind = name.split(",")[0]
                found.append(child("first_step", kind, *case, kept))
    return rows(values, "by hand", "seconds")


def memory():
    """Peak memory of a training step, less that of the imports."""
    case = FLAGS.network, FLAGS.batch_size or 0, FLAGS.seed
    values = {name: [] for name in ("by hand", "fit", "average", "remat")}
    if FLAGS.network != "dit":
        del values["remat"]
    for _ in range(FLAGS.rounds):
        for name, found in values.items():
            found.append(child("memory", name, *case, ""))
    return rows(values, "by hand", "bytes")


def imports():
    """Seconds of `import keras_flows` beside `import keras`, and to a sample
    of a preset."""
    values = {name: [] for name in ("keras", "keras_flows", "sample")}
    for _ in range(FLAGS.rounds):
        for name, found in values.items():
            found.append(child("import", name))
    return rows(values, "keras", "seconds")
