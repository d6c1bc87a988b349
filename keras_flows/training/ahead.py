"""Reading the next batches in a thread, while a step runs."""

import queue
import threading

_SIZE = 2


class _Failed:
    def __init__(self, error):
        self.error = error


def read_ahead(batches):
    """The same batches, up to two of them read before they are asked for.

    Args:
        batches: an iterable that loses nothing where it is left early.
    """
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
