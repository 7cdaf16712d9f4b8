"""How one producer's records are sent, past the decision: with which answers, marks and bounds."""

from __future__ import annotations

import threading
from typing import Any

from kafka import KafkaProducer as Client
from kafka.errors import KafkaError

from shield import End, OverLimit, Permit, Shield
from shield.action import Divert
from shield.chain.runner import hold_back
from shield_kafka.client import internals
from shield_kafka.client.envelopes import diverted_headers
from shield_kafka.client.errors import outcome_of
from shield_kafka.client.record import Record
from shield_kafka.client.serialization import accept_nothing, as_serialized
from shield_kafka.producing.batches import BatchAnswers
from shield_kafka.producing.topics import OverflowTopics
from shield_kafka.producing.transaction import Transaction


class _Oversize(threading.local):
    allowed = False


_oversize = _Oversize()


def may_be_oversize() -> bool:
    """Tell whether what this thread sends now may be larger than its user's bound."""
    return _oversize.allowed


class RecordSender:
    """Sends records through kafka-python's producer, and reports their ends.

    The producer is handed in each time, so that it is not kept alive from here: its own `__del__`
    closes it. Used by any number of threads.

    Args:
        shield: the Shield that decides.
        producer_name: who the producer is to quotas and ledger.
    """

    def __init__(self, shield: Shield, producer_name: str) -> None:
        self.shield = shield
        self.producer_name = producer_name
        self.transaction: Transaction | None = None
        """Where ends wait for a commit; None for a producer without transactions."""
        self.answers = BatchAnswers(shield.engine.delivered, _has_failed)
        """What is admitted and not answered."""
        self.overflow_topics = OverflowTopics()
        self.forked = False
        """Whether this is a forked child: the I/O thread has stayed in the parent."""
        self.continued = 0
        """How many sends began on the I/O thread and are not answered; changed on that thread."""

    def use_transactions(self) -> Transaction:
        """Let ends wait for a commit from now on; before the first send."""
        self.transaction = transaction = Transaction(self.shield)
        self.answers = BatchAnswers(transaction.delivered, _has_failed)
        return transaction

    # --- to where it was going ----------------------------------------------------------------

    def send_admitted(self, client: Client, permit: Permit, record: Record) -> Any:
        """Send, once policies ask for no delay any more; the permit is settled with the answer."""
        future = None
        try:
            hold_back(permit, lambda: may_wait(client))
            future = send(client, record)
            self.answers.expect(permit, future)
        except BaseException as error:
            self.interrupted(permit, future, error)
            raise
        return future

    def interrupted(self, permit: Permit, future: Any, error: BaseException) -> None:
        """Give back what was not sent; what was, is answered all the same."""
        self.shield.engine.interrupted(error)
        if future is None:
            permit.cancel()
        else:
            self.answers.expect_once(permit, future, None)

    # --- to where it was not going ------------------------------------------------------------

    def send_diverted(self, client: Client, over: OverLimit, step: Divert, record: Record) -> Any:
        """Send a record to an overflow topic; None where that cannot begin."""
        if not self.overflow_topics.ready(client, step.destination):
            return None
        copy = record._replace(
            topic=step.destination,
            headers=list(diverted_headers(over, record)),
            partition=None,
            timestamp_ms=None,
        )
        try:
            future = send_oversize(client, copy)
        except (KafkaError, ValueError, TypeError):
            return None
        if internals.on_io_thread(client):
            self.continued += 1
            future.add_both(self._continued_answered)
        return future

    def _continued_answered(self, _result: object) -> None:
        self.continued -= 1

    def overflowed(self, over: OverLimit) -> None:
        """Count a message that an overflow topic has; in a transaction, when that has its fate."""
        if self.transaction is None:
            over.end(End.OVERFLOWED)
        elif over.end(None):
            self.transaction.add(over.flow.account, End.OVERFLOWED)


def send(client: Client, record: Record) -> Any:
    """Hand a record to kafka-python; optional arguments by name, as instrumentation expects.

    The method is looked up each time: instrumentation puts its own into the client's class.
    """
    topic, value, key, headers, partition, timestamp_ms = record
    return Client.send(
        client,
        topic,
        value,
        key,
        headers=headers,
        partition=partition,
        timestamp_ms=timestamp_ms,
    )


def send_oversize(client: Client, record: Record) -> Any:
    """Send one with headers of ours, which may be larger for them than what the user may send.

    The bound was asked when the user sent it; what is too large for the broker, that refuses.
    """
    before, _oversize.allowed = _oversize.allowed, True
    try:
        return send(client, record)
    finally:
        _oversize.allowed = before


def send_bytes(client: Client, record: Record) -> Any:
    """Send a record of bytes such that they are not serialized again."""
    if record.key is None and record.value is None:
        accept_nothing(client.config)
    key = as_serialized(client.config, "key_serializer", record.key)
    value = as_serialized(client.config, "value_serializer", record.value)
    return send_oversize(client, record._replace(key=key, value=value))


def may_wait(client: Client) -> bool:
    """Tell whether this thread may be blocked: the I/O thread would wait for itself."""
    return not internals.on_io_thread(client)


def _has_failed(permit: Permit, error: BaseException) -> None:
    permit.settle(outcome_of(error))
