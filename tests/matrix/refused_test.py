"""What no holder can hold, and what no path joins, is refused at once."""

import exact
import laws
import numpy as np
import pytest
from holders_test import a_batch
from holders_test import align
from holders_test import array
from holders_test import check_moments
from holders_test import sampled
from rows import ROWS
from rows import frozen
from rows import path_of
from rows import sit

import keras_flows as kf


def bridge():
    return ROWS["bridge"].build("brownian")


def built(name, path):
    return lambda: ROWS[name].build(path)


def with_tokens(name, path):
    return lambda: ROWS[name].build(path, tokens=True)


def taught_by(make, objective="lmd"):
    """A flow map that follows the model."""
    net = exact.network("linear0", "map")
    return kf.FlowMapInterface(
        net, objective, teacher=frozen(make()), ema=None, seed=0
    )


CANNOT_TEACH = {
    "bridge": bridge,
    "regression": built("regression", "linear0"),
    "straight_flow": built("straight_flow", "linear0"),
    "tsd": built("tsd", "linear0"),
    "mip": built("mip", "linear0"),
    "consistency": built("consistency", "linear0"),
    "progressive": built("progressive", "linear0"),
    "dmd": built("dmd", "linear0"),
}
HOLDERS = {
    "dmd": lambda make: kf.DMDInterface(frozen(make())),
    "progressive": lambda make: kf.ProgressiveInterface(
        frozen(make()), num_steps=(2, 1)
    ),
    "lmd": taught_by,
    "emd": lambda make: taught_by(make, "emd"),
    "ayf": lambda make: taught_by(make, "ayf"),
    "ctm": lambda make: taught_by(make, "ctm"),
    "consistency": lambda make: kf.ConsistencyInterface(
        exact.network("linear0", "end", "boundary"), path_of("linear0"),
        teacher=frozen(make()), ema=None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("teacher", CANNOT_TEACH)
def test_what_has_no_velocity_cannot_teach(teacher, holder):
    """Its velocity at a time is not that of the data, or there is none."""
    with pytest.raises(ValueError, match="teacher"):
        HOLDERS[holder](CANNOT_TEACH[teacher])


def bridge_with_tokens():
    return ROWS["bridge"].build("brownian", tokens=True)


NOT_ALIGNED = {
    "bridge": bridge_with_tokens,
    "regression": with_tokens("regression", "linear0"),
    "tsd": with_tokens("tsd", "linear0"),
}


@pytest.mark.parametrize("held", NOT_ALIGNED)
def test_repa_refuses(held):
    """Features of a network that sees no noised data, or two data sets."""
    with pytest.raises(ValueError, match="interface"):
        align(NOT_ALIGNED[held](), 1)


NOT_MOVED = {
    "bridge": bridge,
    "regression": built("regression", "linear0"),
    "tsd": built("tsd", "linear0"),
    "mip": built("mip", "linear0"),
    "progressive": built("progressive", "linear0"),
}


@pytest.mark.parametrize("held", NOT_MOVED)
def test_reparametrized_refuses(held):
    """What is trained at single times, or between two data sets."""
    with pytest.raises(ValueError, match="interface"):
        kf.ReparametrizedInterface(NOT_MOVED[held](), path_of("vp"))


def between():
    return kf.interpolants.StochasticInterpolant()


BETWEEN = {
    "sit": lambda: kf.SiTInterface(
        exact.network("linear1"), interpolant=between(), ema=None
    ),
    "flow": lambda: kf.FlowMapInterface(
        exact.network("linear1"), "flow", interpolant=between(), ema=None
    ),
    "lsd": lambda: kf.FlowMapInterface(
        exact.network("linear1", "map"), interpolant=between(), ema=None
    ),
    "mean_flow": lambda: kf.MeanFlowInterface(
        exact.network("linear1", "map"), interpolant=between(), ema=None
    ),
    "consistency": lambda: kf.ConsistencyInterface(
        exact.network("linear1", "end", "boundary"), between(), ema=None
    ),
    "reparametrized": lambda: kf.ReparametrizedInterface(
        sit("linear1"), between()
    ),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_only_a_stochastic_interpolant_joins_two_data_sets(name):
    with pytest.raises(ValueError, match="interpolant"):
        BETWEEN[name]()


def test_mean_flow_as_an_objective_of_flow_maps():
    """`objectives.names()` has it: it works, or says where it does."""
    assert "mean_flow" in kf.objectives.names()
    net = exact.network("linear0", "map")
    try:
        model = kf.FlowMapInterface(net, "mean_flow", ema=None, seed=0)
    except ValueError as error:
        assert "MeanFlowInterface" in str(error)
        return
    x, calls = sampled(model, 1)
    check_moments(x, laws.MEAN, laws.STD, 0.02)
    assert np.isfinite(array(model.loss(a_batch())["loss"])).all()
