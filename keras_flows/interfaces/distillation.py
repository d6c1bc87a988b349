"""`distil`: any flow model becomes a flow map of few steps.

The student's velocity at r = t is held to the teacher's, and its map to the
teacher's flow, by LMD (Lagrangian map distillation, arXiv 2406.07507,
2505.18825): |d_r X_{t->r}(x) - v(X_{t->r}(x), r)|^2.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_flows.datasets import Endless
from keras_flows.datasets import Rows
from keras_flows.interfaces.flow_map import FlowMapInterface
from keras_flows.interfaces.generator import Generator
from keras_flows.interfaces.holder import Holder
from keras_flows.interfaces.interface import Interface
from keras_flows.interfaces.reparametrized import ReparametrizedInterface
from keras_flows.interpolants import Linear
from keras_flows.networks import contract
from keras_flows.networks.second_time import with_second_time
from keras_flows.ops import given
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import GUIDANCE
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import SEED
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked
from keras_flows.training.bar import ProgressBar

# Samples of the teacher that the student learns from, where no data is given.
OWN_SAMPLES = 20_000


@checked(
    steps=SIZE,
    batch_size=SIZE,
    learning_rate=POSITIVE,
    guidance_scale=GUIDANCE,
    metric=given.of(given.function, none=True),
    num_samples=SIZE,
    seed=SEED,
    progress=FLAG,
)
def distil(
    teacher: str | Generator,
    data: Any = None,
    *,
    steps: int = 5000,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    guidance_scale: float = 1.0,
    ema: Any = 0.999,
    network: keras.Model | None = None,
    metric: Callable[[np.ndarray], float] | None = None,
    num_steps: Sequence[int] = (1, 2, 4, 8),
    num_samples: int = 10_000,
    seed: int = 0,
    progress: bool = True,
) -> FlowMapInterface:
    """A flow map of any number of steps from a trained flow model.

    ```python
    fast = kf.distil("sit_digits", steps=2000)
    images = fast.generate(condition=[3, 7], num_steps=1)
    ```

    The student is the teacher's network with a second time, from the
    teacher's (averaged) weights, trained by LMD on the teacher's path, or, of
    a model that is not on a straight one, on `Linear(noise_at=0.0)`.

    Args:
        teacher: a model that predicts a velocity, or a preset of one.
        data: x (n, ...), a pair (x, condition) of arrays, or a data set of
            batches without end; by default 20,000 samples of the teacher.
        steps: training steps.
        batch_size: rows of a batch.
        learning_rate: where its cosine starts.
        guidance_scale: of the teacher's velocity; the student has it inside.
        ema: of the student, see `Interface`.
        network: the student's; by default the teacher's, see above.
        metric: function of samples to a number, such as a
            `kf.metrics.HistogramKL`: a table of it is printed.
        num_steps, num_samples: of the table, see `kf.metrics.by_calls`.
        seed: of data, weights and noise.
        progress: whether to show bars.

    Returns:
        A `FlowMapInterface`, trained.

    Raises:
        ValueError: if the teacher has no velocity, or its network's class no
            argument `two_times`.
    """
    if not isinstance(teacher, Generator):
        teacher = Interface.from_preset(teacher)
    teacher.require("velocity", "distil")
    teacher.trainable = False
    if network is None:
        weights = teacher.inference_network().get_weights()
        network = with_second_time(teacher.network, weights)
    path = teacher.interpolant
    if not isinstance(path, Linear):
        path = Linear(noise_at=0.0)
        held = teacher.interface if isinstance(teacher, Holder) else teacher
        teacher = ReparametrizedInterface(held, path)
    student = FlowMapInterface(
        network,
        "lmd",
        teacher=teacher,
        teacher_guidance_scale=guidance_scale,
        interpolant=path,
        n_mu=teacher.n_mu,
        n_sigma=teacher.n_sigma,
        ema=ema,
        seed=seed,
    )
    if data is None:
        data = _own_samples(
            teacher, guidance_scale, min(OWN_SAMPLES, steps * batch_size), seed
        )
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    student.compile(
        keras.optimizers.Adam(rate, clipnorm=1.0),
        jit_compile=keras.backend.backend() != "torch",
    )
    student.fit(
        _batches(data, batch_size, seed),
        steps_per_epoch=steps,
        verbose=0,
        callbacks=[ProgressBar()] if progress else [],
    )
    if metric is not None:
        from keras_flows.metrics import by_calls

        options = {"num_samples": num_samples, "seed": seed}
        options |= random_condition(teacher, num_samples, seed)
        figures = {
            "teacher": by_calls(
                teacher, metric, num_steps, progress=progress,
                guidance_scale=guidance_scale, **options,
            ),
            "student": by_calls(
                student, metric, num_steps, progress=progress, **options
            ),
        }  # fmt: skip
        print(table(figures))
    return student


def table(figures: dict[str, dict[int, float]]) -> str:
    """A table in Markdown of {name: {calls: value}}."""
    calls = sorted({n for row in figures.values() for n in row})
    lines = [["calls", *map(str, calls)], ["---"] * (len(calls) + 1)]
    for name, row in figures.items():
        cells = [f"{row[n]:.4g}" if n in row else "" for n in calls]
        lines.append([name, *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def random_condition(teacher, num, seed):
    """{"condition": random labels} of a model that takes labels, or {}."""
    spec = contract.input_specs(teacher.network).get("condition")
    if spec is None:
        return {}
    labels = teacher.labels()
    if labels is None or labels.highest is None:
        raise ValueError(
            "`data` must be (x, condition): the teacher takes a condition "
            "other than labels, of which none can be drawn."
        )
    classes = labels.highest + (labels.null != labels.highest)
    rng = np.random.default_rng(seed)
    return {"condition": rng.integers(classes, size=num).astype("int32")}


def _own_samples(teacher, scale, num, seed):
    """Samples of the teacher, and their labels."""
    options = random_condition(teacher, num, seed)
    x = teacher.generate(
        num, seed=seed, guidance_scale=scale, batch_size=1000, **options
    )
    return (ops.convert_to_numpy(x), *options.values())


def _batches(data, batch_size, seed):
    """Batches without end, of arrays; others are taken as they are."""
    arrays = data if isinstance(data, tuple) else (data,)
    if all(isinstance(array, np.ndarray) for array in arrays):
        return Endless(Rows(*arrays), batch_size, seed)
    if callable(getattr(data, "sample", None)):
        return Endless(data, batch_size, seed)
    return data
