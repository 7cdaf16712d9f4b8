"""The publisher while its RabbitMQ is killed, frozen, cut off, full, or closed to it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import Future
from typing import Any

import pytest
from pika import BasicProperties
from pika.exceptions import AMQPConnectionError, NackError

import shield
from integration.brokers import RabbitMQ
from integration.queues import Queues
from shield_rabbitmq import (
    CannotConnectError,
    NackedError,
    Publisher,
    PublisherClosedError,
    RabbitMQDeliveryUnknownError,
)
from tests.eventually import eventually

PERSISTENT = BasicProperties(delivery_mode=2)
IN_FLIGHT = {"messages": 2000, "bytes": "4MiB"}


@pytest.fixture(scope="module")
def own_rabbitmq(private_rabbitmq) -> RabbitMQ:
    """A RabbitMQ to be broken; every test leaves it running."""
    return private_rabbitmq()


class Route:
    """An exchange bound to a queue, and an overflow exchange bound to another one."""

    def __init__(self, url: str) -> None:
        self.url = url
        with Queues(url) as queues:
            self.exchange, self.overflow = queues.exchange(), queues.exchange("fanout")
            self.queue = queues.queue(self.exchange, "key")
            self.set_aside = queues.queue(self.overflow, "")

    def rules(self, *chain: object) -> dict[str, Any]:
        """A bound, and a quota of 2,000 a second whose rest overflows."""
        to_overflow = {"overflow": {"destination": self.overflow, "messages": 1000}}
        bound = {"match": "*", "in_flight": IN_FLIGHT, "over_limit": [to_overflow, *chain]}
        quota = {"rate": "2000/s", "burst": 100}
        return {
            "rules": [bound, {"match": "*", "quota": quota, "over_limit": [to_overflow, *chain]}]
        }

    def stored(self) -> Counter[bytes]:
        """Take all that the two queues hold."""
        with Queues(self.url) as queues:
            return Counter(queues.bodies(self.queue) + queues.bodies(self.set_aside))


@pytest.fixture
def route(own_rabbitmq: RabbitMQ) -> Route:
    return Route(own_rabbitmq.address)


class Load:
    """Threads that publish numbered messages until stopped, and what became of each."""

    def __init__(self, publisher: Publisher, route: Route, threads: int = 4) -> None:
        self._publisher = publisher
        self._route = route
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(threads)]
        self.futures: dict[bytes, Future[None]] = {}
        self.errors: list[BaseException] = []

    def _send(self, thread: int) -> None:
        number = 0
        while not self._stop.is_set():
            body = b"%d %d" % (thread, number)
            number += 1
            try:
                self.futures[body] = self._publisher.publish(
                    self._route.exchange, "key", body, PERSISTENT
                )
            except shield.OverLimitError:
                pass
            except BaseException as error:
                self.errors.append(error)
                return
            time.sleep(0.001)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def check(publisher: Publisher, route: Route, load: Load, *, unknown: bool) -> None:
    """Every future is done, the books balance, and the queues hold what both of them say."""
    publisher.close(60)
    assert not load.errors
    assert not threads()
    signals = publisher.signals
    assert (signals.queue_messages, signals.queue_bytes, signals.in_flight) == (0, 0, 0)
    ledger = publisher.shield.ledger()
    assert ledger.balanced
    assert ledger.in_flight == 0
    ends: dict[str, set[bytes]] = {"arrived": set(), "dropped": set(), "unknown": set()}
    for body, future in load.futures.items():
        assert future.done()
        error = future.exception()
        if error is None:
            ends["dropped" if shield.fate(future) == "dropped" else "arrived"].add(body)
        elif isinstance(error, RabbitMQDeliveryUnknownError):
            ends["unknown"].add(body)
        else:
            assert isinstance(error, shield.OverLimitError)
    stored = route.stored()
    assert ends["arrived"] <= set(stored)
    assert set(stored) <= ends["arrived"] | ends["unknown"]
    assert ledger.delivered + ledger.overflowed == len(ends["arrived"])
    assert ledger.dropped == len(ends["dropped"])
    if unknown:
        assert max(stored.values()) == 1
    else:
        assert not ends["unknown"]
    assert len(ends["arrived"]) > 100


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "shield-rabbitmq" and t.is_alive()]


# --- a broker in trouble --------------------------------------------------------------------------


def test_a_broker_killed_in_mid_stream_is_found_again(own_rabbitmq, route):
    """SIGKILL under load: what was on the wire is unknown, what was queued is sent afterwards."""
    own_rabbitmq.save_declared()
    publisher = Publisher(own_rabbitmq.address, shield=route.rules("drop"))
    with Load(publisher, route) as load:
        time.sleep(1)
        own_rabbitmq.kill()
        time.sleep(1)
        assert publisher.shield.ledger().balanced
        own_rabbitmq.restart()
        before = publisher.shield.ledger().delivered
        eventually(lambda: publisher.shield.ledger().delivered > before + 500)
    check(publisher, route, load, unknown=True)


def test_a_frozen_broker_fills_the_bound_and_goes_on(own_rabbitmq, route):
    """SIGSTOP for 10 s: in flight stays within the bounds, the chain acts, nothing is unknown."""
    publisher = Publisher(own_rabbitmq.address, shield=route.rules("drop"))
    with Load(publisher, route) as load:
        eventually(
            lambda: publisher.shield.ledger().overflowed + publisher.shield.ledger().delivered
        )
        own_rabbitmq.pause()
        try:
            most = 0
            for _ in range(100):
                time.sleep(0.1)
                most = max(most, publisher.shield.ledger().in_flight)
        finally:
            own_rabbitmq.resume()
        assert publisher.shield.ledger().dropped > 0
        assert most <= 2000 + 2 * 1000 + 8  # and what each thread is deciding on
        assert publisher.unconfirmed <= 1000
        time.sleep(1)
    check(publisher, route, load, unknown=False)


def test_a_window_filled_to_the_last_place_is_used_again(own_rabbitmq, route):
    """As many messages as it has places, none behind them; once confirmed, the next one goes."""
    with Publisher(own_rabbitmq.address, shield={}, window=10) as publisher:
        publisher.publish(route.exchange, "key", b"first").result(60)
        own_rabbitmq.pause()
        try:
            futures = [publisher.publish(route.exchange, "key", b"%d" % n) for n in range(10)]
            eventually(lambda: publisher.unconfirmed == 10)
        finally:
            own_rabbitmq.resume()
        for future in futures:
            future.result(60)
        publisher.publish(route.exchange, "key", b"next").result(60)


def test_a_frozen_broker_does_not_keep_close_waiting(own_rabbitmq, route):
    """After its timeout what was written is unknown, the rest was never sent, and it returns."""
    publisher = Publisher(own_rabbitmq.address, shield={}, window=10)
    publisher.publish(route.exchange, "key", b"first").result(60)
    own_rabbitmq.pause()
    try:
        futures = [publisher.publish(route.exchange, "key", b"%d" % n) for n in range(50)]
        begun = time.monotonic()
        publisher.close(1)
        assert time.monotonic() - begun < 4
    finally:
        own_rabbitmq.resume()
    kinds = Counter(type(future.exception(0)) for future in futures)
    assert kinds == {RabbitMQDeliveryUnknownError: 10, PublisherClosedError: 40}
    assert not threads()
    ledger = publisher.shield.ledger()
    assert (ledger.failed, ledger.in_flight, ledger.balanced) == (50, 0, True)


def test_a_memory_alarm_blocks_and_passes(own_rabbitmq, route):
    """The publisher knows that it is blocked; the chain acts meanwhile; then all goes on."""
    bound = {"match": "*", "in_flight": {"messages": 200}, "over_limit": "drop"}
    publisher = Publisher(own_rabbitmq.address, shield={"rules": [bound]})
    own_rabbitmq.ctl("set_vm_memory_high_watermark", "0.00001")
    try:
        with Load(publisher, route) as load:
            eventually(lambda: publisher.blocked)
            eventually(lambda: publisher.shield.ledger().dropped > 100)
            assert publisher.shield.ledger().in_flight <= 200
            own_rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")
            eventually(lambda: not publisher.blocked)
            before = publisher.shield.ledger().delivered
            eventually(lambda: publisher.shield.ledger().delivered > before + 200)
    finally:
        own_rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")
    check(publisher, route, load, unknown=False)


def test_a_connection_closed_by_an_operator_is_made_again(own_rabbitmq, route):
    """`rabbitmqctl close_all_connections`: unknown is what was on the wire, no more."""
    publisher = Publisher(own_rabbitmq.address, shield=route.rules("drop"))
    with Load(publisher, route) as load:
        time.sleep(0.5)
        own_rabbitmq.ctl("close_all_connections", "enough")
        before = publisher.shield.ledger().delivered
        eventually(lambda: publisher.shield.ledger().delivered > before + 500)
    check(publisher, route, load, unknown=True)


# --- a network in trouble -------------------------------------------------------------------------


def test_a_cut_connection_is_made_again(own_rabbitmq, route, proxy_to):
    """Reset five times under load: every future completes, those on the wire as unknown."""
    proxy = proxy_to(own_rabbitmq.address)
    publisher = Publisher(proxy.url, shield=route.rules("drop"))
    with Load(publisher, route) as load:
        for _ in range(5):
            before = publisher.shield.ledger().delivered
            eventually(lambda before=before: publisher.shield.ledger().delivered > before + 50)
            proxy.cut()
    check(publisher, route, load, unknown=True)
    assert proxy.accepted >= 5


def test_resend_unconfirmed_loses_nothing_and_may_duplicate(own_rabbitmq, route, proxy_to):
    """With it no message is unknown: each arrives, some of them twice."""
    proxy = proxy_to(own_rabbitmq.address)
    publisher = Publisher(proxy.url, shield=route.rules("drop"), resend_unconfirmed=True)
    with Load(publisher, route) as load:
        for _ in range(5):
            before = publisher.shield.ledger().delivered
            eventually(lambda before=before: publisher.shield.ledger().delivered > before + 50)
            proxy.cut()
    check(publisher, route, load, unknown=False)


# --- a queue that refuses -------------------------------------------------------------------------


def test_a_full_queue_nacks_and_the_nack_is_reported(own_rabbitmq):
    """`x-max-length` with `reject-publish`: the future fails with a pika NackError; OVERLOADED."""
    with (
        Queues(own_rabbitmq.address) as queues,
        Publisher(own_rabbitmq.address, shield={}) as publisher,
    ):
        queue = queues.queue(x_max_length=10, x_overflow="reject-publish")
        futures = [publisher.publish("", queue, b"%d" % n, PERSISTENT) for n in range(200)]
        errors = [future.exception(10) for future in futures]
        nacked = [error for error in errors if error is not None]
        assert all(isinstance(error, NackedError) for error in nacked)
        assert all(isinstance(error, NackError) for error in nacked)
        ledger = publisher.shield.ledger()
        assert ledger.failed == len(nacked) > 0
        assert ledger.delivered == queues.depth(queue)


def test_a_fan_out_of_which_one_queue_refuses_is_not_sent_again(own_rabbitmq):
    """The nack is reported once; the other queue holds each message once."""
    with (
        Queues(own_rabbitmq.address) as queues,
        Publisher(own_rabbitmq.address, shield={}, resend_unconfirmed=True) as publisher,
    ):
        exchange = queues.exchange("fanout")
        takes = queues.queue(exchange, "")
        queues.queue(exchange, "", x_max_length=0, x_overflow="reject-publish")
        futures = [publisher.publish(exchange, "", b"%d" % n) for n in range(50)]
        assert all(isinstance(future.exception(10), NackedError) for future in futures)
        assert queues.bodies(takes) == [b"%d" % n for n in range(50)]


# --- no way in ------------------------------------------------------------------------------------


@pytest.fixture
def cases(own_rabbitmq: RabbitMQ) -> dict[str, tuple[str, str]]:
    """URLs that lead nowhere, and what of each the error says."""
    where = own_rabbitmq.address.rpartition("@")[2].partition("/")[0]
    return {
        "password": (f"amqp://guest:wrong@{where}/%2F", where),
        "vhost": (f"amqp://guest:guest@{where}/nowhere", "nowhere"),
        "port": ("amqp://guest:guest@127.0.0.1:1/%2F", "127.0.0.1:1"),
        "host": ("amqp://guest:guest@no.such.host.invalid/%2F", "no.such.host.invalid"),
    }


@pytest.mark.parametrize("which", ["password", "vhost", "port", "host"])
def test_no_way_in_fails_messages_with_a_clear_error(cases, which):
    """It says where and why, without the password; nothing is charged, no thread is left."""
    url, said = cases[which]
    quota = {"match": "*", "quota": {"rate": "1/h", "burst": 2}}
    publisher = Publisher(url, shield={"rules": [quota]})
    futures = [publisher.publish("", "queue", b"body") for _ in range(2)]
    errors = [future.exception(20) for future in futures]
    publisher.publish("", "queue", b"body")  # those that were never sent were not charged
    publisher.close(0)
    for error in errors:
        assert isinstance(error, CannotConnectError)
        assert isinstance(error, AMQPConnectionError)
        assert said in str(error)
        assert ":wrong@" not in str(error)
    assert not threads()
    ledger = publisher.shield.ledger()
    assert (ledger.failed, ledger.in_flight, ledger.balanced) == (3, 0, True)


@pytest.mark.parametrize("url", ["", "localhost", "http://h", "amqp://h:port/", None, 1])
def test_a_wrong_url_is_refused_at_once(url):
    """Before anything is started; it says what was found and what is allowed."""
    with pytest.raises(shield.SettingsError, match=r"url: found .*allowed is"):
        Publisher(url, shield={})
    assert not threads()


def test_buffered_messages_outlive_a_rabbitmq_that_is_killed(own_rabbitmq, route):
    """SIGKILL while hundreds are kept: those arrive after the restart, in order."""
    own, exchange, queue = own_rabbitmq, route.exchange, route.queue
    own.save_declared()
    bound = {"match": "*", "in_flight": {"messages": 20}, "over_limit": "buffer"}
    publisher = Publisher(own.address, shield={"rules": [bound]})
    publisher.publish(exchange, "key", b"0", PERSISTENT).result(60)
    own.kill()
    futures = [
        publisher.publish(exchange, "key", b"%d" % number, PERSISTENT) for number in range(1, 501)
    ]
    own.restart()
    publisher.flush(60)
    unknown = [n for n, future in enumerate(futures, 1) if future.exception(0) is not None]
    assert len(unknown) <= 20  # on the wire when it was killed
    with Queues(own.address) as queues:
        arrived = [int(body) for body in queues.bodies(queue)]
    assert arrived == sorted(set(arrived))
    assert set(range(501)) - set(unknown) <= set(arrived)
    ledger = publisher.shield.ledger()
    assert (ledger.offered, ledger.failed) == (501, len(unknown))
    assert ledger.delivered == 501 - len(unknown)
    publisher.close()
