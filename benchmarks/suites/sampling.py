"""Sampling beside its network calls, new batch sizes, and one chunk."""

import itertools
import time

import keras
import numpy as np
from absl import flags

from benchmarks import native
from benchmarks.cases import Case
from benchmarks.suites.policies import noise_windows
from benchmarks.suites.policies import policy
from benchmarks.timing import interleaved
from benchmarks.timing import rows

FLAGS = flags.FLAGS
STEPS = 16


def generate():
    """16 Euler steps by `generate`, and as many calls by hand; new sizes."""
    case = Case(FLAGS.network, seed=FLAGS.seed)
    model, network = case.model(), case.network()
    size = FLAGS.batch_size or 8
    example = case.batches[0]
    x = np.array(example[0][:size])
    labels = None if len(example) == 1 else np.array(example[1][:size])
    velocity = native.module("training").compiled(
        native.module(case.peer).velocity, native.weights_of(network)
    )
    times = np.linspace(1.0, 0.0, STEPS + 1).astype("float32")

    def by_hand():
        state = keras.ops.convert_to_tensor(x)
        for t, r in itertools.pairwise(times):
            v = velocity(state, np.full(size, t), labels)
            state = state + float(r - t) * v
        return keras.ops.convert_to_numpy(state)

    def ours(size=size):
        kept = None if labels is None else np.resize(labels, size)
        samples = model.generate(
            size, condition=kept, sampler="euler", num_steps=STEPS, seed=0
        )
        return keras.ops.convert_to_numpy(samples)

    by_hand(), ours()
    found = interleaved(
        {"by hand": by_hand, "generate": ours}, FLAGS.rounds, "by hand"
    )
    # Sizes that were never asked for, the one before measured beside.
    new = {"generate": [], "a new batch size": []}
    for other in range(size - 1, max(0, size - 1 - FLAGS.rounds), -1):
        for name, asked in (("generate", size), ("a new batch size", other)):
            start = time.perf_counter()
            ours(asked)
            new[name].append(1e3 * (time.perf_counter() - start))
    found["a new batch size"] = rows(new, "generate")["a new batch size"]
    return found


def latency():
    """`predict_chunk` of one robot beside its compiled function alone."""
    rng = np.random.default_rng(FLAGS.seed)
    windows = noise_windows(rng)
    model = policy(FLAGS.objectives[0] if FLAGS.objectives else "mip", windows)
    # An average that was never updated is copied anew in every call.
    model.fit(windows, steps_per_epoch=1, verbose=0)
    history = rng.standard_normal((1, 2, 21)).astype("float32")
    taken = []
    function = model.loop.function

    def spied(*args):
        run = function(*args)

        def keeping(*given):
            taken[:] = [(run, given)]
            return run(*given)

        return keeping

    model.loop.function = spied
    model.predict_chunk(history)
    del model.loop.function
    run, given = taken[0]
    calls = 100

    def alone():
        for _ in range(calls):
            np.asarray(keras.ops.convert_to_numpy(_first(run(*given))))

    def whole():
        for _ in range(calls):
            model.predict_chunk(history)

    whole(), alone()
    return interleaved(
        {"compiled function": alone, "predict_chunk": whole},
        FLAGS.rounds, "compiled function", calls,
    )  # fmt: skip


def _first(structure):
    return keras.tree.flatten(structure)[0]
