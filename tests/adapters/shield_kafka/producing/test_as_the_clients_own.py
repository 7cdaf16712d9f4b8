"""What kafka-python's unit tests ask of its clients, asked of them and of ours.

Those tests are in no distribution, so these are our own of the same: clients whose `__init__` was
bypassed, whose parts are mocks, which never had a broker, or a configuration that cannot be.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import Any
from unittest.mock import MagicMock

import kafka
import pytest
from kafka.errors import IllegalStateError, KafkaConfigurationError
from kafka.partitioner import Partitioner, StickyPartitioner
from kafka.producer.future import FutureProduceResult, FutureRecordMetadata
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata, TopicPartition

import shield
from shield_kafka import KafkaConsumer, KafkaProducer

PLACE = TopicPartition("t", 0)
PRODUCERS = [kafka.KafkaProducer, KafkaProducer]
CONSUMERS = [kafka.KafkaConsumer, KafkaConsumer]
NO_BROKER = {"bootstrap_servers": "127.0.0.1:1", "api_version": (2, 1)}


def rules(direction: str) -> dict[str, Any]:
    wide: dict[str, Any] = {"match": "*", "direction": direction, "quota": "1000000/s"}
    return {"rules": [{**wide, "in_flight": {"messages": 100_000}, "over_limit": "drop"}]}


def by(classes: list[type], direction: str) -> Any:
    """Each test with the client's own class, with ours, and with ours under rules."""
    bare, ours = (partial(one, **NO_BROKER) for one in classes)
    ruled = partial(ours, shield=rules(direction))
    return pytest.mark.parametrize("make", [bare, ours, ruled], ids=["bare", "ours", "ruled"])


with_each_producer, with_each_consumer = by(PRODUCERS, "publish"), by(CONSUMERS, "consume")


def metadata() -> MagicMock:
    """Knows one topic of three partitions."""
    known = MagicMock()
    known.topics.return_value = {"t"}
    known.partitions_for_topic.return_value = {0, 1, 2}
    known.available_partitions_for_topic.return_value = {0, 1, 2}
    return known


def appended(*, begins_a_batch: bool = False) -> tuple[Any, bool, bool, bool]:
    """What an accumulator answers: that it has the record, or wants another partition first."""
    if begins_a_batch:
        return None, False, False, True
    result = FutureProduceResult(PLACE)
    return FutureRecordMetadata(result, 0, 0, 0, 0, 0, 0), False, True, False


def succeed(future: FutureRecordMetadata) -> None:
    future._produce_future.success((7, -1, None))


# --- producers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PRODUCERS)
def test_the_partitioner_of_a_bare_producer_is_asked_as_ever(kind):
    """Topic, key and value before and after they are serialized, and the cluster."""
    producer = kind.__new__(kind)
    producer._metadata = metadata()
    partitioner = MagicMock(spec=Partitioner)
    partitioner.partition.return_value = 1
    producer.config = {"partitioner": partitioner}
    assert producer._partition("t", None, "k", "v", b"k", b"v") == 1
    partitioner.partition.assert_called_once_with("t", "k", b"k", "v", b"v", producer._metadata)


@pytest.mark.parametrize("kind", PRODUCERS)
def test_a_bare_producer_takes_a_partition_that_there_is(kind):
    """One that there is not is refused, and a topic that is not known has none."""
    producer = kind.__new__(kind)
    producer._metadata = metadata()
    producer.config = {"partitioner": MagicMock(spec=Partitioner)}
    assert producer._partition("t", 2, None, None, b"k", b"v") == 2
    for wrong in (-1, 3):
        with pytest.raises(ValueError, match="artition"):
            producer._partition("t", wrong, None, None, b"k", b"v")
    assert producer._partition("other", 2, None, None, b"k", b"v") is None
    producer.config["partitioner"].partition.assert_not_called()


def bare_producer(kind: type) -> Any:
    """One that was not made, with all that its `send` asks for."""
    producer: Any = kind.__new__(kind)
    vars(producer).update(
        config={**kind.DEFAULT_CONFIG, "api_version": (2, 1), "partitioner": sticky(1)},
        _metadata=metadata(),
        _accumulator=MagicMock(),
        _sender=MagicMock(),
        _transaction_manager=None,
        _metrics=None,
        _closed=False,
    )
    producer._accumulator.append.return_value = appended()
    return producer


