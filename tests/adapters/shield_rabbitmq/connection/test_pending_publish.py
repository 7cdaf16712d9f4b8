"""A publisher's future is a `concurrent.futures.Future` in all but what it costs."""

from __future__ import annotations

import asyncio
from concurrent.futures import ALL_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait

import pytest

from shield_rabbitmq.connection.pending_publish import Confirm


def test_it_has_the_state_of_the_standard_one():
    """Another Python that adds to it fails here."""
    ours, standard = vars(Confirm()), vars(Future())
    assert ours.keys() == standard.keys()
    ours.pop("_condition"), standard.pop("_condition")
    assert ours == standard


@pytest.mark.parametrize("error", [None, ValueError("no")])
def test_all_who_wait_for_it_are_woken(error):
    """Several threads, each with the result, or the error."""
    future = Confirm()
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(future.exception, 10) for _ in range(4)]
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
        assert [one.result(60) for one in waiting] == [error] * 4


def test_a_wait_that_is_too_short_times_out():
    """And a later one has the result."""
    future = Confirm()
    with pytest.raises(TimeoutError):
        future.result(0.01)
    future.set_result(None)
    assert future.result(0) is None


def test_the_standard_library_waits_for_it():
    """`wait`, `as_completed`, callbacks and `asyncio.wrap_future`."""
    futures = [Confirm() for _ in range(3)]
    called = []
    futures[0].add_done_callback(called.append)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(wait, futures, 10, ALL_COMPLETED)
        for future in futures:
            future.set_result(None)
        assert done.result(60).done == set(futures)
    assert set(as_completed(futures, 10)) == set(futures)
    assert called == [futures[0]]

    async def awaited() -> None:
        future = Confirm()
        asyncio.get_running_loop().call_later(0.01, future.set_result, None)
        await asyncio.wait_for(asyncio.wrap_future(future), 10)

    asyncio.run(awaited())
