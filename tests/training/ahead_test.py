"""Reading batches ahead of the step."""

import threading
import time

import pytest

from keras_flows.training.ahead import read_ahead

pytestmark = pytest.mark.once


def batches(seconds, until=20, error=None):
    for i in range(until):
        if seconds:
            time.sleep(seconds)
        yield i, threading.current_thread()
    if error is not None:
        raise error


@pytest.mark.parametrize("seconds, ahead", [(0.0, False), (0.003, True)])
def test_slow_batches_alone_are_read_in_a_thread(seconds, ahead):
    found = list(read_ahead(batches(seconds)))
    assert [i for i, _ in found] == list(range(20))
    here = [thread is threading.current_thread() for _, thread in found]
    assert all(here[:4]) and all(here[4:]) is not ahead


def test_an_error_comes_out_where_the_batches_end():
    found = []
    with pytest.raises(ValueError, match="no more"):
        for batch in read_ahead(batches(0.003, 6, ValueError("no more"))):
            found.append(batch)
    assert len(found) == 6


def test_the_thread_ends_when_it_is_left():
    reader = read_ahead(batches(0.003, 10_000))
    _, thread = [next(reader) for _ in range(6)][-1]
    assert thread.is_alive()
    reader.close()
    thread.join(5.0)
    assert not thread.is_alive()
