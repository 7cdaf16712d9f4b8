"""Fails when a private part of kafka-python that `internals.py` relies on has changed."""

from __future__ import annotations

import inspect
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import kafka
import pytest
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import (
    CommitFailedError,
    KafkaTimeoutError,
    RebalanceInProgressError,
    UnknownTopicOrPartitionError,
)
from kafka.net.compat import KafkaNetClient
from kafka.producer.future import FutureProduceResult, FutureRecordMetadata
from kafka.producer.producer_batch import ProducerBatch
from kafka.producer.record_accumulator import RecordAccumulator
from kafka.producer.sender import Sender
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from kafka.serializer import Deserializer
from kafka.structs import OffsetAndMetadata, TopicPartition

from shield_kafka.client import internals


@pytest.fixture
def bare():
    producer = kafka.KafkaProducer(api_version=(2, 3), enable_idempotence=False)
    yield producer
    producer.close(timeout=1)


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_the_methods_we_override_are_called_as_we_define_them():
    """`_serialize` and `_partition` take what our overrides take."""
    ours = internals.KafkaProducer
    assert parameters(ours._serialize) == ["self", "serializer", "topic", "headers", "data"]
    assert parameters(ours._partition) == [
        *("self", "topic", "partition", "key", "value", "serialized_key", "serialized_value")
    ]


def test_the_attributes_we_read_are_there(bare):
    """Closed, metadata, sender and configuration are where we look for them."""
    assert bare._closed is False
    assert bare._metadata.partitions_for_topic("unknown") is None
    assert callable(bare._metadata.request_update)
    assert callable(bare._sender.add_topic)
    assert callable(bare._sender.wakeup)
    assert callable(bare._sender.initiate_close)
    assert callable(bare._unregister_cleanup)
    assert bare._sender.is_alive()
    assert parameters(bare._wait_on_metadata) == ["topic", "max_wait_ms"]
    assert {"key_serializer", "value_serializer", "max_block_ms", "transactional_id"} <= set(
        bare.config
    )
    assert internals.was_made(bare)


def test_a_future_of_ours_is_completed_through_its_result():
    """`get` wakes up, and the metadata is what the result was given."""
    place = TopicPartition("t", 3)
    result = internals.FatedResult(place, "overflowed")
    future = internals.future_for(result, 1000, (1, 2, -1))
    assert type(future) is FutureRecordMetadata
    assert internals.fate_of(future) == "overflowed"
    assert internals.place_of(future) == place
    result.success((42, 1234, None))
    metadata = future.get(timeout=0)
    assert metadata.topic_partition == place
    assert (metadata.offset, metadata.timestamp) == (42, 1234)
    assert (metadata.serialized_key_size, metadata.serialized_value_size) == (1, 2)


def test_the_clients_own_futures_say_that_they_were_sent():
    """A future that is not ours has no mark, and that means `sent`."""
    future = FutureRecordMetadata(FutureProduceResult(TopicPartition("t", 0)), 0, 0, 0, 0, 0, 0)
    assert internals.fate_of(future) == "sent"


def test_a_topic_with_an_illegal_name_is_never_there(bare):
    """Asking for it, with or without waiting, raises nothing."""
    internals.ask_for(bare, "not legal")
    assert internals.learn(bare, "not legal", 10) is False
    assert internals.knows(bare, "not legal") is False


def test_a_topic_is_missing_only_where_a_broker_says_so(bare, producers):
    """While the producer has a connection; without one nobody knows."""
    assert isinstance(internals.topic_missing(bare, "other"), KafkaTimeoutError)
    connected = producers()
    connected.partitions_for("some")
    assert isinstance(internals.topic_missing(connected, "other"), UnknownTopicOrPartitionError)


