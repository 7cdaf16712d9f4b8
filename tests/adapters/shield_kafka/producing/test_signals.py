"""What an answered produce request tells policies."""

from __future__ import annotations

import pytest

from shield import SettingsError, Signals
from shield_kafka.client.internals import Produced, Queued
from shield_kafka.producing.signals import hear, look


def test_an_answer_is_noted_and_who_waits_asks_again():
    """The latency on the wire, the time in the queue, the throttle time, the requests left."""
    changes = []
    signals = Signals(lambda: 1_000.0, lambda: changes.append(1))
    assert (signals.queue_s, signals.throttle_s, signals.requests) == (None, None, None)
    hear(signals, Produced(latency_s=0.02, queue_s=0.5, throttle_s=1.5, requests=4))
    assert signals.latency.recent == pytest.approx(0.02)
    assert (signals.queue_s, signals.throttle_s, signals.requests) == (0.5, 1.5, 4)
    assert signals.throttled_until == pytest.approx(signals.now() + 1.5, abs=0.5)
    assert changes == [1]


def test_a_look_is_noted_and_who_waits_asks_again():
    """What is on the wire, and since when the oldest of what is not waits, by Shield's clock."""
    changes = []
    signals = Signals(lambda: 1_000.0, lambda: changes.append(1))
    look(signals, Queued(requests=3, waits_s=2.5))
    assert (signals.requests, signals.waits_since) == (3, 997.5)
    look(signals, Queued(requests=0, waits_s=None))
    assert (signals.requests, signals.waits_since) == (0, None)
    assert changes == [1, 1]


NEVER_TOLD = [
    {"nacks": {"above": "5%"}},
    {"returns": {"above": "5%"}},
    {"blocked": "over_limit"},
    {"confirm_window": {}},
    {"confirm_latency": {}},
    {"client_queue": {"messages": 5}},
]


@pytest.mark.parametrize("policy", NEVER_TOLD, ids=lambda policy: next(iter(policy)))
def test_a_rule_that_goes_by_what_kafka_never_tells_is_an_error(producers, topic, policy):
    """At the first message it covers: protection that never acts is none."""
    producer = producers([{"name": "kept", "match": topic, **policy}])
    for headers in (None, [("h", b"1")]):
        with pytest.raises(SettingsError, match=r"rule 'kept': .* never tells"):
            producer.send(topic, b"v", headers=headers)
    assert producer.shield.ledger().offered == 0
    assert producer.send(f"{topic}-other", b"v").get(60).offset == 0


def test_one_that_only_looks_on_is_none(producers, topic):
    """A shadow rule promises nothing."""
    producer = producers([{"match": topic, "nacks": "5%", "mode": "shadow"}])
    assert producer.send(topic, b"v").get(60).offset == 0
