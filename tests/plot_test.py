"""Pictures: what they show, what they write, what they refuse."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import keras_flows as kf

pytestmark = pytest.mark.once
pytest.importorskip("matplotlib")


def shown(figure):
    return [axis.images[0].get_array() for axis in figure.axes if axis.images]


def test_points_are_counted_where_they_lie(rng, tmp_path):
    left = np.stack([-0.5 + 0.01 * rng.normal(size=999), rng.normal(size=999)])
    figure = kf.plot.points(
        {"left": left.T, "one": [[0.5, 0.5]]},
        tmp_path / "board.png",
        extent=1.0,
        bins=2,
    )
    first, second = shown(figure)
    # Rows go up with y, columns with x; points outside are not shown.
    inside = np.abs(left[1]) < 1.0
    assert first[:, 1].sum() == 0
    assert first[:, 0].sum() == inside.sum()
    assert second[1, 1] == 1 and second.sum() == 1
    assert [axis.get_title() for axis in figure.axes] == ["left", "one"]
    assert (tmp_path / "board.png").read_bytes()[:4] == b"\x89PNG"


def test_images_are_a_grid(rng):
    images = np.full((5, 4, 6, 3), -1.0)
    images[4] = 1.0
    (picture,) = shown(kf.plot.grid(images, columns=3))
    assert picture.shape == (2 * 5 + 1, 3 * 7 + 1, 3)
    assert picture[6:10, 8:14].min() == 255
    assert picture[1:5, 1:7].max() == 0


def test_chunks_are_lines_of_each_action(rng):
    actions = rng.normal(size=(4, 10, 3))
    figure = kf.plot.chunks(actions)
    assert [len(axis.lines) for axis in figure.axes[:3]] == [4, 4, 4]
    np.testing.assert_array_equal(
        figure.axes[2].lines[1].get_ydata(), actions[1, :, 2]
    )


@pytest.mark.parametrize(
    "function, array, argument",
    [
        (kf.plot.points, np.zeros((5, 3)), "samples"),
        (kf.plot.points, {}, "samples"),
        (kf.plot.points, np.full((5, 2), np.nan), "samples"),
        (kf.plot.grid, np.zeros((5, 8, 8, 4)), "images"),
        (kf.plot.grid, np.zeros((8, 8)), "images"),
        (kf.plot.chunks, np.zeros((5, 3)), "actions"),
    ],
)
def test_other_arrays_are_refused(function, array, argument):
    with pytest.raises(ValueError, match=f"`{argument}`"):
        function(array)


def test_a_model_shows_what_it_samples(tmp_path):
    """Points, images and series by the shape; the count of a condition."""
    shapes = {(2,): 1, (4, 4, 1): 1, (6, 3): 3}
    for shape, panels in shapes.items():
        network = kf.networks.MLP(shape, 8, 1, num_classes=3)
        model = kf.SiTInterface(network, seed=0)
        path = tmp_path / f"{len(shape)}.png"
        figure = model.show(path=path, condition=[0, 1, 2], num_steps=1)
        assert len(figure.axes) >= panels and path.is_file()
        figure = model.show(condition=0, num_steps=1, seed=3)
        assert figure.axes[0].get_images() or figure.axes[0].lines
    assert len(figure.axes[0].lines) == 16
    with pytest.raises(ValueError, match="Received the shape"):
        kf.plot.samples(np.zeros((4, 1)))


def test_a_terminal_without_a_display(tmp_path):
    """Pictures need no window, whatever matplotlib was told to use."""
    code = (
        "import numpy as np, keras_flows as kf\n"
        "kf.plot.points(np.zeros((4, 2)), 'points.png')\n"
        "kf.plot.grid(np.zeros((4, 8, 8, 1)), 'grid.png')\n"
    )
    env = {k: v for k, v in os.environ.items() if "DISPLAY" not in k}
    root = str(pathlib.Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, text=True, capture_output=True,
        env={**env, "MPLBACKEND": "tkagg", "PYTHONPATH": root},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-1000:]
    assert {p.name for p in tmp_path.iterdir()} == {"points.png", "grid.png"}
