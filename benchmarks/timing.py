"""Times that compare: interleaved, of one process, medians and spread."""

import time

import numpy as np


def interleaved(runs, rounds, base, steps=1, clock=time.perf_counter):
    """Milliseconds of a step of each of some functions.

    A B A B ..., so that a busy machine slows all alike; the ratio is of each
    round to `base` in the same round. CPU time is that of all threads of the
    process.

    Args:
        runs: {name: function}, each of `steps` steps, which end before it
            returns.
        rounds: int.
        base: the name that ratios are taken to.
        steps: steps of one call.
        clock: function to seconds.

    Returns:
        {name: row}, see `rows`.
    """
    times = {name: [] for name in runs}
    cpu = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start, busy = clock(), time.process_time()
            run()
            times[name].append(1e3 * (clock() - start) / steps)
            cpu[name].append(1e3 * (time.process_time() - busy) / steps)
    found = rows(times, base)
    for name, row in rows(cpu, base).items():
        found[name]["cpu_milliseconds"] = row["milliseconds"]
        found[name]["cpu_ratio"] = row["ratio"]
    return found


def rows(values, base, unit="milliseconds"):
    """{name: {unit, "spread", "ratio"}} of {name: a value for each round}.

    Medians; the spread is the quartiles.
    """
    whole = np.array(values[base])
    found = {}
    for name, measured in values.items():
        measured = np.array(measured)
        low, high = np.quantile(measured, (0.25, 0.75))
        found[name] = {
            unit: float(np.median(measured)),
            "spread": [float(low), float(high)],
            "ratio": float(np.median(measured / whole)),
        }
    return found
