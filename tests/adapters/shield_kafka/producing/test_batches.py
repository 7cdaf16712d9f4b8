"""Permits are settled a batch at a time, each once, whatever becomes of the batch."""

from __future__ import annotations

import threading

import pytest
from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.producer.future import FutureProduceResult, FutureRecordMetadata
from kafka.structs import TopicPartition

from shield import Message, Shield
from shield_kafka.client.errors import outcome_of
from shield_kafka.producing.batches import BatchAnswers

BOUND = {"match": "*", "in_flight": {"messages": 100_000}}


class Batches:
    """Hand-made batches whose messages were admitted by a Shield."""

    def __init__(self) -> None:
        self.shield = Shield({"rules": [BOUND]})
        self.answers = BatchAnswers(
            self.shield.engine.delivered, lambda permit, error: permit.settle(outcome_of(error))
        )

    def batch(self) -> FutureProduceResult:
        return FutureProduceResult(TopicPartition("t", 0))

    def send(self, batch: FutureProduceResult, index: int) -> FutureRecordMetadata:
        future = FutureRecordMetadata(batch, index, 0, None, -1, 1, -1)
        self.answers.expect(self.shield.admit(Message("t", 1)), future)
        return future

    def counts(self) -> tuple[int, int, int]:
        ledger = self.shield.ledger()
        assert ledger.balanced
        return ledger.in_flight, ledger.delivered, ledger.failed


@pytest.fixture
def batches() -> Batches:
    return Batches()


def test_a_batch_that_is_delivered_whole_settles_all_its_messages(batches):
    """None before its answer, all with it."""
    batch = batches.batch()
    for index in range(10):
        batches.send(batch, index)
    assert batches.counts() == (10, 0, 0)
    batch.success((42, -1, None))
    assert batches.counts() == (0, 10, 0)


def test_batches_are_told_apart(batches):
    """The answer to one says nothing of another."""
    first, second = batches.batch(), batches.batch()
    for index in range(5):
        batches.send(first, index)
        batches.send(second, index)
    second.success((0, -1, None))
    assert batches.counts() == (5, 5, 0)


def test_records_that_were_refused_fail_and_those_beside_them_do_not(batches):
    """A batch with errors of its own for some records is asked record by record."""
    batch = batches.batch()
    for index in range(4):
        batches.send(batch, index)
    batch.success((-1, -1, lambda index: KafkaError(f"record {index}")))
    assert batches.counts() == (0, 0, 4)


def test_a_batch_that_was_split_is_followed_to_where_its_messages_went(batches):
    """The old batch is never answered; each message has the answer of its new one."""
    old, left, right = batches.batch(), batches.batch(), batches.batch()
    futures = [batches.send(old, index) for index in range(6)]
    for index, future in enumerate(futures):
        future.rebind(left if index < 3 else right, index % 3)
    left.success((0, -1, None))
    assert batches.counts() == (3, 3, 0)
    right.success((-1, -1, lambda index: KafkaTimeoutError("expired")))
    assert batches.counts() == (0, 3, 3)


def test_a_message_that_joins_a_batch_already_answered_is_settled_at_once(batches):
    """Between a send and its bookkeeping the broker may have answered."""
    batch = batches.batch()
    batches.send(batch, 0)
    batch.success((0, -1, None))
    batches.send(batch, 1)
    assert batches.counts() == (0, 2, 0)


def test_a_future_that_failed_before_it_was_sent_is_settled(batches):
    """kafka-python returns one where metadata could not be had."""
    future = FutureRecordMetadata(batches.batch(), -1, None, None, -1, 1, -1)
    future.failure(KafkaError("no metadata"))
    batches.answers.expect(batches.shield.admit(Message("t", 1)), future)
    assert batches.counts() == (0, 0, 1)


def test_answers_that_race_with_sends_lose_none(batches):
    """Threads send into batches while another answers them: every permit is settled once."""
    rounds, senders = 300, 3
    current = [batches.batch()]
    done = threading.Event()

    def send() -> None:
        for index in range(rounds):
            batches.send(current[0], index)

    def answer() -> None:
        while not done.is_set():
            batch, current[0] = current[0], batches.batch()
            batch.success((0, -1, None))
        current[0].success((0, -1, None))

    threads = [threading.Thread(target=send) for _ in range(senders)]
    answering = threading.Thread(target=answer)
    for thread in (*threads, answering):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    answering.join()
    assert batches.counts() == (0, rounds * senders, 0)
