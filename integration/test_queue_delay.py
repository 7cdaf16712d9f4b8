"""A real RabbitMQ that takes less than is brought: what waits too long in the write thread."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from statistics import quantiles
from typing import Any

import pytest
from pika import BasicProperties

import shield
from integration.brokers import RabbitMQ
from integration.queues import Queues
from shield import Shield
from shield_rabbitmq import Publisher, RabbitMQOverLimitError
from tests.eventually import eventually

PERSISTENT = BasicProperties(delivery_mode=2)


@pytest.fixture(scope="module")
def own_rabbitmq(private_rabbitmq) -> RabbitMQ:
    """A RabbitMQ to be frozen; every test leaves it running."""
    return private_rabbitmq()


@pytest.fixture
def queues(own_rabbitmq: RabbitMQ) -> Iterator[Queues]:
    with Queues(own_rabbitmq.address) as queues:
        yield queues


@pytest.fixture
def make(own_rabbitmq: RabbitMQ) -> Iterator[Callable[..., Publisher]]:
    """Make publishers that are closed at the end; then all is accounted for and nothing waits."""
    made: list[Publisher] = []

    def make(*rules: dict[str, Any], spool_dir: str = "", **more: Any) -> Publisher:
        settings: dict[str, Any] = {"rules": [*rules]}
        if spool_dir:
            settings["shield"] = {"spool_dir": spool_dir}
        made.append(Publisher(own_rabbitmq.address, shield=Shield(settings), **more))
        return made[-1]

    yield make
    own_rabbitmq.resume()
    for one in made:
        one.close(10)
        ledger = one.shield.ledger()
        assert ledger.balanced
        assert (ledger.in_flight, ledger.buffered) == (0, 0)
        assert (one.signals.queue_messages, one.signals.queue_bytes) == (0, 0)
        assert one.shield.plugin_errors == {}


@pytest.fixture
def freeze(own_rabbitmq: RabbitMQ) -> Iterator[Callable[[], Callable[[], None]]]:
    """Freeze the broker, and let it go on with what freezing returns."""

    def freeze() -> Callable[[], None]:
        own_rabbitmq.pause()
        return own_rabbitmq.resume

    yield freeze
    own_rabbitmq.resume()


def fates(futures: list[Any]) -> Counter[str]:
    return Counter(shield.fate(future) for future in futures)


def rule(*chain: str, **delay: str) -> dict[str, Any]:
    return {"match": "*", "queue_delay": delay, "over_limit": [*chain] or ["raise"]}


def frozen_with_a_full_window(publisher: Publisher, queue: str, freeze: Any, window: int) -> Any:
    """Fill the window of a frozen broker; return what lets it go on, and those futures."""
    publisher.publish("", queue, b"first").result(60)
    go_on = freeze()
    written = [publisher.publish("", queue, b"written") for _ in range(window)]
    eventually(lambda: publisher.unconfirmed == window)
    return go_on, written


def test_a_frozen_brokers_queue_is_shed_while_it_is_frozen(make, queues, freeze):
    """Each message's chain acts meanwhile, and what is published then is sent after it."""
    queue = queues.queue()
    publisher = make(rule("drop", target="20ms", interval="100ms"), window=10)
    go_on, written = frozen_with_a_full_window(publisher, queue, freeze, 10)
    waiting = [publisher.publish("", queue, b"late") for _ in range(50)]
    for future in waiting:
        future.result(60)
    assert fates(waiting) == {"dropped": 50}
    assert publisher.signals.queue_messages == 0
    ledger = publisher.shield.ledger()
    assert ledger.drops == {("rule-1", "queue_delay", "queue delay"): 50}
    assert (ledger.in_flight, ledger.balanced) == (10, True)
    go_on()
    for future in written:
        future.result(60)
    publisher.publish("", queue, b"after").result(60)
    assert Counter(queues.bodies(queue)) == {b"first": 1, b"written": 10, b"after": 1}


