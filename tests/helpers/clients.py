"""Many clients of one service at once, the unwelcome ones among them."""

import asyncio
import collections
import json
import time

from helpers.services import post_head


async def ask(port, body, seconds=60.0):
    """(status, seconds) of one POST; status None without an answer."""
    start = time.perf_counter()
    status = None
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(post_head(len(body)).encode() + body)
            first = await reader.readline()
            if first:
                status = int(first.split()[1])
            await reader.read()
            writer.close()
    except OSError:
        pass
    return status, time.perf_counter() - start


async def half(port, size, seconds):
    """(status, seconds) of a body of which only a half comes."""
    start = time.perf_counter()
    status = None
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(post_head(size).encode() + b"[" * (size // 2))
            first = await reader.readline()
            if first:
                status = int(first.split()[1])
            writer.close()
    except OSError:
        pass
    return status, time.perf_counter() - start


async def leave(port, body):
    """Ask, and go after a moment without the answer."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(post_head(len(body)).encode() + body)
    await writer.drain()
    await asyncio.sleep(0.01)
    writer.close()


async def visit(port, *, slow, requests, at_once, leaving, size, seconds, pid):
    """Figures of a service that all of them visit together.

    Args:
        port: of the service.
        slow: how many clients send half a body of `size` bytes and wait for
            at most `seconds`.
        requests, at_once: how many ask for a sample, and how many together.
        leaving: how many ask for many samples and leave.
        pid: of the service's process, for its memory in MB.
    """
    start = memory(pid)
    peak = [start]
    ended = asyncio.Event()

    async def watch():
        while not ended.is_set():
            peak[0] = max(peak[0], memory(pid))
            await asyncio.sleep(0.1)

    watching = asyncio.create_task(watch())
    halves = [
        asyncio.create_task(half(port, size, seconds)) for _ in range(slow)
    ]
    await asyncio.sleep(0.2)
    many = json.dumps({"num_samples": 64}).encode()
    leavers = [asyncio.create_task(leave(port, many)) for _ in range(leaving)]
    turns = asyncio.Semaphore(at_once)

    async def one(seed):
        async with turns:
            body = json.dumps({"num_samples": 1, "seed": seed}).encode()
            return await ask(port, body)

    began = time.perf_counter()
    answers = await asyncio.gather(*map(one, range(requests)))
    took = time.perf_counter() - began
    await asyncio.gather(*leavers)
    held = await asyncio.gather(*halves)
    ended.set()
    await watching
    times = sorted(t for status, t in answers if status == 200)
    statuses = collections.Counter(status for status, _ in answers)
    return {
        "answers": dict(statuses),
        "p50_ms": round(1e3 * times[len(times) // 2], 1) if times else None,
        "p99_ms": round(1e3 * times[int(0.99 * len(times))], 1)
        if times
        else None,
        "requests_per_second": round(requests / took, 1),
        "slow_bodies": dict(collections.Counter(s for s, _ in held)),
        "slowest_body_s": round(max(t for _, t in held), 2),
        "rss_mb": {"start": start, "peak": peak[0], "end": memory(pid)},
    }


def memory(pid):
    """Resident memory of a process in MB."""
    with open(f"/proc/{pid}/status") as file:
        (line,) = [line for line in file if line.startswith("VmRSS")]
    return int(line.split()[1]) >> 10
