"""Fails when a private part of kafka-python that `internals.py` relies on has changed."""

from __future__ import annotations

import inspect
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import kafka
import pytest
from kafka.errors import KafkaTimeoutError, UnknownTopicOrPartitionError
from kafka.producer.future import FutureProduceResult, FutureRecordMetadata
from kafka.producer.producer_batch import ProducerBatch
from kafka.structs import TopicPartition

from shield_kafka import internals


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
