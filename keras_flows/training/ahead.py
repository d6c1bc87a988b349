"""Reading the next batches in a thread, while a step runs."""

import queue
import threading
import time

_SIZE = 2
# Seconds that a batch must take for a thread to be worth its switches.
_SLOW = 1e-3


class _Failed:
    def __init__(self, error):
        self.error = error


def read_ahead(batches):
    """The same batches, up to two of them read before they are asked for.

    Where the first four come at once, nothing is read ahead: a thread would
    take longer than they do.

    Args:
        batches: an iterator that loses nothing where it is left early.
    """
    batches, fastest = iter(batches), float("inf")
    for _ in range(4):
        start = time.perf_counter()
        batch = next(batches, None)
        fastest = min(fastest, time.perf_counter() - start)
        if batch is None:
            return
        yield batch
    yield from _in_a_thread(batches) if fastest > _SLOW else batches


def _in_a_thread(batches):
    ready, left = queue.Queue(_SIZE), threading.Event()
    end = object()

    def put(item):
        while not left.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def read():
        try:
            for batch in batches:
                put(batch)
                if left.is_set():
                    return
            put(end)
        except BaseException as error:
            put(_Failed(error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if item is end:
                return
            if isinstance(item, _Failed):
                raise item.error
            yield item
    finally:
        left.set()