def sticky(*partitions: int) -> MagicMock:
    """A partitioner that chooses these, one after the other."""
    partitioner = MagicMock(spec=StickyPartitioner)
    partitioner.partition.side_effect = partitions
    return partitioner


@pytest.mark.parametrize("kind", PRODUCERS)
def test_a_bare_producer_sends_and_flushes(kind):
    """To the accumulator that it was given, and the future is that one's."""
    producer = bare_producer(kind)
    future, *_ = producer._accumulator.append.return_value
    headers = [("a", b"b")]
    assert producer.send("t", b"v", b"k", headers, timestamp_ms=5) is future
    (place, *record), named = producer._accumulator.append.call_args
    assert (place, record) == (TopicPartition("t", 1), [5, b"k", b"v", headers])
    assert named == {"abort_on_new_batch": False}
    producer._sender.wakeup.assert_called_once_with()
    producer.flush(3)
    producer._accumulator.await_flush_completion.assert_called_once_with(timeout=3)
    for wrong in ({"value": None}, {"value": "text"}, {"value": b"v", "headers": {}}):
        with pytest.raises((TypeError, ValueError)):
            producer.send("t", **wrong)
    producer._closed = True
    with pytest.raises(IllegalStateError):
        producer.send("t", b"v")


def mocked(make: Any, *partitions: int) -> Any:
    """A producer that is alive, whose accumulator, sender and metadata are mocks."""
    producer = make(partitioner=sticky(*partitions), enable_idempotence=False)
    producer._real = producer._sender
    producer._accumulator, producer._sender = MagicMock(), MagicMock()
    producer._metadata = metadata()
    return producer


def end(producer: Any) -> None:
    producer._sender = producer._real
    producer.close(timeout=1)


@with_each_producer
def test_a_record_without_key_that_begins_a_batch_chooses_again(make):
    """The partitioner is told of it; the record goes to what it chooses then."""
    producer = mocked(make, 2, 1)
    producer._accumulator.append.side_effect = [appended(begins_a_batch=True), appended()]
    producer.send("t", value=b"v")
    partitioner = producer.config["partitioner"]
    partitioner.on_new_batch.assert_called_once_with("t", producer._metadata, 2)
    first, second = producer._accumulator.append.call_args_list
    assert (first.args[0].partition, second.args[0].partition) == (2, 1)
    assert (first.kwargs, second.kwargs) == (
        {"abort_on_new_batch": True},
        {"abort_on_new_batch": False},
    )
    end(producer)


@with_each_producer
@pytest.mark.parametrize("arguments", [{"key": b"k"}, {"partition": 2}], ids=str)
def test_one_with_a_key_or_a_partition_does_not(make, arguments):
    """It is appended once; a partition that was given is asked of nobody."""
    producer = mocked(make, 2)
    producer._accumulator.append.return_value = appended()
    producer.send("t", value=b"v", **arguments)
    partitioner = producer.config["partitioner"]
    partitioner.on_new_batch.assert_not_called()
    assert partitioner.partition.called == ("key" in arguments)
    append = producer._accumulator.append
    append.assert_called_once()
    assert append.call_args.args[0] == TopicPartition("t", 2)
    assert append.call_args.kwargs == {"abort_on_new_batch": False}
    end(producer)


def test_the_ledger_hears_from_a_future_that_a_mock_returned():
    """It is the future that is waited for, whoever made it."""
    producer = mocked(partial(KafkaProducer, **NO_BROKER, shield=rules("publish")), 1)
    producer._accumulator.append.return_value = appended()
    future = producer.send("t", b"v", key=b"k")
    assert producer.shield.ledger().in_flight == 1
    succeed(future)
    ledger = producer.shield.ledger()
    assert (ledger.delivered, ledger.in_flight) == (1, 0)
    assert shield.fate(future) == "sent"
    end(producer)


