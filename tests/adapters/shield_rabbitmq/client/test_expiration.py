"""A message's expiration is its deadline, through a publisher and through a channel."""

from __future__ import annotations

import pytest
from pika import BasicProperties

import shield
from shield import Shield, hookimpl
from shield.testing import AdmitNothing, ManualClock
from shield_rabbitmq import Publisher, shielded
from tests.adapters.shield_rabbitmq.wire import Wire

EXPIRATIONS = pytest.mark.parametrize(
    ("expiration", "deadline"),
    [("60000", 1_060.0), (None, None), ("0", None), ("+5000", None)],
)


class Deadlines:
    """Notes the deadline of each message offered."""

    def __init__(self):
        self.seen = []

    @hookimpl
    def shield_before_publish(self, message):
        self.seen.append(message.deadline)


@pytest.fixture
def deadlines():
    return Deadlines()


@pytest.fixture
def dropping(deadlines):
    """A Shield that drops all that it is offered."""
    rule = {"match": "*", "admit_nothing": {}, "over_limit": "drop"}
    return Shield({"rules": [rule]}, plugins=[AdmitNothing, deadlines], clock=ManualClock())


@EXPIRATIONS
def test_a_publishers_expiration_is_a_deadline(dropping, deadlines, expiration, deadline):
    """Milliseconds from now; 0 is a way of routing, and a sign is the broker's to read."""
    publisher = Publisher("amqp://nowhere.invalid", shield=dropping)
    future = publisher.publish("", "orders", b"1", BasicProperties(expiration=expiration))
    assert shield.fate(future) == "dropped"
    assert deadlines.seen == [deadline]
    publisher.close(0)


@EXPIRATIONS
@pytest.mark.parametrize("body", [b"1", "1"], ids=["plain", "with care"])
def test_a_channels_expiration_is_a_deadline(dropping, deadlines, expiration, deadline, body):
    """The same, whichever way the channel takes."""
    channel = shielded(Wire().channel(), shield=dropping)
    channel.basic_publish("", "orders", body, BasicProperties(expiration=expiration))
    assert deadlines.seen == [deadline]
