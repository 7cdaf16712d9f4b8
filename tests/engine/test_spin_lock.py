"""A lock whose waiters give way instead of sleeping on it."""

from __future__ import annotations

import threading

from shield.engine.spin_lock import YIELDS, SpinLock


def test_one_at_a_time():
    """Whatever many threads do to the same number, each of them counts."""
    lock, total = SpinLock(), [0]

    def add():
        for _ in range(5_000):
            with lock:
                before = total[0]
                total[0] = before + 1

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total == [40_000]


def test_who_insists_gets_it_when_it_is_free():
    """However long that takes: it ends up asleep on it."""
    lock, entered, found = SpinLock(), threading.Event(), []

    def want():
        found.append(lock.acquire(blocking=False))
        found.append(lock.acquire(timeout=0.01))
        lock.insist()
        entered.set()
        lock.release()

    with lock:
        waiting = threading.Thread(target=want)
        waiting.start()
        assert not entered.wait(0.05)
    assert entered.wait(60)
    waiting.join()
    assert found == [False, False]
    assert YIELDS > 0


def test_its_owner_may_take_it_again_and_others_only_when_it_has_let_go_as_often():
    """A signal's handler that publishes finds it taken by the code that it has interrupted."""
    lock, found = SpinLock(), []

    def try_it():
        thread = threading.Thread(target=lambda: found.append(lock.acquire(blocking=False)))
        thread.start()
        thread.join()

    with lock:
        with lock:
            try_it()
        try_it()
    try_it()
    assert found == [False, False, True]


def test_a_condition_can_be_built_on_it():
    """Who waits lets go of it; who is woken has it again."""
    lock = SpinLock()
    condition = threading.Condition(lock)
    arrived = []

    def wait():
        with condition:
            condition.wait_for(lambda: arrived, 5)
            arrived.append("woken")

    thread = threading.Thread(target=wait)
    thread.start()
    with condition:
        arrived.append("sent")
        condition.notify_all()
    thread.join()
    assert arrived == ["sent", "woken"]
    with condition:
        assert not condition.wait(0.01)
