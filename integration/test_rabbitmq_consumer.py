"""RabbitMQ consumers under rules, on a real RabbitMQ: quotas, prefetch, stale messages, faults."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pika
import pytest
from pika import BasicProperties
from pika.exceptions import AMQPError

import shield
from integration.brokers import RabbitMQ
from integration.event_loop import EventLoop
from integration.queues import Queues
from integration.test_transports import amqp_url
from shield import Shield
from shield_rabbitmq import BlockingConnection, SelectConnection, wait_for_message
from tests.contracts.adapter import counts
from tests.eventually import GENEROUS_S, eventually

STALE_S = 1000


@pytest.fixture
def queues(rabbitmq: RabbitMQ) -> Iterator[Queues]:
    with Queues(rabbitmq.address) as queues:
        yield queues


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """A relay ends when the connections that used it are closed, a URL's with its Shield."""
    before = set(threading.enumerate())
    yield
    gc.collect()
    eventually(
        lambda: not [t for t in threading.enumerate() if "shield" in t.name and t not in before]
    )


def settings_of(*rules: dict[str, Any]) -> dict[str, Any]:
    made = [
        {"name": f"in-{n}", "match": "*", "direction": "consume", **r} for n, r in enumerate(rules)
    ]
    return {"shield": {"producer": "worker"}, "rules": made}


def bodies(numbers: Any) -> list[bytes]:
    return [b"%d" % number for number in numbers]


def fill(queues: Queues, queue: str, numbers: Any, stale: Callable[[int], bool] = bool) -> None:
    """Put numbered messages into a queue; those that are stale were published long ago."""
    now = int(time.time())
    for number in numbers:
        timestamp = now - STALE_S if stale(number) else now
        properties = BasicProperties(delivery_mode=2, timestamp=timestamp)
        queues.channel.basic_publish("", queue, b"%d" % number, properties)
    queues.channel.basic_qos()  # the answer comes behind all of it


def none(_number: int) -> bool:
    return False


