"""Load on a running service: how long requests take.

    python -m keras_flows.serving.load --url=http://127.0.0.1:8000

Prints a line of JSON: answers, failures, p50 and p99 in milliseconds, requests
a second.
"""

import argparse
import concurrent.futures
import json
import time
import urllib.request


def ask(url, body):
    """(milliseconds, answer) of one POST /sample."""
    request = urllib.request.Request(
        f"{url}/sample",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    start = time.perf_counter()
    with urllib.request.urlopen(request, timeout=120) as answer:
        content = json.load(answer)
    return 1e3 * (time.perf_counter() - start), content


def load(url, requests, concurrency, body):
    """Send requests, many at once, each with a seed of its own."""
    times, failures = [], []

    def one(seed):
        try:
            times.append(ask(url, {**body, "seed": seed})[0])
        except OSError as error:
            failures.append(repr(error))

    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(one, range(requests)))
    seconds = time.perf_counter() - start
    times.sort()

    def percentile(share):
        return times[min(len(times) - 1, int(share * len(times)))]

    return {
        "answers": len(times),
        "failures": failures[:3],
        "p50_ms": percentile(0.5) if times else None,
        "p99_ms": percentile(0.99) if times else None,
        "requests_per_second": len(times) / seconds,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=200)
    parser.add_argument("--body", type=json.loads, default={"num_samples": 1})
    flags = parser.parse_args()
    print(
        json.dumps(
            load(flags.url, flags.requests, flags.concurrency, flags.body)
        )
    )


if __name__ == "__main__":
    main()
