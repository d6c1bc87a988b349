"""Steps of `fit`, of several models in turn."""

from absl import flags

from benchmarks.timing import interleaved

FLAGS = flags.FLAGS


def of_models(models, data, base):
    """{name: row} of a training step of each of some models."""
    runs = {
        name: lambda model=model: model.fit(
            data, steps_per_epoch=FLAGS.steps, verbose=0
        )
        for name, model in models.items()
    }
    for model in models.values():
        model.fit(data, steps_per_epoch=min(5, FLAGS.steps), verbose=0)
    return interleaved(runs, FLAGS.rounds, base, FLAGS.steps)