@with_each_producer
@pytest.mark.parametrize("how", ["close", "with"])
def test_a_producer_is_one_thread_until_it_is_closed(make, how):
    """Also where there is no broker."""
    before = threading.active_count()
    producer = make()
    assert threading.active_count() == before + 1
    assert producer._closed is False
    if how == "close":
        producer.close()
    else:
        with producer:
            pass
    assert producer._closed is True
    assert threading.active_count() == before


IDEMPOTENT = [
    ({}, True, -1),
    ({"enable_idempotence": True, "acks": "all"}, True, -1),
    ({"enable_idempotence": False}, False, -1),
    ({"acks": 1}, False, 1),
    ({"acks": 0}, False, 0),
    ({"retries": 0}, False, -1),
    ({"max_in_flight_requests_per_connection": 10}, False, -1),
    ({"api_version": (0, 10)}, False, -1),
]


@with_each_producer
@pytest.mark.parametrize(("configs", "idempotent", "acks"), IDEMPOTENT, ids=str)
def test_idempotence_is_on_unless_something_given_speaks_against_it(
    make, configs, idempotent, acks
):
    """As the client resolves it."""
    with make(**configs) as producer:
        assert producer.config["enable_idempotence"] is idempotent
        assert producer.config["acks"] == acks
        assert (producer._transaction_manager is not None) is idempotent
        assert not (idempotent and producer._transaction_manager.is_transactional())


ASKED = {"enable_idempotence": True}
TRANSACTIONAL = {"transactional_id": "t"}
CONTRADICTIONS = [
    ({**ASKED, "acks": 1}, "acks=1"),
    ({**ASKED, "acks": 0}, "acks=0"),
    ({**ASKED, "retries": 0}, "retries=0"),
    ({**ASKED, "max_in_flight_requests_per_connection": 10}, "max_in_flight.*=10"),
    ({**ASKED, "acks": 1, "retries": 0}, "acks=1.*retries=0"),
    ({**ASKED, "api_version": (0, 10)}, "api_version"),
    ({**TRANSACTIONAL, "acks": 1}, "acks=1"),
    ({**TRANSACTIONAL, "retries": 0}, "retries=0"),
    ({**TRANSACTIONAL, "api_version": (0, 10)}, "api_version"),
    ({**TRANSACTIONAL, "enable_idempotence": False}, "without enable_idempotence"),
]


@with_each_producer
@pytest.mark.parametrize(("configs", "said"), CONTRADICTIONS, ids=str)
def test_a_producer_that_cannot_be_is_refused(make, configs, said):
    """With the client's own error; no thread is left."""
    before = threading.active_count()
    with pytest.raises(KafkaConfigurationError, match=f"(?s){said}"):
        make(**configs)
    assert threading.active_count() == before


# --- consumers ----------------------------------------------------------------------------------


@with_each_consumer
@pytest.mark.parametrize(
    "configs",
    [
        {"fetch_max_wait_ms": 50_000, "request_timeout_ms": 40_000},
        {"request_timeout_ms": 50_000, "connections_max_idle_ms": 40_000},
    ],
    ids=str,
)
def test_a_consumer_that_cannot_be_is_refused(make, configs):
    """With the client's own error."""
    with pytest.raises(KafkaConfigurationError):
        make(**configs)


@with_each_consumer
def test_a_subscription_is_the_callers_own_copy(make):
    """What he adds to it is not subscribed to."""
    with make("t") as consumer:
        found = consumer.subscription()
        assert found == {"t"}
        found.add("other")
        assert consumer.subscription() == {"t"}


@with_each_consumer
def test_one_subscribes_or_assigns(make):
    """Never both; the cluster is asked for either."""
    with make("t") as consumer:
        assert consumer.assignment() == set()
        assert "t" in consumer._client.cluster._topics
        with pytest.raises(IllegalStateError):
            consumer.assign([PLACE])
    with make() as consumer:
        consumer.assign([PLACE])
        assert consumer.assignment() == {PLACE}
        assert "t" in consumer._client.cluster._topics
        with pytest.raises(IllegalStateError):
            consumer.subscribe(topics=["t"])
        consumer.assign([])
        assert consumer.assignment() == set()


