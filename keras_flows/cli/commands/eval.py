"""`keras-flows eval`."""

import json

import keras
import numpy as np

import keras_flows as kf
from keras_flows.cli import data
from keras_flows.cli import figures
from keras_flows.cli.metadata import metadata_of
from keras_flows.interfaces.distillation import table
from keras_flows.ops.files import write_text


def run(flags):
    """Print a table of the metric by calls, and write the figures."""
    model = kf.Interface.from_preset(flags.model)
    found = data.read(flags.data, flags.image_size)
    if isinstance(model, kf.policies.Policy) != (found.kind == "episodes"):
        raise ValueError(
            f"{flags.model} is a {type(model).__name__}, and {flags.data} "
            f"holds {found.kind}: policies are measured on episodes, others "
            "on samples."
        )
    if found.kind == "episodes":
        result = _errors(model, found.source, flags)
    else:
        metric = figures.metric_of(
            found, flags.metric, flags.features, flags.num_samples, flags.seed
        )
        scale = metadata_of(flags.model).get("scale")
        result = figures.by_calls(
            model, metric, flags.num_steps, scale, flags.num_samples,
            flags.batch_size, flags.seed,
            guidance_scale=flags.guidance_scale,
            guidance_interval=flags.guidance_interval,
            guidance_channels=flags.guidance_channels,
            sampler=flags.sampler,
            use_ema=flags.use_ema,
        )  # fmt: skip
    result |= {"model": flags.model, "data": flags.data, "seed": flags.seed}
    if flags.out is not None:
        write_text(flags.out, json.dumps(result, indent=2) + "\n")
    print(f"{result['metric']}, {result['num_samples']:,} samples by calls")
    print(table({flags.model: result["values"]}))
    print(f"{result['floor_is']}: {result['floor']:.4g}")


def _errors(policy, episodes, flags):
    """Root mean square error of executed actions, by calls."""
    if flags.metric not in (None, "error"):
        raise ValueError(f"--metric={flags.metric} is of samples, not actions.")
    windows = kf.datasets.robots.Windows(
        episodes,
        policy.horizon,
        policy.obs_steps,
        policy.act_steps,
        batch_size=1,
        mask=True,
        short="pad",
    )
    count = min(windows.num_windows, flags.num_samples)
    rows = np.linspace(0, windows.num_windows - 1, count).astype(int)
    actions, observations, extras = windows.gather(rows)
    first = policy.obs_steps - 1
    executed = slice(first, first + policy.act_steps)
    mask = extras["mask"][:, executed].astype(bool)
    recorded = actions[:, executed][mask]

    def error(chunks):
        apart = (chunks - recorded) ** 2
        return float(np.sqrt(apart.sum(-1).mean()))

    values = {}
    for steps in flags.num_steps:
        parts = []
        for start in range(0, count, flags.batch_size):
            part = slice(start, start + flags.batch_size)
            parts.append(
                policy.predict_chunk(
                    keras.tree.map_structure(
                        lambda a, part=part: a[part], observations
                    ),
                    num_steps=steps,
                    sampler=flags.sampler,
                    seed=flags.seed,
                    use_ema=flags.use_ema,
                )[:, executed]
            )
        values[steps] = error(np.concatenate(parts)[mask])
    return {
        "metric": "root mean square error of an action",
        "values": values,
        "num_samples": count,
        "floor": error(recorded.mean(axis=0)),
        "floor_is": "error of the mean action",
    }
