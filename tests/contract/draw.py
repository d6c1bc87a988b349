"""Draws calls with Hypothesis, and runs them all."""

import re

import hypothesis
from contract import calls
from contract import world
from contract.surface import methods
from contract.surface import models
from contract.surface import parts
from contract.surface import rest

TARGETS = models.TARGETS + methods.TARGETS + parts.TARGETS + rest.TARGETS


def outcomes(count, seed, only=""):
    """Yields the `Outcome`s of `count` calls; one seed draws the same."""
    space = world.space()
    targets = [t for t in TARGETS if re.search(only, t.call)]
    for target, changed in drawn(targets, count, seed):
        yield calls.outcome(target, changed, space)


def drawn(targets, count, seed):
    """`count` different cases, see `calls.cases`."""
    found = {}
    for turn in range(20):

        @hypothesis.seed(seed + 1000 * turn)
        @hypothesis.settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(calls.cases(targets))
        def each(case):
            target, changed = case
            found.setdefault(target.text(changed), case)

        each()
        if len(found) >= count:
            break
    return list(found.values())[:count]
