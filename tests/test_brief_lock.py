"""A lock whose waiters give way instead of sleeping on it."""

from __future__ import annotations

import threading

from shield.brief_lock import YIELDS, BriefLock


def test_one_at_a_time():
    """Whatever many threads do to the same number, each of them counts."""
    lock, total = BriefLock(), [0]

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
    lock, entered = BriefLock(), threading.Event()
    with lock:
        assert not lock.acquire(blocking=False)
        assert not lock.acquire(timeout=0.01)
        waiting = threading.Thread(target=lambda: (lock.insist(), entered.set()))
        waiting.start()
        assert not entered.wait(0.05)
    assert entered.wait(60)
    waiting.join()
    lock.release()
    assert YIELDS > 0


def test_a_condition_can_be_built_on_it():
    """Who waits lets go of it; who is woken has it again."""
    lock = BriefLock()
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
