"""What waits too long in a consumer's hand-over, partition by partition; no broker, no waiting."""

from __future__ import annotations

import pytest

from shield_kafka.consuming.partition import LOOK_AT_LATE_S
from tests.adapters.shield_kafka.consuming.fetching import Fetching
from tests.making import counts, shield_with

LATE = {"target": "500ms", "interval": "1s", "longest": "1s"}
PACE = {"rate": "10/s", "burst": 10}


def late(*partitions: int, end: str = "drop", **more) -> Fetching:
    """A consumer that fetches a hundred of each partition, of which ten a second are admitted."""
    given = {"quota": PACE, "queue_delay": LATE, "over_limit": ["wait", end], **more}
    fetching = Fetching(
        shield_with({"name": "in", "match": "*", "direction": "consume", **given}), *partitions
    )
    fetching.fetch = 100
    return fetching


def run(fetching: Fetching, seconds: float, every_s: float = LOOK_AT_LATE_S) -> list[int]:
    """Poll for so long; return what was handed over of the first partition."""
    found = []
    for _ in range(round(seconds / every_s)):
        fetching.shield.clock.advance(every_s)
        found += fetching.poll().get(0, [])
    return found


def test_what_has_waited_too_long_is_dropped_from_the_head():
    """The oldest, in order; what was handed over before is in order, too, and then the next."""
    fetching = late()
    assert fetching.poll() == {0: list(range(10))}
    assert run(fetching, 1.9) == list(range(10, 29))
    assert counts(fetching.shield.ledger()) == {"offered": 30, "in_flight": 30}
    handed = run(fetching, 0.3)
    assert fetching.position() >= 100
    assert handed[-1] >= 100
    ledger = fetching.shield.ledger()
    assert ledger.drops == {("in", "queue_delay", "queue delay"): ledger.dropped}
    assert ledger.dropped + len(fetching.handed[0]) == fetching.position()


def test_a_queue_that_empties_in_time_is_left_alone():
    """A burst that is handed over within the target is what a queue is for."""
    fetching = late(quota={"rate": "300/s", "burst": 10})
    fetching.poll()
    run(fetching, 5.0)
    assert fetching.shield.ledger().dropped == 0
    assert fetching.handed[0] == list(range(len(fetching.handed[0])))
    assert len(fetching.handed[0]) > 1000


def test_nothing_is_passed_before_it_is_confirmed_elsewhere():
    """The position stays at the first that is on its way."""
    fetching = late(end="overflow late")
    fetching.poll()
    run(fetching, 2.2)
    sent = fetching.sends.offsets
    assert sent == list(range(sent[0], 100))
    assert fetching.position() == sent[0]
    fetching.sends.end()
    fetching.poll()
    assert fetching.position() >= 100
    assert fetching.shield.ledger().overflowed == len(sent)


def test_who_polls_seldom_sees_it_too():
    """What has waited for an interval longer than the target needs no one to look meanwhile."""
    fetching = late()
    fetching.poll()
    assert run(fetching, 10.0, every_s=10.0) == []
    assert fetching.shield.ledger().dropped == 90
    assert fetching.poll() == {0: list(range(100, 110))}


def test_what_its_user_has_paused_does_not_wait_for_the_rules():
    """Its time counts from when he resumes it."""
    fetching = late()
    fetching.poll()
    fetching.state().paused = True
    assert run(fetching, 60.0, every_s=1.0) == []
    fetching.state().paused = False
    assert run(fetching, 0.4)[:10] == list(range(10, 20))
    assert fetching.shield.ledger().dropped == 0


def test_each_partition_is_a_queue_of_its_own():
    """One that goes on does not hide that another stands."""
    fetching = late(0, 1)
    fetching.poll()
    fetching.state(1).paused = True
    run(fetching, 2.2)
    assert fetching.position(0) >= 100
    assert fetching.position(1) == 0


def test_it_looks_often_enough_while_the_quota_is_far_away():
    """A poll without end must come back to see how long they wait."""
    fetching = late(quota={"rate": "1/h", "burst": 1})
    fetching.poll()
    assert fetching.hand_over.wait_s() == pytest.approx(LOOK_AT_LATE_S)


def test_in_shadow_it_counts_what_is_handed_over_too_late():
    """And hands over all of it."""
    pace = {"match": "*", "direction": "consume", "quota": PACE}
    shadow = {"name": "s", "match": "*", "direction": "consume", "mode": "shadow"}
    shadow |= {"queue_delay": LATE, "over_limit": "drop"}
    fetching = Fetching(shield_with(pace, shadow))
    fetching.fetch = 100
    fetching.poll()
    handed = run(fetching, 5.0)
    assert handed == list(range(10, 60))
    ledger = fetching.shield.ledger()
    assert ledger.dropped == 0
    assert 20 < ledger.over_limit["s", "queue_delay", "queue delay"] < 45
