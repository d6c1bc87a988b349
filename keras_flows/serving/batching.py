"""Micro-batching: requests that come together are sampled together.

Batches are padded to a few static sizes, so that nothing compiles anew.
"""

import asyncio
import collections
import concurrent.futures
import contextlib
import dataclasses
import logging
import typing

import numpy as np

log = logging.getLogger(__name__)


class Overloaded(Exception):
    """More rows wait than the service is allowed to keep."""


@dataclasses.dataclass(eq=False)
class Job:
    """Some rows of one request."""

    key: typing.Hashable
    inputs: dict
    rows: int
    since: float
    done: asyncio.Future


class Batcher:
    """Collects rows up to the largest size, or for some milliseconds.

    Args:
        run: function of ({name: array}, *key) to an array with as many rows;
            runs in a thread of its own, one call at a time.
        sizes: the numbers of rows that `run` is called with.
        wait_ms: how long the first row of a batch waits for others.
        max_waiting: how many rows may wait.
        seen: function of (rows, padded rows) of each batch.
    """

    def __init__(self, run, sizes, wait_ms, max_waiting, seen):
        self.run = run
        self.sizes = sorted(sizes)
        self.wait = wait_ms / 1000.0
        self.max_waiting = max_waiting
        self.seen = seen
        self.waiting = collections.deque()
        self.waiting_rows = 0
        self.arrived = asyncio.Event()
        self.thread = concurrent.futures.ThreadPoolExecutor(1, "sampling")

    async def submit(self, key, inputs, whole=False):
        """The rows of `run(inputs, *key)`.

        Where the caller is cancelled its rows that wait are dropped.

        Args:
            key: what the rows of one batch have in common.
            inputs: {name: array}.
            whole: whether one call must see all rows, above the largest size
                too: it is then padded to a multiple of that.

        Raises:
            Overloaded: if too many rows wait already.
        """
        rows = len(next(iter(inputs.values())))
        if rows + self.waiting_rows > self.max_waiting:
            raise Overloaded
        loop = asyncio.get_running_loop()
        most = rows if whole else self.sizes[-1]
        jobs = []
        for start in range(0, rows, most):
            part = {k: v[start : start + most] for k, v in inputs.items()}
            size = min(most, rows - start)
            jobs.append(Job(key, part, size, loop.time(), loop.create_future()))
        self.waiting.extend(jobs)
        self.waiting_rows += rows
        self.arrived.set()
        try:
            return np.concatenate(await asyncio.gather(*(j.done for j in jobs)))
        finally:
            for job in jobs:
                job.done.cancel()
                if job in self.waiting:
                    self._drop(job)

    async def work(self):
        """Answer jobs until cancelled."""
        while True:
            while not self.waiting:
                await self._more(None)
            first = self.waiting[0]
            deadline = first.since + self.wait
            loop = asyncio.get_running_loop()
            while self._ready(first.key) < self.sizes[-1]:
                left = deadline - loop.time()
                if left <= 0:
                    break
                await self._more(left)
            # Its client may have left meanwhile, and others with it.
            await self._answer(first.key, self._take(first.key))

    def close(self):
        """Start no further call; one that runs is not waited for."""
        self.thread.shutdown(wait=False, cancel_futures=True)

    async def _more(self, timeout):
        """Wait until a job comes, or for some seconds."""
        self.arrived.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.arrived.wait(), timeout)

    def _ready(self, key):
        return sum(job.rows for job in self.waiting if job.key == key)

    def _drop(self, job):
        self.waiting.remove(job)
        self.waiting_rows -= job.rows

    def _take(self, key):
        """The jobs of a key, in order, that fit one batch; at least one."""
        taken, rows = [], 0
        for job in list(self.waiting):
            if job.key != key:
                continue
            if taken and rows + job.rows > self.sizes[-1]:
                break
            taken.append(job)
            rows += job.rows
            self._drop(job)
        return taken

    async def _answer(self, key, jobs):
        if not jobs:
            return
        try:
            outputs = await self._outputs(key, jobs)
        except Exception as error:
            log.error("a batch failed: %r", error)
            for job in jobs:
                if not job.done.done():
                    job.done.set_exception(error)
            return
        start = 0
        for job in jobs:
            if not job.done.done():
                job.done.set_result(outputs[start : start + job.rows])
            start += job.rows

    async def _outputs(self, key, jobs):
        rows = sum(job.rows for job in jobs)
        largest = self.sizes[-1]
        above = -(-rows // largest) * largest
        size = next((s for s in self.sizes if s >= rows), above)
        inputs = {}
        for name in jobs[0].inputs:
            joined = np.concatenate([job.inputs[name] for job in jobs])
            filling = np.repeat(joined[-1:], size - rows, axis=0)
            inputs[name] = np.concatenate([joined, filling])
        self.seen(rows, size - rows)
        loop = asyncio.get_running_loop()
        outputs = await loop.run_in_executor(
            self.thread, lambda: self.run(inputs, *key)
        )
        if len(outputs) != size:
            raise RuntimeError(f"{len(outputs)} samples of {size} rows")
        return outputs
