"""kafka-python's producer under Shield."""

from __future__ import annotations

import time
import weakref
from functools import partial
from pathlib import Path
from typing import Any

from kafka import KafkaProducer as Client
from kafka.errors import KafkaError
from kafka.producer.future import FutureRecordMetadata

import shield
from shield import Backlogs, End, Message, OverLimit, Permit, Shield, Signals, Verdict
from shield.chain.runner import run_chain
from shield.engine.reporting.signal_support import SignalSupport
from shield.errors import rejecting_as
from shield.message import added_headers
from shield.process_hooks import ForkStage, after_fork, at_childs_end
from shield_kafka.client import internals
from shield_kafka.client.address import address_like
from shield_kafka.client.errors import ForkedProducerError
from shield_kafka.client.record import Header, Record, data_of, is_bytes, is_sound, size_of
from shield_kafka.client.serialization import (
    Serialized,
    accept_serialized,
)
from shield_kafka.operations.lag import LagReader, admin_configs
from shield_kafka.producing.plain_sends import NotPlain, PlainTopics
from shield_kafka.producing.port import KafkaPort
from shield_kafka.producing.sender import RecordSender, may_be_oversize, send
from shield_kafka.producing.signals import TELLS, hear, look
from shield_kafka.producing.transaction import Transaction
from shield_kafka.producing.transport import ProducerTransport

shield.fate.register(FutureRecordMetadata, internals.fate_of)