@with_each_consumer
def test_a_consumer_is_closed_where_its_context_ends(make):
    """By an error as well: then without a commit."""
    for error, commits in ((None, True), (RuntimeError, False)):
        consumer = make()
        consumer._coordinator.close = MagicMock()
        try:
            with consumer:
                assert consumer._closed is False
                if error:
                    raise error
        except RuntimeError:
            pass
        assert consumer._closed is True
        assert consumer._coordinator.close.call_args.kwargs["autocommit"] is commits


@with_each_consumer
@pytest.mark.parametrize("group", [None, "g"])
def test_what_a_consumer_tells_of_its_group(make, group):
    """As `send_offsets_to_transaction` takes it, before it has joined, or without one."""
    with make(group_id=group) as consumer:
        told = consumer.group_metadata()
    assert isinstance(told, ConsumerGroupMetadata)
    assert (told.group_id, told.generation_id, told.member_id) == (group, -1, "")


def bare_consumer(kind: type) -> Any:
    """One that was not made, with mocks for its parts."""
    consumer: Any = kind.__new__(kind)
    vars(consumer).update(
        config={**kind.DEFAULT_CONFIG, "group_id": "g", "api_version": (2, 1)},
        _subscription=MagicMock(),
        _coordinator=MagicMock(),
        _fetcher=MagicMock(spec=["fetch_records", *WAYS, "close"]),
        _client=MagicMock(),
        _cluster=MagicMock(spec=CLUSTER),
        _metrics=MagicMock(),
        _closed=False,
        _iterator=None,
        _consumer_timeout=float("inf"),
    )
    consumer._coordinator.time_to_next_poll.return_value = 0.0
    return consumer


CLUSTER = ["set_topics", "need_all_topic_metadata"]
WAYS = ["reset_offsets_if_needed", "maybe_validate_positions", "validate_offsets_if_needed"]


@pytest.mark.parametrize("kind", CONSUMERS)
def test_a_bare_consumer_polls_what_its_fetcher_has(kind):
    """The same object, and asked for as many as ever."""
    consumer = bare_consumer(kind)
    fetched = {PLACE: [MagicMock()]}
    consumer._fetcher.fetch_records.return_value = fetched, False
    assert consumer.poll(0, max_records=7) is fetched
    consumer._fetcher.fetch_records.assert_called_once_with(7, update_offsets=True, timeout_ms=0)
    consumer._coordinator.poll.assert_called_once()
    for wrong in ({"timeout_ms": -1}, {"max_records": 0}, {"max_records": "7"}):
        with pytest.raises((TypeError, ValueError)):
            consumer.poll(**wrong)


@pytest.mark.parametrize("kind", CONSUMERS)
def test_a_bare_consumer_does_what_its_subscription_does(kind):
    """Pausing, seeking, committing, subscribing and closing reach the parts that it was given."""
    consumer = bare_consumer(kind)
    subscription, coordinator = consumer._subscription, consumer._coordinator
    subscription.paused_partitions.return_value = {PLACE}
    consumer.pause(PLACE)
    assert consumer.paused() == {PLACE}
    consumer.resume(PLACE)
    subscription.pause.assert_called_once_with(PLACE)
    subscription.resume.assert_called_once_with(PLACE)
    subscription.assigned_partitions.return_value = {PLACE}
    consumer.seek(PLACE, 3)
    subscription.assignment[PLACE].seek.assert_called_once_with(3)
    consumer.seek_to_beginning(PLACE)
    consumer.seek_to_end(PLACE)
    assert subscription.request_offset_reset.call_count == 2
    offsets = {PLACE: OffsetAndMetadata(3, "", -1)}
    consumer.commit(offsets)
    assert coordinator.commit_offsets_sync.call_args.args[0] == offsets
    consumer.subscribe(["t"])
    consumer.unsubscribe()
    subscription.unsubscribe.assert_called_once_with()
    consumer.assign([PLACE])
    subscription.assign_from_user.assert_called_once_with([PLACE])
    consumer.close(autocommit=False)
    assert coordinator.close.call_args.kwargs["autocommit"] is False
    consumer.close()
    coordinator.close.assert_called_once()
