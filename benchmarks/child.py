"""One measurement in a process of its own: see `benchmarks.suites.fresh`."""

import json
import os
import resource
import sys
import time


def first_step(kind, network, batch_size, seed, folder):
    import keras_flows as kf
    from benchmarks.cases import Case

    if folder:
        kf.training.compilation_cache(folder)
    case = Case(network, int(batch_size) or None, int(seed))
    run = runs(case, kind)
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def memory(kind, network, batch_size, seed, folder):
    from benchmarks.cases import Case

    options = {"remat": True} if kind == "remat" else {}
    case = Case(network, int(batch_size) or None, int(seed), **options)
    before = peak()
    run = runs(case, kind)
    run()
    run()
    return peak() - before


def runs(case, kind):
    if kind == "by hand":
        return case.loop(case.by_hand(), 1)
    return case.fit(case.model(ema=0.999 if kind == "average" else None), 1)


def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def imported(what):
    start = time.perf_counter()
    if what == "keras":
        import keras  # noqa: F401
    else:
        import keras_flows as kf
    if what == "sample":
        kf.Interface.from_preset("lsd_checkerboard").generate(4, seed=0)
    return time.perf_counter() - start


MEASURES = {"first_step": first_step, "memory": memory, "import": imported}

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    found = MEASURES[sys.argv[1]](*sys.argv[2:])
    print("MEASURED" + json.dumps(found))