class KafkaProducer(Client):  # type: ignore[misc] # kafka-python is untyped
    """`kafka.KafkaProducer` with quotas: same arguments, results, errors and callbacks.

    Args:
        shield: a `shield.Shield`, the path of a settings file, a dict of settings, or None for
            the one that this process shares (`shield.default()`).
        shield_producer: who this producer is to quotas and ledger. Without it: the settings'
            `producer`, else a `client_id` given here, else the program's name. Producers of one
            name share their quotas, in one Shield.
        **configs: as `kafka.KafkaProducer` takes them.

    What is over the limit goes the way of its rule's chain, and `send` returns the client's own
    future in each case; `shield.fate(future)` tells which way it was. A dropped message's future
    is done at once with offset -1; an overflowed one's completes with the overflow send.

    In a transaction every message shares its fate, also one that goes to an overflow topic
    through this producer: the ledger has it in flight until commit (then it counts as delivered
    or overflowed) or abort (then as failed).

    In a process forked after this was made, `send` raises `ForkedProducerError`: the thread that
    sends has stayed in the parent. Make producers after the fork.
    """

    shield: Shield
    """The Shield that decides; `producer.shield.ledger()` accounts for every message."""
    _producer_name = ""
    _transaction: Transaction | None = None
    _forked = False
    _takes_bytes = False
    _is_plain = False
    _closed = True
    _made = False
    """Whether `__init__` was called; after a bare `__new__` all is the client's own."""

    def __init__(
        self,
        *,
        shield: Shield | str | Path | dict[str, Any] | None = None,
        shield_producer: str | None = None,
        **configs: Any,
    ) -> None:
        self.shield = chosen = _shield_of(shield)
        self._producer_name = shield_producer or _name(chosen, configs)
        self._record_sender = sender = RecordSender(chosen, self._producer_name)
        self._signals = Signals(chosen.clock.now, chosen.engine.signals_changed)
        self._support = SignalSupport(
            chosen.rules, self._producer_name, TELLS, "kafka-python's producer"
        )
        self._transport = ProducerTransport(self, sender, self._signals)
        self._made = True
        super().__init__(**configs)
        internals.fail_alone(self)
        internals.on_produced(self, partial(hear, self._signals))
        internals.on_poll(self, partial(look, self._signals))
        self._takes_bytes = not accept_serialized(self.config)
        self._is_plain = self._takes_bytes and not chosen.engine.prepares
        self._admit, self._admit_plain = chosen.admit, chosen.engine.admit_plain
        if self.config["transactional_id"]:
            self._transaction = sender.use_transactions()
            self._plain: PlainTopics = NotPlain(chosen, self._producer_name)
        else:
            self._plain = PlainTopics(chosen, self._producer_name)
        self._answers = sender.answers
        self._transport.origin = origin = address_like(self.config, topic="").origin
        reader = partial(LagReader, admin_configs(self.config))
        self._signals.backlogs = Backlogs(
            origin, reader, chosen.clock, chosen.engine.backlog_changed
        )
        _producers.add(self)
        at_childs_end(_close_all)
        if self._transaction is None:
            chosen.engine.opened(self._transport)

    def send(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        headers: list[tuple[str, bytes]] | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> Any:
        """Publish a message as `kafka.KafkaProducer.send` does, within its quotas.

        Raises:
            OverLimitError: over the limit, and the chain says `raise`; also a KafkaError.
            SettingsError: a rule that covers it goes by what Kafka never tells.
            Reject: a plugin has refused it; also a KafkaError.
            ForkedProducerError: in a process forked after this producer was made.
        """
        plain = self._is_plain and type(value) is bytes and (key is None or type(key) is bytes)
        plain = plain and headers is None and type(topic) is str
        if not plain or self._closed or self._support.unfit:
            return self._send_with_care(topic, value, key, headers, partition, timestamp_ms)
        if timestamp_ms is not None:
            internals.refuse_timestamp(timestamp_ms)
        size = len(value) if key is None else len(value) + len(key)
        sends = self._plain[topic]
        if sends is not None and self._admit_plain(sends.flow, size):
            future = waiting = None
            try:
                future = Client.send(
                    self, topic, value, key, partition=partition, timestamp_ms=timestamp_ms
                )
                waiting = sends.answers.waiting(future)
                waiting += ((size, future),)
                sends.answers.joined(future, waiting)
            except BaseException:
                if future is None:
                    sends.cancel(size)
                else:  # an exception from outside: it is on its way all the same
                    sends.answers.expect_once(size, future, waiting)
                raise
            return future
        message = Message(topic, size, self._producer_name, key, None, None, self._signals)
        verdict = self._admit(message)
        if type(verdict) is not Permit or verdict.flow.delays:
            return self._decided(verdict, Record(topic, value, key, None, partition, timestamp_ms))
        future = None
        try:  # as `RecordSender.send_admitted`, less its calls: this runs for every message
            future = Client.send(
                self, topic, value, key, partition=partition, timestamp_ms=timestamp_ms
            )
            self._answers.expect(verdict, future)
        except BaseException as error:
            self._record_sender.interrupted(verdict, future, error)
            raise
        return future

    def _send_with_care(self, *arguments: Any) -> Any:
        """Send what has headers, needs serializing, or may be what the client refuses."""
        if self._forked:
            raise ForkedProducerError(
                "this producer was made before the fork and its sender thread is in the parent; "
                "make a producer in the child"
            )
        record = Record(*arguments)
        if self._closed or not self._made or not is_sound(record):
            return send(self, record)  # the client knows best what is wrong
        self._support.check(record.topic)
        internals.refuse_timestamp(record.timestamp_ms)
        if not self._takes_bytes:
            record = self._serialized(record)
        key, value = data_of(record.key), data_of(record.value)
        if not (is_bytes(key) and is_bytes(value)):
            return send(self, record)
        size = max(0, size_of(key)) + max(0, size_of(value))
        key = key if key is None or type(key) is bytes else bytes(key)
        topic = record.topic if type(record.topic) is str else str.__str__(record.topic)
        record = record._replace(topic=topic)
        message = Message(
            topic, size, self._producer_name, key, record.headers, None, self._signals
        )
        if not self.shield.engine.prepares:
            return self._decided(self._admit(message), record)
        with rejecting_as(KafkaError):
            verdict = self._admit(message)
        return self._decided(verdict, record.with_headers(added_headers(message)))

    def _decided(self, verdict: Verdict, record: Record) -> Any:
        """Send what is admitted, or run the chain of the rule that refused."""
        if isinstance(verdict, OverLimit):
            return self._over_limit(verdict, record)
        return self._record_sender.send_admitted(self, verdict, record)

    def _over_limit(self, over: OverLimit, record: Record) -> Any:
        """Run the chain, unless the client would refuse the message whichever way it goes."""
        port = KafkaPort(self, self._record_sender, self._transport, record.copied())
        try:
            port.refuse_in_the_call()
        except internals.RefusedByBrokerError as refused:
            over.end(End.FAILED)
            future = port.pending("raised")
            port.fail(refused.error)
            return future
        except BaseException:
            over.end(End.FAILED)
            raise
        return run_chain(over, port)

    @property
    def signals(self) -> Signals:
        """What the broker tells this producer: latency, throttle time, queue time, requests."""
        return self._signals

    def _ensure_valid_record_size(self, size: int) -> None:
        """Refuse what is larger than `max_request_size`, but for headers of ours."""
        if size > self.config["max_request_size"] and not may_be_oversize():
            super()._ensure_valid_record_size(size)

    # --- serialized once ----------------------------------------------------------------------

    def _serialized(self, record: Record) -> Record:
        headers = [] if record.headers is None else record.headers  # serializers may add to it
        key = self._once("key_serializer", record.topic, headers, record.key)
        value = self._once("value_serializer", record.topic, headers, record.value)
        return record._replace(headers=headers, key=key, value=value)

    def _once(self, which: str, topic: str, headers: list[Header], data: Any) -> Any:
        """Serialize a key or value, where it is serialized, such that this is not done again."""
        if self.config[which] is None:
            return data
        return Serialized(data, internals.serialize(self, which, topic, headers, data))

    # --- transactions, flush and close --------------------------------------------------------

    def commit_transaction(self) -> None:
        """Commit as the client does; then the ledger counts what the transaction held."""
        super().commit_transaction()
        if self._transaction is not None:
            self._transaction.commit()

    def abort_transaction(self) -> None:
        """Abort as the client does; then the ledger counts what the transaction held as failed."""
        super().abort_transaction()
        if self._transaction is not None:
            self._transaction.abort()

    def flush(self, timeout: float | None = None) -> None:
        """Flush as the client does, and also what is buffered, or a failed overflow has sent on."""
        if not self._made:
            super().flush(timeout)
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        self.shield.engine.flush(self._transport, timeout)
        flush = super().flush
        left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        internals.flush_whole(flush, left_s)
        while self._record_sender.continued:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            internals.flush_whole(flush, left_s)

    def close(self, timeout: float | None = None, null_logger: bool = False) -> None:
        """Close as the client does; a transaction left open counts as failed."""
        if not (self._made and internals.was_made(self)):
            self._close_what_was_not_made(timeout, null_logger)
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._closed:
            self.shield.engine.closing(self._transport, timeout)
        if timeout is not None and deadline is not None:
            timeout = min(timeout, max(0.0, deadline - time.monotonic()))
        super().close(timeout=timeout, null_logger=null_logger)
        if self._signals.backlogs is not None:
            self._signals.backlogs.close()
        if self._transaction is not None:
            self._transaction.abort()

    def _close_what_was_not_made(self, timeout: float | None, null_logger: bool) -> None:
        """Close the client's own parts, where `__init__` was bypassed or refused its settings."""
        if "_closed" in vars(self):
            super().close(timeout=timeout, null_logger=null_logger)

    def _note_forked(self) -> None:
        """In a forked child: refuse all sends."""
        self._forked = self._record_sender.forked = True
        self._takes_bytes = self._is_plain = False

    def __del__(self) -> None:
        """Close as the client does, but on the I/O thread, which would wait for itself, let it end.

        Overflow sends hold their producer. One that nobody else holds goes with the last answer.
        """
        if internals.on_io_thread(self):
            internals.end_soon(self)
        else:
            super().__del__()


def _shield_of(choice: Shield | str | Path | dict[str, Any] | None) -> Shield:
    return shield.shield_of(choice)


def _name(chosen: Shield, configs: dict[str, Any]) -> str:
    if chosen.settings.names_producer or not configs.get("client_id"):
        return chosen.settings.producer
    return str(configs["client_id"])


_producers: weakref.WeakSet[KafkaProducer] = weakref.WeakSet()


def _close_all(within_s: float) -> None:
    until_s = time.monotonic() + within_s
    for producer in list(_producers):
        if not producer._forked:
            producer.close(max(0.0, until_s - time.monotonic()))


def _mark_forked() -> None:
    for producer in list(_producers):
        producer._note_forked()


after_fork(_mark_forked, ForkStage.RESOURCES)
