"""A BlockingChannel whose caller waits for longer than its heartbeats keeps its connection."""

from __future__ import annotations

import threading
import time

import pika
import pytest

from integration.queues import Queues
from shield import Action, Shield, action, hookimpl
from shield_rabbitmq import BlockingConnection
from tests.eventually import eventually

pytestmark = pytest.mark.alone

HEARTBEAT_S = 2
WAIT_S = 8
ONE = {"rate": "8/m", "burst": 1}  # the next after 7.5 s


class Slow(Action):
    """Accepts a message after so long, as a slow disk does."""

    directions = frozenset({"publish"})
    sets_aside = True

    def step(self, over):
        return action.Keep("spooled", self._keep)

    def _keep(self, kept):
        threading.Timer(WAIT_S, kept.stored).start()


class SlowPlugin:
    @hookimpl
    def shield_actions(self):
        return {"slow": Slow}


@pytest.fixture
def queue(rabbitmq):
    with Queues(rabbitmq.address) as queues:
        yield queues.queue()


@pytest.fixture
def connect(rabbitmq):
    """Connect, with a short heartbeat, under a rule."""
    opened = []

    def make(queue, rule, plugins=()):
        own = Shield({"rules": [{"match": queue, **rule}]}, plugins=plugins)
        parameters = pika.URLParameters(f"{rabbitmq.address}?heartbeat={HEARTBEAT_S}")
        opened.append(BlockingConnection(parameters, shield=own))
        return opened[-1], own

    yield make
    for connection in opened:
        if connection.is_open:
            connection.close()


def publish_two(connection, queue, *, confirms):
    """Publish one, and another that is kept waiting; the connection is alive afterwards."""
    channel = connection.channel()
    if confirms:
        channel.confirm_delivery()
    channel.basic_publish("", queue, b"1")
    started = time.monotonic()
    channel.basic_publish("", queue, b"2")
    assert time.monotonic() - started > 2.5 * HEARTBEAT_S
    return channel


def depth(channel, queue):
    return channel.queue_declare(queue, passive=True).method.message_count


@pytest.mark.parametrize("confirms", [False, True])
def test_while_it_waits_for_its_quota(connect, queue, confirms):
    """Heartbeats are answered; the messages arrive."""
    connection, own = connect(queue, {"quota": ONE, "over_limit": ["wait 20s", "raise"]})
    channel = publish_two(connection, queue, confirms=confirms)
    eventually(lambda: depth(channel, queue) == 2)
    assert own.ledger().delivered == 2


def test_while_it_pauses_before_it_tries_again(connect, queue):
    """The pause of a retry is as long as the quota asks for."""
    rule = {"quota": ONE, "over_limit": ["retry 3", "raise"]}
    connection, _ = connect(queue, rule)
    channel = publish_two(connection, queue, confirms=False)
    eventually(lambda: depth(channel, queue) == 2)


def test_while_it_is_set_aside_slowly(connect, queue):
    """It waits until the message is safe, as with a disk that is slow."""
    rule = {"quota": {"rate": "1/h", "burst": 1}, "over_limit": ["slow", "raise"]}
    connection, own = connect(queue, rule, [SlowPlugin()])
    channel = publish_two(connection, queue, confirms=False)
    eventually(lambda: depth(channel, queue) == 1)
    assert own.ledger().spooled == 1


def test_users_callbacks_are_not_called_in_the_middle_of_a_publish(connect, queue, rabbitmq):
    """What comes meanwhile is handed over afterwards, where pika would."""
    connection, _ = connect(queue, {"quota": ONE, "over_limit": ["wait 20s", "raise"]})
    channel = connection.channel()
    inside, seen = [True], []
    with Queues(rabbitmq.address) as queues:
        other = queues.queue()
        channel.basic_consume(other, lambda *_: seen.append(inside[0]), auto_ack=True)
        connection.call_later(0.5, lambda: seen.append(inside[0]))
        channel.basic_publish("", queue, b"1")
        threading.Timer(
            1,
            connection.add_callback_threadsafe,
            [lambda: channel.basic_publish("", other, b"x")],
        ).start()
        queues.channel.basic_publish("", other, b"x")
        channel.basic_publish("", queue, b"2")
        inside[0] = False
        connection.process_data_events(2)
    assert len(seen) >= 2
    assert not any(seen)
