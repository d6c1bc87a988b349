"""Counters in Prometheus' text format, version 0.0.4."""

import bisect
import collections

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Histogram:
    """How many values were at most each bound; their sum and number."""

    def __init__(self, bounds):
        self.bounds = sorted(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def add(self, value):
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name):
        below = 0
        for bound, count in zip(
            [*self.bounds, "+Inf"], self.counts, strict=True
        ):
            below += count
            yield f'{name}_bucket{{le="{bound}"}} {below}'
        yield f"{name}_sum {self.sum}"
        yield f"{name}_count {below}"


class Metrics:
    """What the service counts.

    Args:
        sizes: of batches, the bounds of their histogram.
    """

    def __init__(self, sizes):
        self.requests = collections.Counter()
        self.seconds = Histogram(SECONDS)
        self.batch_rows = Histogram(sizes)
        self.padded_rows = 0

    def batch(self, rows, padded):
        self.batch_rows.add(rows)
        self.padded_rows += padded

    def request(self, path, status, seconds):
        """One more request; `status` is 499 where the client left."""
        self.requests[path, status] += 1
        if path == "/sample" and status == 200:
            self.seconds.add(seconds)

    def text(self, gauges):
        """The text; `gauges` are {name: (help, value now)}."""
        name = "keras_flows_requests_total"
        lines = _head(name, "counter", "Requests by path and status.")
        for (path, status), count in sorted(self.requests.items()):
            lines.append(f'{name}{{path="{path}",status="{status}"}} {count}')
        for name, told, histogram in (
            ("request_seconds", "Time of samples' answers.", self.seconds),
            ("batch_rows", "Rows of a batch, unpadded.", self.batch_rows),
        ):
            name = f"keras_flows_{name}"
            lines += _head(name, "histogram", told)
            lines += histogram.lines(name)
        name = "keras_flows_padded_rows_total"
        lines += _head(name, "counter", "Rows that filled batches.")
        lines.append(f"{name} {self.padded_rows}")
        for name, (told, value) in gauges.items():
            name = f"keras_flows_{name}"
            lines += [*_head(name, "gauge", told), f"{name} {value}"]
        return "\n".join(lines) + "\n"


def _head(name, kind, told):
    return [f"# HELP {name} {told}", f"# TYPE {name} {kind}"]
