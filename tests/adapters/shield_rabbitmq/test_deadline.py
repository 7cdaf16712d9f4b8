"""A message's expiration is its deadline."""

from __future__ import annotations

import pytest
from pika import BasicProperties

import shield
from shield import Shield, hookimpl
from shield.testing import AdmitNothing, ManualClock
from shield_rabbitmq import Publisher


class Deadlines:
    """Notes the deadline of each message offered."""

    def __init__(self):
        self.seen = []

    @hookimpl
    def shield_before_publish(self, message):
        self.seen.append(message.deadline)


@pytest.mark.parametrize(
    ("expiration", "deadline"),
    [("60000", 1_060.0), (None, None), ("0", None), ("soon", None), ("-5", None), ("²", None)],
)
def test_expiration_is_a_deadline_in_milliseconds_from_now(expiration, deadline):
    """0 is a way of routing, and what the broker will refuse is left to it."""
    deadlines = Deadlines()
    rule = {"match": "*", "admit_nothing": {}, "over_limit": "drop"}
    chosen = Shield({"rules": [rule]}, plugins=[AdmitNothing, deadlines], clock=ManualClock())
    publisher = Publisher("amqp://nowhere.invalid", shield=chosen)
    future = publisher.publish("", "orders", b"1", BasicProperties(expiration=expiration))
    assert shield.fate(future) == "dropped"
    assert deadlines.seen == [deadline]
    publisher.close(0)