class Worker:
    """A blocking connection that consumes one queue; `run` serves it until something is so."""

    def __init__(
        self,
        url: str,
        queue: str,
        *rules: dict[str, Any],
        ack: bool = True,
        at: Mapping[int, Callable[[], None]] | None = None,
    ) -> None:
        self.shield = Shield(settings_of(*rules))
        self.connection = BlockingConnection(pika.URLParameters(url), shield=self.shield)
        self.channel = self.connection.channel()
        self.got: list[bytes] = []
        self.tags: list[int] = []
        self._ack = ack
        self._at = at or {}
        """What is to happen when so many have been handed over."""
        self.consumer_tag = self.channel.basic_consume(queue, self._handle)

    def _handle(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self.got.append(body)
        self.tags.append(method.delivery_tag)
        if len(self.got) in self._at:
            self._at[len(self.got)]()
        if self._ack:
            channel.basic_ack(method.delivery_tag)

    def run(self, until: Callable[[], object], within_s: float = GENEROUS_S) -> None:
        deadline = time.monotonic() + within_s
        while not until():
            assert time.monotonic() < deadline, (len(self.got), self.shield.ledger())
            self.connection.process_data_events(0.02)

    def close(self) -> dict[str, int]:
        """Close the connection; return what the ledger counts."""
        if self.connection.is_open:
            self.connection.close()
        return counts(self.shield)


# --- three consumers, one killed ------------------------------------------------------------------


class Process:
    """A consumer in a process of its own, and the notes of what it was handed."""

    def __init__(self, url: str, queue: str, settings: dict[str, Any], notes: Path) -> None:
        self._notes = notes
        command = [sys.executable, "-m", "integration.rabbitmq_worker"]
        arguments = [url, queue, json.dumps(settings), str(notes)]
        self.process = subprocess.Popen(command + arguments, stdout=subprocess.PIPE, text=True)

    @property
    def handed(self) -> list[bytes]:
        return self._notes.read_bytes().split() if self._notes.exists() else []

    def ended(self) -> dict[str, Any]:
        """Ask it to end; return its ledger."""
        self.process.terminate()
        out, _ = self.process.communicate(timeout=150)
        ledger: dict[str, Any] = json.loads(out)
        return ledger


def test_three_consumers_of_which_one_is_killed(rabbitmq, queues, tmp_path):
    """Each message is handed over at least once, but for the stale ones, which are elsewhere.

    In hand is no more than the rule lets be unacknowledged, and the broker pushes no more.
    """
    queue, late = queues.queue(), queues.queue()
    numbers = range(3000)
    fill(queues, queue, numbers, lambda number: number % 10 == 0)
    settings = settings_of(
        {"in_flight": {"messages": 20}, "quota": {"rate": "600/s", "burst": 50}},
        {"max_age": f"{STALE_S // 2}s", "over_limit": f"overflow /{late}"},
    )
    workers = [Process(rabbitmq.address, queue, settings, tmp_path / str(n)) for n in range(3)]
    eventually(lambda: all(len(worker.handed) > 100 for worker in workers))
    pushed = queues.channel.queue_declare(queue, passive=True).method.message_count
    prefetch = rabbitmq.ctl("list_consumers", "queue_name", "prefetch_count")
    assert [line.split()[1] for line in prefetch.splitlines() if line.startswith(queue)] == [
        "20"
    ] * 3
    assert pushed > 0
    os.kill(workers[0].process.pid, signal.SIGKILL)
    workers[0].process.wait()
    workers[0].process.stdout.close()
    fresh = {b"%d" % number for number in numbers if number % 10}
    eventually(lambda: fresh <= {body for worker in workers for body in worker.handed})
    ledgers = [worker.ended() for worker in workers[1:]]
    handed = Counter(body for worker in workers for body in worker.handed)
    set_aside = set(queues.bodies(late))
    assert set(handed) == fresh
    assert sum(handed.values()) - len(handed) <= 20  # those that the killed one had in hand
    assert set_aside == set(bodies(numbers)) - fresh
    assert queues.bodies(queue) == []
    for ledger, worker in zip(ledgers, workers[1:], strict=True):
        assert ledger["balanced"]
        assert ledger["in_flight"] == 0
        assert ledger["delivered"] == len(worker.handed)
        assert ledger["most_in_hand"] <= 20
        assert ledger["offered"] == ledger["delivered"] + ledger["overflowed"] + ledger["failed"]


# --- pace and order -------------------------------------------------------------------------------


def test_a_quota_paces_without_losing_order_or_the_connection(rabbitmq, queues):
    """For longer than two heartbeats, while the broker pushes what it likes."""
    queue = queues.queue()
    fill(queues, queue, range(400), none)
    url = f"{rabbitmq.address}?heartbeat=1"
    worker = Worker(url, queue, {"quota": {"rate": "100/s", "burst": 50}})
    began_s = time.monotonic()
    worker.run(lambda: len(worker.got) == 400)
    assert 3.3 <= time.monotonic() - began_s < 7.0  # charged twice, it takes longer
    assert worker.got == bodies(range(400))
    assert worker.close() == {"offered": 400, "delivered": 400}
    assert queues.depth(queue) == 0


def test_while_a_consumer_is_behind_the_newest_are_handed_over_first(rabbitmq, queues):
    """Older ones have their turn when it has caught up, and none is lost."""
    queue = queues.queue()
    fill(queues, queue, range(10), none)
    late = {"target": "50ms", "interval": "200ms", "longest": "1h"}
    pace = {"quota": {"rate": "10/s", "burst": 1}, "queue_delay": late}
    worker = Worker(rabbitmq.address, queue, {**pace, "over_limit": ["wait", "drop"]})
    worker.run(lambda: worker.shield.status()["in-0"]["queue_delay"]["overloaded"])
    fill(queues, queue, [100], none)
    handed = len(worker.got)
    worker.run(lambda: b"100" in worker.got)
    assert len(worker.got) <= handed + 2
    worker.run(lambda: len(worker.got) == 11)
    assert set(worker.got) == set(bodies([*range(10), 100]))
    assert worker.got != sorted(worker.got, key=int)
    assert worker.close() == {"offered": 11, "delivered": 11}
    assert queues.depth(queue) == 0


def test_a_generator_and_a_get_share_the_quota(rabbitmq, queues):
    """One rule, two channels, both in order."""
    queue = queues.queue()
    fill(queues, queue, range(30), none)
    rules = settings_of({"quota": {"rate": "20/s", "burst": 5}})
    parameters = pika.URLParameters(rabbitmq.address)
    with BlockingConnection(parameters, shield=Shield(rules)) as connection:
        channel, other = connection.channel(), connection.channel()
        got: list[bytes] = []
        for method, _, body in channel.consume(queue):
            got.append(body)
            channel.basic_ack(method.delivery_tag)
            if len(got) == 15:
                break
        channel.cancel()
        assert got == bodies(range(15))
        assert other.basic_get(queue) == (None, None, None)
        method, _, body = wait_for_message(other, queue, timeout_s=5.0)
        assert body == b"15"
        other.basic_nack(method.delivery_tag)
        assert wait_for_message(other, queue, auto_ack=True, timeout_s=5.0)[2] == b"15"
        assert wait_for_message(other, queue, timeout_s=0.0) == (None, None, None)
        assert counts(connection.shield)["delivered"] == 16
    assert queues.bodies(queue) == bodies(range(16, 30))


def test_an_event_loop_is_never_blocked(rabbitmq, queues):
    """Messages come at the rule's pace; acknowledgements and other calls go on meanwhile."""
    queue = queues.queue()
    fill(queues, queue, range(60), none)
    chosen = Shield(
        settings_of({"quota": {"rate": "40/s", "burst": 10}, "in_flight": {"messages": 5}})
    )
    got: list[bytes] = []

    def handle(channel: Any, method: Any, properties: Any, body: bytes) -> None:
        got.append(body)
        channel.connection.ioloop.call_later(
            0.01, lambda: channel.basic_ack(method.delivery_tag, multiple=True)
        )

    loop = EventLoop(lambda *a, **k: SelectConnection(*a, shield=chosen, **k), rabbitmq.address)
    tag = loop.call(loop.channel.basic_consume, queue, handle)
    asked: list[float] = []
    while len(got) < 40:
        began_s = time.monotonic()
        loop.call(lambda: None)
        asked.append(time.monotonic() - began_s)
        assert chosen.ledger().in_flight <= 6
        time.sleep(0.02)
    assert max(asked) < 2.5
    loop.call(loop.channel.basic_cancel, tag)
    time.sleep(0.1)
    loop.close()
    left = queues.bodies(queue)
    assert got + left == bodies(range(60))
    ledger = counts(chosen)
    assert ledger["delivered"] == len(got)
    assert set(ledger) <= {"offered", "delivered", "failed"}


# --- an end while messages are held back ----------------------------------------------------------


@pytest.mark.parametrize("end", ["cancel", "channel", "connection", "cut"])
def test_what_is_held_back_goes_back_in_order(rabbitmq, queues, proxy_to, end):
    """However it ends, and with what was handed over and not acknowledged."""
    queue = queues.queue()
    fill(queues, queue, range(20), none)
    proxy = proxy_to(rabbitmq.address)
    worker = Worker(proxy.url, queue, {"quota": {"rate": "1/h", "burst": 3}}, ack=False)
    worker.run(lambda: len(worker.got) == 3)
    worker.channel.basic_ack(worker.tags[0])
    if end == "cancel":
        assert worker.channel.basic_cancel(worker.consumer_tag) == []
        eventually(lambda: queues.depth(queue) == 17)
        worker.channel.basic_ack(worker.tags[-1], multiple=True)
        assert worker.close() == {"offered": 4, "delivered": 3, "failed": 1}
        assert queues.bodies(queue) == bodies(range(3, 20))
        return
    if end == "channel":
        worker.channel.close()
    elif end == "connection":
        worker.connection.close()
    else:
        worker.channel.basic_qos()  # the acknowledgement is there
        proxy.cut()
        with pytest.raises(AMQPError):
            worker.run(lambda: False)
    assert worker.close() == {"offered": 4, "delivered": 1, "failed": 3}
    eventually(lambda: queues.depth(queue) == 19)
    assert queues.bodies(queue) == bodies(range(1, 20))


def test_two_threads_that_serve_one_connection_are_pikas_own_matter(rabbitmq, queues):
    """It mostly breaks the connection; then the broker has again what is not acknowledged."""
    queue = queues.queue()
    fill(queues, queue, range(500), none)
    worker = Worker(rabbitmq.address, queue, {"quota": {"rate": "300/s", "burst": 50}})

    def serve() -> None:
        deadline = time.monotonic() + 1.0
        with suppress(Exception):  # whatever breaks in pika
            while time.monotonic() < deadline:
                worker.connection.process_data_events(0.05)

    threads = [threading.Thread(target=serve) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    with suppress(Exception):  # whatever breaks in pika
        worker.close()
    found = set(worker.got)

    def all_found() -> bool:
        found.update(queues.bodies(queue))
        return found == set(bodies(range(500)))

    eventually(all_found)
    assert worker.shield.ledger().balanced
    assert worker.shield.plugin_errors == {}


def test_two_threads_that_draw_from_one_generator_are_pythons_own_matter(rabbitmq, queues):
    """The second is told so, as with pika's generator, and the first goes on."""
    queue = queues.queue()
    chosen = Shield(settings_of({"quota": "1000/s"}))
    with BlockingConnection(pika.URLParameters(rabbitmq.address), shield=chosen) as connection:
        channel = connection.channel()
        items = channel.consume(queue)
        drawn: list[Any] = []
        thread = threading.Thread(target=lambda: drawn.append(next(items)))
        thread.start()
        eventually(lambda: items.gi_running)
        with pytest.raises(ValueError, match="already executing"):
            next(items)
        fill(queues, queue, [7], none)
        thread.join(60)
        ((method, _, body),) = drawn
        assert body == b"7"
        channel.basic_ack(method.delivery_tag)
    assert counts(chosen) == {"offered": 1, "delivered": 1}
    assert queues.depth(queue) == 0


def test_what_a_plugin_rejects_is_dead_lettered(rabbitmq, queues):
    """As where its user had rejected it without requeue."""

    class Picky:
        @shield.hookimpl
        def shield_before_consume(self, message: Any) -> None:
            if message.size == 1:
                raise shield.Reject("one digit")

    dead = queues.queue()
    queue = queues.queue(x_dead_letter_exchange="", x_dead_letter_routing_key=dead)
    fill(queues, queue, range(20), none)
    chosen = Shield(settings_of({"quota": "1000/s"}), plugins=[Picky()])
    with BlockingConnection(pika.URLParameters(rabbitmq.address), shield=chosen) as connection:
        channel = connection.channel()
        assert wait_for_message(channel, queue, auto_ack=True)[2] == b"10"
        got: list[bytes] = []
        for method, _, body in channel.consume(queue, inactivity_timeout=0.3):
            if method is None:
                break
            got.append(body)
            channel.basic_ack(method.delivery_tag)
    assert got == bodies(range(11, 20))
    assert counts(chosen) == {"offered": 20, "delivered": 10, "dropped": 10}
    eventually(lambda: queues.depth(dead) == 10)


# --- elsewhere ------------------------------------------------------------------------------------


def half_stale(number: int) -> bool:
    return number % 2 == 0


@pytest.mark.parametrize("away", ["queue", "url"])
def test_stale_messages_are_in_the_overflow_and_nowhere_else(rabbitmq, queues, away):
    """On the same broker, or by a URL; then they can be brought back to their queue."""
    queue, late = queues.queue(), queues.queue()
    fill(queues, queue, range(100), half_stale)
    destination = f"/{late}" if away == "queue" else amqp_url(rabbitmq.address, "", late)
    worker = Worker(
        rabbitmq.address,
        queue,
        {"max_age": f"{STALE_S // 2}s", "over_limit": f"overflow {destination}"},
    )
    worker.run(lambda: counts(worker.shield).get("overflowed") == 50)
    worker.run(lambda: len(worker.got) == 50)
    assert worker.got == bodies(range(1, 100, 2))
    assert worker.close() == {"offered": 100, "delivered": 50, "overflowed": 50}
    assert queues.depth(queue) == 0
    done = shield.redrive(amqp_url(rabbitmq.address, late), to="original", shield={})
    assert (done.sent, done.complete) == (50, True)
    assert sorted(queues.bodies(queue)) == sorted(bodies(range(0, 100, 2)))
    assert queues.depth(late) == 0


@pytest.mark.parametrize("end", ["channel", "connection"])
def test_an_event_loop_that_closes_while_it_diverts_has_nothing_twice(rabbitmq, queues, end):
    """Closed in the middle of it: each message was handed over, is elsewhere, or in its queue."""
    queue, late = queues.queue(), queues.queue()
    numbers = range(2000)
    fill(queues, queue, numbers, half_stale)
    rule = {"max_age": f"{STALE_S // 2}s", "over_limit": f"overflow /{late}"}
    chosen = Shield(settings_of({"in_flight": {"messages": 300}}, rule))
    got: list[bytes] = []
    under_way: list[int] = []

    def handle(channel: Any, method: Any, properties: Any, body: bytes) -> None:
        got.append(body)
        channel.basic_ack(method.delivery_tag)
        if len(got) == 100:
            under_way.append(chosen.ledger().in_flight)
            (channel if end == "channel" else channel.connection).close()

    loop = EventLoop(lambda *a, **k: SelectConnection(*a, shield=chosen, **k), rabbitmq.address)
    loop.call(loop.channel.basic_consume, queue, handle)
    eventually(lambda: loop.channel.is_closed)
    loop.close()
    assert under_way[0] > 0
    elsewhere, left = queues.bodies(late), queues.bodies(queue)
    assert Counter(got + elsewhere + left) == Counter(bodies(numbers))
    assert got == bodies(range(1, 2 * len(got), 2))
    ledger = counts(chosen)
    assert (ledger["delivered"], ledger["overflowed"]) == (len(got), len(elsewhere))
    assert set(ledger) <= {"offered", "delivered", "overflowed", "failed"}


def test_while_the_overflow_exchange_is_missing_nothing_is_acknowledged(
    rabbitmq, queues, monkeypatch
):
    """What is not stale goes on; the rest is tried again until the exchange is there."""
    queue, late = queues.queue(), queues.queue()
    missing = f"missing-{late}"
    monkeypatch.setattr("shield_rabbitmq.connection.exchanges.ASK_EVERY_S", 0.2)
    fill(queues, queue, range(10), half_stale)
    worker = Worker(
        rabbitmq.address,
        queue,
        {"max_age": f"{STALE_S // 2}s", "over_limit": f"overflow {missing}/key"},
    )
    worker.run(lambda: len(worker.got) == 5)
    worker.connection.sleep(0.3)
    assert counts(worker.shield) == {"offered": 10, "delivered": 5, "in_flight": 5}
    queues.channel.exchange_declare(missing, "fanout")
    queues.channel.queue_bind(late, missing)
    worker.run(lambda: counts(worker.shield).get("overflowed") == 5)
    assert worker.close() == {"offered": 10, "delivered": 5, "overflowed": 5}
    assert sorted(queues.bodies(late)) == bodies(range(0, 10, 2))
    assert queues.depth(queue) == 0
    queues.channel.exchange_delete(missing)


def test_a_connection_cut_while_it_diverts_loses_nothing(rabbitmq, queues, proxy_to):
    """Each stale message is in the overflow, some twice; the next connection sees to the rest."""
    queue, late = queues.queue(), queues.queue()
    fill(queues, queue, range(2000), half_stale)
    proxy = proxy_to(rabbitmq.address)
    rule = {"max_age": f"{STALE_S // 2}s", "over_limit": f"overflow /{late}"}
    worker = Worker(proxy.url, queue, rule, at={100: proxy.cut})
    with pytest.raises(AMQPError):
        worker.run(lambda: False)
    handed = worker.got
    eventually(lambda: worker.shield.ledger().in_flight == 0)
    worker.close()
    eventually(lambda: queues.depth(queue) > 0)  # the broker has noticed the cut
    worker = Worker(rabbitmq.address, queue, rule)
    worker.run(
        lambda: (
            set(handed + worker.got) == set(bodies(range(1, 2000, 2)))
            and queues.depth(queue) == 0
            and not worker.shield.ledger().in_flight
        )
    )
    ledger = worker.close()
    assert set(ledger) == {"offered", "delivered", "overflowed"}
    assert set(handed + worker.got) == set(bodies(range(1, 2000, 2)))
    assert set(queues.bodies(late)) == set(bodies(range(0, 2000, 2)))
    assert queues.bodies(queue) == []


def test_while_the_broker_takes_no_messages_what_is_diverted_waits(private_rabbitmq):
    """In a memory alarm: fresh messages are handed over, and afterwards each stale one is there."""
    own = private_rabbitmq()
    with Queues(own.address) as queues:
        queue, late = queues.queue(), queues.queue()
        fill(queues, queue, range(40), half_stale)
        own.ctl("set_vm_memory_high_watermark", "0.00001")
        try:
            worker = Worker(
                own.address,
                queue,
                {"max_age": f"{STALE_S // 2}s", "over_limit": f"overflow /{late}"},
            )
            worker.run(lambda: len(worker.got) == 20)
            worker.channel.basic_ack(0, multiple=True)
            time.sleep(0.3)
            assert counts(worker.shield)["in_flight"] > 0
        finally:
            own.ctl("set_vm_memory_high_watermark", "0.4")
        worker.run(lambda: counts(worker.shield).get("overflowed") == 20)
        assert worker.close() == {"offered": 40, "delivered": 20, "overflowed": 20}
        assert sorted(queues.bodies(late), key=int) == bodies(range(0, 40, 2))
        assert queues.bodies(queue) == []