def test_the_newest_are_written_first_while_it_stands(make, queues, freeze):
    """They come to the queue in that order, and none is lost or sent twice."""
    queue = queues.queue()
    slow = rule("drop", target="50ms", interval="400ms", longest="60s")
    publisher = make(slow, window=5)
    go_on, written = frozen_with_a_full_window(publisher, queue, freeze, 5)
    waiting = [publisher.publish("", queue, b"%d" % n) for n in range(30)]
    eventually(lambda: publisher.shield.status()["rule-1"]["queue_delay"]["overloaded"])
    go_on()
    for future in written + waiting:
        future.result(60)
    bodies = [body for body in queues.bodies(queue) if body.isdigit()]
    assert bodies == [b"%d" % n for n in reversed(range(30))]
    assert fates(waiting) == {"sent": 30}


@pytest.mark.parametrize("chain", [("raise",), ("wait 5s", "raise"), ()])
def test_what_is_shed_and_raised_fails_its_future(make, queues, freeze, chain):
    """Nobody waits on the write thread; the error is the one that `publish` would have raised."""
    queue = queues.queue()
    publisher = make(rule(*chain, target="20ms", interval="100ms"), window=1)
    go_on, written = frozen_with_a_full_window(publisher, queue, freeze, 1)
    future = publisher.publish("", queue, b"late")
    error = future.exception(5)
    assert isinstance(error, RabbitMQOverLimitError)
    assert (error.policy, error.reason) == ("queue_delay", "queue delay")
    assert publisher.shield.ledger().raised == 1
    go_on()
    written[0].result(60)


def test_what_is_shed_into_a_buffer_is_sent_when_the_queue_moves(make, queues, freeze):
    """It stays there while the queue stands, and does not go round and round."""
    queue = queues.queue()
    publisher = make(rule("buffer", target="20ms", interval="100ms"), window=10)
    go_on, written = frozen_with_a_full_window(publisher, queue, freeze, 10)
    waiting = [publisher.publish("", queue, b"%d" % n) for n in range(50)]
    eventually(lambda: fates(waiting)["buffered"] == 50)
    go_on()
    publisher.flush(20)
    assert all(future.done() for future in waiting + written)
    assert Counter(queues.bodies(queue))[b"7"] == 1
    ledger = publisher.shield.ledger()
    assert (ledger.offered, ledger.delivered) == (61, 61)
    assert sum(ledger.over_limit.values()) == 50


def test_what_is_shed_into_a_spool_is_sent_when_the_queue_moves(make, queues, freeze, tmp_path):
    """Its future is done once it is on disk; nothing is lost, and nothing sent twice."""
    queue = queues.queue()
    publisher = make(
        rule("spool 10MiB", target="20ms", interval="100ms"), window=10, spool_dir=str(tmp_path)
    )
    go_on, written = frozen_with_a_full_window(publisher, queue, freeze, 10)
    waiting = [publisher.publish("", queue, b"%d" % n) for n in range(20)]
    for future in waiting:
        future.result(60)
    assert fates(waiting) == {"spooled": 20}
    go_on()
    for future in written:
        future.result(60)
    eventually(lambda: publisher.shield.ledger().spooled == 0)
    publisher.flush(10)
    bodies = Counter(queues.bodies(queue))
    assert all(bodies[b"%d" % n] == 1 for n in range(20))
    ledger = publisher.shield.ledger()
    assert (ledger.offered, ledger.delivered) == (31, 31)


def test_what_is_shed_is_overflowed(make, queues, freeze):
    """To another queue of the broker, once that goes on."""
    queue, aside = queues.queue(), queues.queue()
    publisher = make(rule(f"overflow /{aside}", target="20ms", interval="100ms"), window=10)
    go_on, _ = frozen_with_a_full_window(publisher, queue, freeze, 10)
    waiting = [publisher.publish("", queue, b"%d" % n, PERSISTENT) for n in range(20)]
    eventually(lambda: fates(waiting)["overflowed"] == 20)
    go_on()
    for future in waiting:
        future.result(60)
    stored = queues.take(aside)
    assert [each.body for each in stored] == [b"%d" % n for n in range(20)]
    assert {each.properties.headers["shield-policy"] for each in stored} == {"queue_delay"}
    assert publisher.shield.ledger().overflowed == 20


