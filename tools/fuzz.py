"""Calls the public API with drawn arguments and reports what goes wrong.

    KERAS_BACKEND=torch tools/fuzz.py --calls=2000 --seed=0 --out=faults.txt

A call must give the right shapes and finite values, or raise an error whose
text names an argument; it must end, and leave shared models as they were.
"""

import argparse
import collections
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="pattern of calls")
    parser.add_argument("--out", help="file of what went wrong")
    options = parser.parse_args()

    from contract import draw

    start, found = time.process_time(), []
    for each in draw.outcomes(options.calls, options.seed, options.only):
        found.append(each)
        if each.fault:
            print(f"{each.fault}: {each.call}", flush=True)
        if len(found) % 100 == 0:
            spent = time.process_time() - start
            print(f"{len(found)} calls, {spent:.0f} s of CPU", flush=True)
    seconds = time.process_time() - start
    bad = [each for each in found if each.fault]
    share = 1.0 - len(bad) / max(len(found), 1)
    lines = [
        f"{len(found)} calls, {100 * share:.2f} % good, {seconds:.0f} s of CPU"
    ]
    groups = collections.defaultdict(list)
    for each in bad:
        groups[each.fault].append(each)
    for fault, members in sorted(groups.items(), key=lambda g: -len(g[1])):
        lines += ["", f"== {fault}: {len(members)}"]
        for each in sorted(members, key=lambda e: e.call):
            lines += [f"{each.call}", f"    {each.detail}"[:300]]
    text = "\n".join(lines)
    print(lines[0])
    for fault, members in groups.items():
        print(f"{len(members):5d} {fault}")
    if options.out:
        pathlib.Path(options.out).write_text(text + "\n")
    elif bad:
        print(text)


if __name__ == "__main__":
    main()