def test_each_answered_produce_request_is_heard_and_then_handled(bare):
    """With its time on the wire, its oldest batch's time in the queue, and the throttle time."""
    assert parameters(bare._sender._handle_produce_response) == [
        *("node_id", "send_time", "batches", "response")
    ]
    assert "self._handle_produce_response, node_id, time.monotonic(), batches" in inspect.getsource(
        type(bare._sender)
    )
    handled, heard = [], []
    bare._sender._handle_produce_response = lambda *arguments: handled.append(arguments)
    internals.on_produced(bare, heard.append)
    batches = [SimpleNamespace(created=5.0, drained=5.5), SimpleNamespace(created=4.0, drained=5.5)]
    response = SimpleNamespace(throttle_time_ms=250)
    bare._sender._handle_produce_response(1, time.monotonic() - 2.0, batches, response)
    assert [arguments[2:] for arguments in handled] == [(batches, response)]
    assert heard[0].latency_s == pytest.approx(2.0, abs=0.5)
    assert heard[0][1:] == (1.5, 0.25, 0)
    bare._sender._handle_produce_response(1, 0.0, batches, None)  # acks=0 has no response
    assert heard[1].throttle_s == 0.0


def test_what_goes_wrong_while_listening_is_none_of_the_clients(bare, caplog):
    """It is logged, and the answer is handled all the same."""
    handled = []
    bare._sender._handle_produce_response = lambda *arguments: handled.append(arguments)
    internals.on_produced(bare, lambda produced: 1 / 0)
    batches = [SimpleNamespace(created=5.0, drained=5.5)]
    bare._sender._handle_produce_response(1, 0.0, batches, None)
    assert len(handled) == 1
    assert "taught nothing" in caplog.text


def producer_with_queue(linger_ms: int, listened: list[object]) -> SimpleNamespace:
    """Return what has the client's own queue, and no thread."""
    client = SimpleNamespace(
        poll=lambda *arguments, **named: listened.append((arguments, named)),
        in_flight_request_count=lambda: 2,
    )
    queue = RecordAccumulator(linger_ms=linger_ms)
    return SimpleNamespace(_sender=SimpleNamespace(_client=client, _accumulator=queue))


def test_a_producers_queue_is_looked_at_each_time_before_it_listens():
    """Its oldest batch, of all partitions, less what it lingers; the client listens all the same.

    A partition whose batches have all gone has none.
    """
    looked, listened = [], []
    producer = producer_with_queue(500, listened)
    sender = producer._sender
    internals.on_poll(producer, looked.append)
    sender._client.poll(timeout_ms=7)
    now = time.monotonic()
    for partition, age_s in ((0, 2), (1, 5), (2, 9)):
        place = TopicPartition("t", partition)
        sender._accumulator.append(place, 1000, b"k", b"v", [], now=now - age_s)
    sender._accumulator._batches[place].popleft()
    sender._client.poll(7)
    assert looked[0] == internals.Queued(2, None)
    assert looked[1].requests == 2
    assert looked[1].waits_s == pytest.approx(4.5, abs=0.4)
    assert listened == [((), {"timeout_ms": 7}), ((7,), {})]


def test_the_io_thread_listens_where_we_look():
    """In each way through its loop, once it has sent; its queue is where we look."""
    source = inspect.getsource(Sender.run_once)
    assert source.count("self._client.poll(") == 3
    assert "poll_timeout_ms = self._send_producer_data()\n        self._client.poll(" in source
    made = inspect.getsource(Sender.__init__)
    assert "self._client = client\n        self._accumulator = accumulator\n" in made
    assert "self._accumulator = RecordAccumulator(" in inspect.getsource(
        kafka.KafkaProducer.__init__
    )
    assert parameters(KafkaNetClient.poll) == ["self", "timeout_ms", "future"]
    assert parameters(KafkaNetClient.in_flight_request_count) == ["self", "node_id"]


def test_what_goes_wrong_with_a_look_is_none_of_the_clients(caplog):
    """It is logged, and the client listens."""
    listened = []
    producer = producer_with_queue(0, listened)
    internals.on_poll(producer, lambda queued: 1 / 0)
    producer._sender._client.poll()
    assert len(listened) == 1
    assert "taught nothing" in caplog.text