def test_an_alarm_sheds_what_waits(make, queues, own_rabbitmq):
    """A blocked connection's queue stands as well."""
    queue = queues.queue()
    publisher = make(rule("drop", target="20ms", interval="100ms"))
    publisher.publish("", queue, b"first").result(60)
    own_rabbitmq.ctl("set_vm_memory_high_watermark", "0.00001")
    try:
        futures = []
        eventually(lambda: futures.append(publisher.publish("", queue, b"x")) or publisher.blocked)
        futures += [publisher.publish("", queue, b"late") for _ in range(10)]
        eventually(lambda: fates(futures[-10:])["dropped"] == 10)
    finally:
        own_rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")
    publisher.flush(20)
    assert all(future.done() for future in futures)


class Offered:
    """What one publisher makes of the messages that it is given."""

    def __init__(self, publisher: Publisher, queue: str) -> None:
        self.publisher, self._queue = publisher, queue
        self.futures: list[Any] = []
        self.took_s: list[float] = []
        """From `publish` to the confirm, of those that were sent."""

    def publish(self) -> None:
        at = time.monotonic()
        future = self.publisher.publish("", self._queue, b"x" * 1000, PERSISTENT)

        def note(done: Any) -> None:
            if shield.fate(done) == "sent":
                self.took_s.append(time.monotonic() - at)

        future.add_done_callback(note)
        self.futures.append(future)


@pytest.mark.alone
def test_at_five_times_its_load_what_is_sent_is_sent_in_time(make, queues):
    """A window of one, persistent: as much is confirmed as without, many times sooner.

    Half a second of both at once, as the machine may be busier in the next.
    """
    probe = Offered(make(window=1), queues.queue())
    begun = time.monotonic()
    for _ in range(500):
        probe.publish()
    probe.publisher.flush(30)
    offered_per_s = 5 * 500 / (time.monotonic() - begun)
    messages = int(offered_per_s / 2)

    bare = Offered(make(window=1), queues.queue())
    held = Offered(make(rule("drop", target="5ms", interval="100ms"), window=1), queues.queue())
    begun = time.monotonic()
    for n in range(messages):
        bare.publish()
        held.publish()
        time.sleep(max(0.0, begun + n / offered_per_s - time.monotonic()))
    bare_during, during = len(bare.took_s), len(held.took_s)
    for each in (bare, held):
        each.publisher.close(60)
        assert all(future.done() for future in each.futures)
    ledger = held.publisher.shield.ledger()
    assert ledger.offered == messages
    assert ledger.delivered + ledger.dropped == messages
    assert ledger.delivered == len(held.took_s)
    assert during > 0.5 * bare_during
    late, bare_late = (quantiles(each.took_s, n=100)[89] for each in (held, bare))
    print(f"p90 {late * 1e3:.1f} ms, bare {bare_late * 1e3:.1f} ms; {during} of {bare_during}")
    assert late < bare_late / 3


def test_a_publisher_that_closes_while_its_queue_is_shed_accounts_for_all(make, queues, freeze):
    """From many threads, before a frozen broker; nothing hangs."""
    queue = queues.queue()
    publisher = make(rule("buffer 20", "drop", target="5ms", interval="50ms"), window=5)
    publisher.publish("", queue, b"first").result(60)
    freeze()
    futures: list[Any] = []

    def work() -> None:
        for n in range(100):
            try:
                futures.append(publisher.publish("", queue, b"%d" % n))
            except Exception:
                return
            time.sleep(0.002)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    publisher.close(1)
    for thread in threads:
        thread.join(60)
    assert all(future.done() for future in futures)
