"""Micro-batching: requests that come together are sampled together.

Batches are padded to a few static sizes, so that nothing compiles anew.
"""

import asyncio
import collections
import contextlib
import dataclasses
import typing

import numpy as np


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
            runs in a thread, one call at a time.
        sizes: the numbers of rows that `run` is called with.
        wait_ms: how long the first row of a batch waits for others.
        max_waiting: how many rows may wait.
    """

    def __init__(self, run, sizes, wait_ms, max_waiting):
        self.run = run
        self.sizes = sorted(sizes)
        self.wait = wait_ms / 1000.0
        self.max_waiting = max_waiting
        self.waiting = collections.deque()
        self.arrived = asyncio.Event()
        self.batches = self.rows = self.padded = 0

    async def submit(self, key, inputs):
        """The rows of `run(inputs, *key)`.

        Raises:
            Overloaded: if too many rows wait already.
        """
        rows = len(next(iter(inputs.values())))
        if rows + sum(job.rows for job in self.waiting) > self.max_waiting:
            raise Overloaded
        loop = asyncio.get_running_loop()
        largest = self.sizes[-1]
        jobs = []
        for start in range(0, rows, largest):
            part = {k: v[start : start + largest] for k, v in inputs.items()}
            size = min(largest, rows - start)
            jobs.append(Job(key, part, size, loop.time(), loop.create_future()))
        self.waiting.extend(jobs)
        self.arrived.set()
        return np.concatenate(await asyncio.gather(*(j.done for j in jobs)))

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
            await self._answer(first.key, self._take(first.key))

    async def _more(self, timeout):
        """Wait until a job comes, or for some seconds."""
        self.arrived.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.arrived.wait(), timeout)

    def _ready(self, key):
        return sum(job.rows for job in self.waiting if job.key == key)

    def _take(self, key):
        """The jobs of a key, in order, that fit one batch."""
        taken, rows = [], 0
        for job in list(self.waiting):
            if job.key != key:
                continue
            if rows + job.rows > self.sizes[-1]:
                break
            taken.append(job)
            rows += job.rows
            self.waiting.remove(job)
        return taken

    async def _answer(self, key, jobs):
        # A client that has gone needs no answer.
        jobs = [job for job in jobs if not job.done.cancelled()]
        if not jobs:
            return
        rows = sum(job.rows for job in jobs)
        size = next(s for s in self.sizes if s >= rows)
        inputs = {}
        for name in jobs[0].inputs:
            joined = np.concatenate([job.inputs[name] for job in jobs])
            filling = np.repeat(joined[-1:], size - rows, axis=0)
            inputs[name] = np.concatenate([joined, filling])
        self.batches += 1
        self.rows += rows
        self.padded += size - rows
        try:
            output = await asyncio.to_thread(self.run, inputs, *key)
        except Exception as error:
            for job in jobs:
                if not job.done.done():
                    job.done.set_exception(error)
            return
        start = 0
        for job in jobs:
            if not job.done.done():
                job.done.set_result(output[start : start + job.rows])
            start += job.rows