def test_a_batch_knows_when_it_was_made_and_drained():
    """In seconds; the second is None until then."""
    source = inspect.getsource(ProducerBatch.__init__)
    assert "self.created = " in source
    assert "self.drained = None" in source


def test_a_future_of_ours_wakes_who_waits_and_keeps_no_event_for_others():
    """A million that nobody waits for take a kilobyte less each; `get` works as the client's."""
    futures = []
    for complete in ("success", "failure"):
        result = internals.FatedResult(TopicPartition("t", 0), "buffered")
        future = internals.future_for(result, 1000, (1, 2, -1))
        assert result._event is None
        assert not result.wait(0.01)
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(future.get, 10) for _ in range(2)]
            value = (5, 1000, None) if complete == "success" else KafkaTimeoutError("late")
            getattr(result, complete)(value)
            futures += waiting
        assert result.wait(0)
    assert [future.result().offset for future in futures[:2]] == [5, 5]
    assert all(isinstance(future.exception(), KafkaTimeoutError) for future in futures[2:])


def test_who_waits_for_a_future_of_ours_goes_on_when_its_callbacks_have_run():
    """As with the client's: what a callback did is there after `get`."""
    result = internals.FatedResult(TopicPartition("t", 0), "buffered")
    future = internals.future_for(result, 1000, (1, 2, -1))
    seen = []
    result.add_callback(lambda _: seen.append(result.wait(0.01)))
    result.success((5, 1000, None))
    assert future.get(0).offset == 5
    assert seen == [False]


def test_the_result_that_we_complete_is_made_as_the_clients():
    """Ours leaves its event out and is otherwise what the client's own is."""
    own = FutureProduceResult(TopicPartition("t", 0))
    assert FutureProduceResult.__slots__ == ("topic_partition", "_latch")
    assert parameters(own.wait) == ["timeout"]
    assert parameters(own.success) == ["value"]
    assert parameters(own.failure) == ["error"]


def test_a_producer_can_be_abandoned(bare):
    """Its thread ends; `close` has nothing left to do."""
    assert not internals.is_closed(bare)
    internals.abandon(bare)
    bare._sender.join(60)
    assert not bare._sender.is_alive()
    assert internals.is_closed(bare)
    assert "self.flush(timeout)" in inspect.getsource(kafka.KafkaProducer.close)


# --- the consumer -------------------------------------------------------------------------------


@pytest.fixture
def consumer():
    consumer = kafka.KafkaConsumer(api_version=(2, 3), group_id="g")
    yield consumer
    consumer.close(autocommit=False, timeout_ms=100)


def test_the_consumers_poll_is_called_as_we_define_it():
    """Iteration polls without moving positions; it moves them itself, and asks what is paused."""
    assert parameters(kafka.KafkaConsumer.poll) == [
        *("self", "timeout_ms", "max_records", "update_offsets")
    ]
    source = inspect.getsource(kafka.KafkaConsumer._message_generator_v2)
    assert "self.poll(timeout_ms=timeout_ms, update_offsets=False)" in source
    assert "self._subscription.assignment[tp].position = OffsetAndMetadata(" in source
    assert "is_fetchable(tp)" in source


def test_a_partitions_state_is_found_and_is_another_one_when_it_was_away(consumer):
    """What stays assigned keeps its own."""
    find = internals.states_of(consumer)
    first, second = TopicPartition("t", 0), TopicPartition("t", 1)
    consumer.assign([first])
    state = find(first)
    assert (state.paused, state.position, state.is_fetchable()) == (False, None, False)
    consumer.seek(first, 5)
    assert state.position.offset == 5
    state.position = OffsetAndMetadata(7, "", -1)
    assert consumer.position(first) == 7
    state.paused = True
    assert consumer.paused() == {first}
    assert not state.is_fetchable()
    consumer.assign([first, second])
    assert find(first) is state
    consumer.assign([second])
    assert find(first) is None
    consumer.assign([first])
    assert find(first) is not state


