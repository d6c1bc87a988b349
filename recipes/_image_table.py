"""The table and the figure of recipes/images.py."""

import numpy as np
from _common import pyplot
from _common import save_figure

import keras_flows as kf


def _spoken(name):
    return name.replace("_", " ")


def _seconds(trained):
    """Of a training, with that of the weights it started from."""
    before = trained.get("before")
    return trained["seconds"] + (0 if before is None else _seconds(before))


def table(results):
    """Markdown: a row for real images, one for each method and its calls."""
    real = results["real"]
    factors = list(real["accuracy"])
    near = "nearest" in real
    heads = ["", "calls", "FD (range)", "times real", "precision", "recall"]
    heads += [_spoken(name) for name in factors]
    heads += ["nearest"] * near + ["minutes"]

    def row(name, calls, found, minutes=""):
        low, high = found["fd_range"]
        return [
            name,
            calls,
            f"{found['fd']:.2f} ({low:.2f}-{high:.2f})",
            f"{found['fd'] / real['fd']:.2f}",
            f"{found['precision']:.2f}",
            f"{found['recall']:.2f}",
            *(f"{found['accuracy'][k]:.1%}" for k in factors),
            *([f"{found['nearest']:.3f}"] if near else []),
            minutes,
        ]

    rows = [row("real images", "", real)]
    rows.append(row("untrained", "1", results["untrained"]))
    for name, result in results["methods"].items():
        for calls, found in result["calls"].items():
            minutes = f"{_seconds(result) / 60:.0f}"
            rows.append(row(name, calls, found, minutes))
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def blocks(methods):
    """(method, calls) worth showing: many calls, of one-step methods one."""
    few = ("mean_flow", "lsd", "lmd", "dmd2")
    return [(name, "1" if name in few else "32") for name in methods]


def figure(path, real, samples):
    """Real images, then each method's with the same labels.

    Args:
        path: of the PNG.
        real: (24, H, W, C).
        samples: dict of methods to dicts of calls to images.
    """
    plt = pyplot()
    shown = {"real": real}
    for name, calls in blocks(samples):
        label = f"{name}, {calls} call{'s' * (calls != '1')}"
        shown[label] = samples[name][calls]
    fig, axes = plt.subplots(
        1, len(shown), figsize=(4.2 * len(shown), 3.1), layout="constrained",
        squeeze=False,
    )  # fmt: skip
    for axis, (label, images) in zip(axes[0], shown.items(), strict=True):
        grid = kf.callbacks.image_grid(images, columns=6, scale=3, border=3)
        if grid.shape[-1] == 1:
            grid = np.repeat(grid, 3, axis=-1)
        axis.imshow(grid, interpolation="nearest")
        axis.set_title(label, fontsize=11)
        axis.axis("off")
    save_figure(path, fig, 110)
