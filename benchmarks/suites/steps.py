"""A training step, under `fit` and by hand."""

from absl import flags

from benchmarks.cases import Case
from benchmarks.timing import interleaved

FLAGS = flags.FLAGS


def overhead():
    """A step so small that all else shows: an MLP of 2 x 64, batch 64."""
    case = Case("tiny", seed=FLAGS.seed)
    steps = 16 * max(1, FLAGS.steps // 16)
    runs = {
        "by hand": case.loop(case.by_hand(), steps),
        "fit": case.fit(case.model(), steps),
        "keras.Model.fit": case.fit(case.plain(), steps),
    }
    return measured(several(case, runs, steps), steps)


def several(case, runs, steps):
    """The same with `steps_per_execution=16`, where the backend has it."""
    for name, build in (("fit", case.model), ("keras.Model.fit", case.plain)):
        try:
            run = case.fit(build(steps_per_execution=16), steps)
            run()
        except ValueError:
            continue
        runs[f"{name}, 16 a call"] = run
    return runs


def step():
    """A step of the network --network, the device waited for at the end."""
    case = Case(FLAGS.network, FLAGS.batch_size, FLAGS.seed)
    runs = {
        "by hand": case.loop(case.by_hand(), FLAGS.steps),
        "fit": case.fit(case.model(), FLAGS.steps),
        "fit, average": case.fit(case.model(ema=0.999), FLAGS.steps),
    }
    return measured(runs, FLAGS.steps)


def measured(runs, steps):
    for run in runs.values():
        run()
    return interleaved(runs, FLAGS.rounds, "by hand", steps)