def test_a_commit_is_heard_when_the_broker_has_taken_it_whole(consumer):
    """The client raises where it has not; an error of ours is none of its own."""
    coordinator = consumer._coordinator
    assert parameters(coordinator._handle_offset_commit_response) == [
        *("offsets", "send_time", "response")
    ]
    assert "self._handle_offset_commit_response(offsets, send_time, response)" in inspect.getsource(
        type(coordinator)._send_offset_commit_request
    )
    heard = []
    internals.on_committed(consumer, heard.append)
    offsets = {TopicPartition("t", 0): OffsetAndMetadata(5, "", -1)}
    coordinator._handle_offset_commit_response(
        offsets, 0.0, SimpleNamespace(topics=[("t", [(0, 0)])])
    )
    assert heard == [offsets]
    with pytest.raises(CommitFailedError):
        coordinator._handle_offset_commit_response(
            offsets, 0.0, SimpleNamespace(topics=[("t", [(0, RebalanceInProgressError.errno)])])
        )
    assert heard == [offsets]
    internals.on_committed(consumer, lambda offsets: 1 / 0)
    coordinator._handle_offset_commit_response(
        offsets, 0.0, SimpleNamespace(topics=[("t", [(0, 0)])])
    )


def test_a_commit_can_be_begun_before_its_time(consumer):
    """Nothing happens where no coordinator is known."""
    internals.commit_now(consumer)
    assert "enable_auto_commit" in inspect.getsource(
        type(consumer._coordinator).maybe_auto_commit_offsets_now
    )


def test_it_is_known_when_the_group_must_be_joined(consumer):
    """Where topics are subscribed and it was not yet; never with partitions of the user's."""
    consumer.assign([TopicPartition("t", 0)])
    assert not internals.must_join(consumer)
    consumer.unsubscribe()
    consumer.subscribe(["t"])
    assert internals.must_join(consumer)


def test_what_is_used_up_makes_way_for_what_is_parked(consumer):
    """And what is not stays in line."""
    fetcher = consumer._fetcher
    used_up = fetcher.PartitionRecords(0, TopicPartition("t", 0), MemoryRecords(b""))
    used_up.drain()
    for parked, in_line, left in [
        ({}, used_up, used_up),
        ({TopicPartition("t", 1): used_up}, used_up, None),
        ({TopicPartition("t", 1): used_up}, "unread", "unread"),
    ]:
        fetcher._paused_partition_records, fetcher._next_partition_records = parked, in_line
        internals.unpark(consumer)
        assert fetcher._next_partition_records is left
    fetcher._paused_partition_records, fetcher._next_partition_records = {}, None


def test_records_keep_the_bytes_that_were_deserialized(consumer):
    """Key and value of each, also where one of them is None, or has no deserializer."""
    builder = MemoryRecordsBuilder(2, 0, 10_000)
    for key, value in [(b"k1", b"v1"), (None, b"v2"), (b"k3", None)]:
        builder.append(1000, key, value, [])
    builder.close()
    internals.keep_bytes(consumer)

    class Text(Deserializer):
        def deserialize(self, topic, headers, data):
            return None if data is None else data.decode()

    unpacked = consumer._fetcher.PartitionRecords(
        0, TopicPartition("t", 0), MemoryRecords(builder.buffer()), None, Text()
    )
    records = unpacked.take()
    assert [(record.key, record.value) for record in records] == [
        *((b"k1", "v1"), (None, "v2"), (b"k3", None))
    ]
    assert [internals.bytes_of(record) for record in records] == [
        *((b"k1", b"v1"), (None, b"v2"), (b"k3", None))
    ]
    bare = ConsumerRecord(*records[0])
    assert records[0] == bare
    assert internals.bytes_of(bare) == (b"k1", "v1")
    assert "self.PartitionRecords(" in inspect.getsource(type(consumer._fetcher))
