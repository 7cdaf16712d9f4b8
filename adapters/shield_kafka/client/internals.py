"""Every private part of kafka-python that Shield touches, as read in 3.0.12.

`tests/adapters/shield_kafka/client/test_internals.py` fails when one of them changes.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from kafka import KafkaConsumer, KafkaProducer
from kafka.consumer.fetcher import ConsumerRecord, Fetcher
from kafka.errors import (
    BrokerResponseError,
    InvalidRecordError,
    InvalidTimestampError,
    InvalidTopicError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownError,
    UnknownTopicOrPartitionError,
    UnsupportedForMessageFormatError,
)
from kafka.future import Future
from kafka.partitioner import DefaultPartitioner, StickyPartitioner
from kafka.producer.future import FutureProduceResult, FutureRecordMetadata
from kafka.structs import OffsetAndMetadata, TopicPartition
from kafka.util import ensure_valid_topic_name

from shield_kafka.client.record import Header, Record, data_of
from shield_kafka.client.serialization import given_by_user

log = logging.getLogger("shield.kafka")
SPLIT_WITHIN_S = 0.001
LARGEST_TIMESTAMP_MS = 2**62
"""Half of what 64 bits hold: a batch has the differences of its records' timestamps, too."""


class FatedResult(FutureProduceResult):  # type: ignore[misc] # kafka-python is untyped
    """What completes a future of ours, and which way its message went.

    A `FutureRecordMetadata` has no room for a mark and wakes `get()` only through its
    `FutureProduceResult` (`_produce_future`), so the mark is there.

    The client's own has an event from the start, which is shared by a batch. Here each message has
    one of these, maybe a million in a buffer, and so its event is made when somebody waits: 1.1 kB
    less for each.
    """

    __slots__ = ("_event", "fate")

    def __init__(self, place: TopicPartition, fate: str) -> None:
        Future.__init__(self)
        self.topic_partition = place  # type: ignore[misc] # the base class, untyped, has its slot
        self._event: threading.Event | None = None
        self.fate = fate

    def success(self, value: Any) -> FatedResult:
        """Complete it, tell those who asked for that, then let those go on who wait."""
        Future.success(self, value)
        self._release()
        return self

    def failure(self, error: Any) -> FatedResult:
        """Do the same with an error."""
        Future.failure(self, error)
        self._release()
        return self

    def _release(self) -> None:
        with self._lock:
            event, self._event = self._event, _RELEASED
        if event is not None:
            event.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it is complete, or the time (seconds) is over; tell which."""
        with self._lock:
            if self._event is None:
                self._event = threading.Event()
            event = self._event
        return event.wait(timeout)


_RELEASED = threading.Event()
_RELEASED.set()


def future_for(result: FatedResult, timestamp_ms: int | None, sizes: tuple[int, int, int]) -> Any:
    """Return a future of the client's own class that `result` completes."""
    return FutureRecordMetadata(result, None, timestamp_ms, None, *sizes)


def fate_of(future: FutureRecordMetadata) -> str:
    """Return which way the message of this future went."""
    return str(getattr(future._produce_future, "fate", "sent"))


def batch_of(future: FutureRecordMetadata) -> FutureProduceResult:
    """Return what completes this future together with those of its batch; a split changes it."""
    return future._produce_future


def was_delivered_whole(batch: FutureProduceResult) -> bool:
    """Tell whether the broker has taken every record of a batch: no error, none refused."""
    return batch.is_done and batch.value is not None and batch.value[2] is None


def place_of(future: FutureRecordMetadata) -> TopicPartition:
    """Return the topic and partition that a future's message is going to."""
    return future._produce_future.topic_partition


def serialize(producer: KafkaProducer, which: str, topic: str, headers: Any, data: Any) -> Any:
    """Serialize a key or a value as `send` would."""
    return producer._serialize(producer.config[which], topic, headers, data)


def on_io_thread(producer: KafkaProducer) -> bool:
    """Tell whether the current thread is the one that sends for this producer."""
    return threading.current_thread() is getattr(producer, "_sender", None)


def knows(producer: KafkaProducer, topic: str) -> bool:
    """Tell whether `send` to the topic would begin without waiting for metadata."""
    return topic in producer._metadata._partitions


def ask_for(producer: KafkaProducer, topic: str) -> None:
    """Ask for a topic's metadata without waiting for the answer."""
    try:
        producer._sender.add_topic(topic)
    except (TypeError, ValueError):
        return  # no legal name: it will never be there
    producer._metadata.request_update()
    producer._sender.wakeup()


def learn(producer: KafkaProducer, topic: str, timeout_ms: float) -> bool:
    """Ask for a topic's metadata and wait; tell whether the topic is there."""
    try:
        producer._wait_on_metadata(topic, timeout_ms)
    except (KafkaError, TypeError, ValueError):
        return False
    return True


def is_connected(producer: KafkaProducer) -> bool:
    """Tell whether any broker answers, as far as the client knows."""
    connections = list(producer._sender._client._manager._conns.values())
    return any(connection.connected for connection in connections)


def topic_missing(producer: KafkaProducer, topic: str) -> KafkaError:
    """Return why nothing can be sent to a topic: it is not there, or no broker has said so."""
    if is_connected(producer):
        return UnknownTopicOrPartitionError(f"topic {topic} is not there")
    return KafkaTimeoutError(f"topic {topic}: no broker answers")


class WithNulls(list[Header]):
    """Headers with values that are null, as other clients write them, which `send` refuses.

    The protocol has them, and 3.0.12 writes them; but it asks for bytes before, and counts bytes
    afterwards. So they are null for what measures and writes a record, and empty for all others.
    """

    def __iter__(self) -> Iterator[Header]:
        """Look who asks."""
        if sys._getframe(1).f_code.co_name in ("append", "size_of"):
            return super().__iter__()
        return iter([(name, value or b"") for name, value in super().__iter__()])


def headers_for(headers: Iterable[Header]) -> list[Header]:
    """Return headers such that `send` takes them, whatever they hold."""
    found = list(headers)
    return WithNulls(found) if any(value is None for _, value in found) else found


def partition_for(producer: KafkaProducer, topic: str, partition: int | None) -> int | None:
    """Return the partition, where the topic has it; else None, for the partitioner to choose."""
    there = producer._metadata.partitions_for_topic(topic) or ()
    return partition if partition in there else None


class RefusedByBrokerError(Exception):
    """A broker says that nothing may be sent to a topic: `send` returns a future that failed."""

    def __init__(self, error: BrokerResponseError) -> None:
        super().__init__(error)
        self.error = error


def refuse_in_the_call(producer: KafkaProducer, record: Record) -> int | None:
    """Raise what `send` would raise in the call; return the partition that it would choose.

    In the order of `send`: topic, partition, size, timestamp. None where the client's own
    partitioner chooses, which does so from the serialized key alone and may be asked later; and
    where no broker can be asked for the topic's partitions: who has the record already, may keep
    it until one can. A topic that is not known is waited for as `send` waits.
    """
    topic, partition, headers = record.topic, record.partition, record.headers or []
    key, value = data_of(record.key), data_of(record.value)
    ensure_valid_topic_name(topic)
    if knows(producer, topic) or _asked_for(producer, topic):
        partition = _partition(producer, record, key, value)
    producer._ensure_valid_record_size(producer._estimate_size_in_bytes(key, value, headers))
    refuse_timestamp(record.timestamp_ms)
    manager = producer._transaction_manager
    if manager is not None:
        manager._fail_if_not_ready_for_send()
    return partition


def _asked_for(producer: KafkaProducer, topic: str) -> bool:
    if on_io_thread(producer) or not is_connected(producer):
        return False
    try:
        producer._wait_on_metadata(topic, producer.config["max_block_ms"])
    except BrokerResponseError as error:
        raise RefusedByBrokerError(error) from error
    return True


def _partition(producer: KafkaProducer, record: Record, key: Any, value: Any) -> int | None:
    own = type(given_by_user(producer.config["partitioner"]))
    if record.partition is None and own in (DefaultPartitioner, StickyPartitioner):
        return None
    partition: int | None = producer._partition(
        record.topic, record.partition, record.key, record.value, key, value
    )
    if partition is None:
        raise ValueError(f"Partitioner did not assign a partition for topic {record.topic}!")
    return partition


def refuse_timestamp(timestamp_ms: Any) -> None:
    """Raise where a timestamp is none that the protocol can carry.

    3.0.12 takes an integer of any size, and then its I/O thread fails for ever on that batch, so
    that nothing of the partition, nor behind it, is ever sent.
    """
    if timestamp_ms is None:
        return
    if type(timestamp_ms) is not int:
        raise TypeError(timestamp_ms)
    if abs(timestamp_ms) > LARGEST_TIMESTAMP_MS:
        raise ValueError(f"timestamp_ms: found {timestamp_ms}; allowed are 64 bits")


def was_made(producer: KafkaProducer) -> bool:
    """Tell whether the client's `__init__` got far enough for its `close` to work."""
    return hasattr(producer, "config")


def end_soon(producer: KafkaProducer) -> None:
    """Let the I/O thread end by itself, when all is sent; for that thread, which cannot wait."""
    producer._unregister_cleanup()
    producer._sender.initiate_close()
    producer._closed = True


def is_closed(producer: KafkaProducer) -> bool:
    """Tell whether `close` came to its end: it raises before that where sends are unanswered."""
    return bool(producer._closed)


def abandon(producer: KafkaProducer) -> None:
    """Fail what is unanswered, and let the I/O thread end."""
    producer._unregister_cleanup()
    producer._sender.force_close()
    producer._closed = True


class Produced(NamedTuple):
    """What an answered produce request tells: times in seconds, and requests still unanswered."""

    latency_s: float
    queue_s: float
    throttle_s: float
    requests: int


def on_produced(producer: KafkaProducer, heard: Callable[[Produced], None]) -> None:
    """Have `heard` called for each answered produce request, before the client looks at it.

    On the I/O thread. The client's own metrics are averages of a minute, the latency's over
    requests of every kind. An error of `heard` is none of the client's.
    """
    sender = producer._sender
    handle, client = sender._handle_produce_response, sender._client

    def hear(node_id: Any, send_time: float, batches: Any, response: Any) -> None:
        try:
            oldest = min(batches, key=lambda batch: batch.created)
            throttle_ms = getattr(response, "throttle_time_ms", 0) or 0
            heard(
                Produced(
                    time.monotonic() - send_time,
                    oldest.drained - oldest.created,
                    throttle_ms / 1000,
                    client.in_flight_request_count(),
                )
            )
        except Exception:
            log.exception("the answer to a produce request taught nothing")
        handle(node_id, send_time, batches, response)

    sender._handle_produce_response = hear


REJECTED = (
    InvalidRecordError,
    InvalidTimestampError,
    InvalidTopicError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnsupportedForMessageFormatError,
)
"""After these a broker has written nothing of a batch, and would not the next time either."""
SUSPECTED = (InvalidRecordError, InvalidTimestampError)
"""Of these one record is the reason, and a broker refuses all that are in its batch with it."""


def fail_alone(producer: KafkaProducer) -> None:
    """Have a record that a broker refuses fail alone, and not its neighbours in the partition.

    3.0.12 fails the whole batch of a record that is invalid. And in an idempotent producer, as it
    is by default, a batch that is refused is the end of the producer: every later send fails. So
    a batch of which one record is at fault is split, as the client does with one that is too large,
    until that one is alone; then that alone fails, and its number is used again: else the broker
    would miss it. Not in transactions, which share their fate.
    """
    sender, transactions = producer._sender, producer._transaction_manager
    if transactions is not None and transactions.is_transactional():
        return
    can_split, dispatch = sender._can_split, sender._dispatch_error

    def split(batch: Any, error: type[Exception]) -> bool:
        if error not in SUSPECTED:
            return bool(can_split(batch, error))
        return bool(can_split(batch, MessageSizeTooLargeError))

    def count_anew(batch: Any, exception: Exception, partition_response: Any) -> None:
        dispatch(batch, exception, partition_response)
        rejected = batch.final_state is not None and isinstance(exception, REJECTED)
        if rejected and transactions is not None and batch.records.base_sequence not in (None, -1):
            transactions.set_sequence_number(batch.topic_partition, batch.records.base_sequence)

    sender._can_split, sender._dispatch_error = split, count_anew
    if transactions is None:
        return
    classify = transactions.classify_batch_error

    def is_no_end(error: Any, batch: Any, log_start_offset: int = -1) -> Any:
        if issubclass(error if isinstance(error, type) else type(error), REJECTED):
            return transactions.ERROR_CLASS_RETRIABLE  # who cannot be, fails without more ado
        return classify(error, batch, log_start_offset=log_start_offset)

    transactions.classify_batch_error = is_no_end


def flush_whole(flush: Callable[[float | None], object], timeout_s: float | None) -> None:
    """Flush, also where batches are split meanwhile: 3.0.12 fails at the first that is."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        try:
            flush(None if deadline is None else max(0.0, deadline - time.monotonic()))
        except UnknownError:
            time.sleep(SPLIT_WITHIN_S)
        else:
            return


class Queued(NamedTuple):
    """What a producer has in hand: requests unanswered, and for how long its queue has waited."""

    requests: int
    waits_s: float | None
    """How long the oldest batch could have been sent by now, in seconds; None: there is none."""


def on_poll(producer: KafkaProducer, looked: Callable[[Queued], None]) -> None:
    """Have `looked` called each time the I/O thread has sent what it can, and goes to listen.

    So it is called at once when a batch is begun or a request answered, and while nothing can be
    sent. An error of `looked` is none of the client's.
    """
    sender = producer._sender
    client, accumulator = sender._client, sender._accumulator
    poll, linger_s = client.poll, accumulator.config["linger_ms"] / 1000

    def look_and_poll(*arguments: Any, **named: Any) -> Any:
        try:
            waiting = [queue[0].created for queue in list(accumulator._batches.values()) if queue]
            waits_s = time.monotonic() - linger_s - min(waiting) if waiting else None
            looked(Queued(client.in_flight_request_count(), waits_s))
        except Exception:
            log.exception("a look at a producer's queue taught nothing")
        return poll(*arguments, **named)

    client.poll = look_and_poll


# --- the consumer -------------------------------------------------------------------------------


class Assigned(Protocol):
    """One assigned partition as the client keeps it (`TopicPartitionState`).

    A partition that goes to another member and comes back has a new one: by that it is seen that
    what was known of it is over.
    """

    paused: bool
    position: OffsetAndMetadata | None
    """From where it is fetched, and what is committed; settable where it is not None."""

    def is_fetchable(self) -> bool:
        """Tell whether records may be handed over: not paused, not being revoked, not reset."""
        ...


StateOf = Callable[[TopicPartition], Assigned | None]


def states_of(consumer: KafkaConsumer) -> StateOf:
    """Return what finds the state of a partition; None for one that is not assigned."""
    find: StateOf = consumer._subscription.assignment.get
    return find


def on_committed(
    consumer: KafkaConsumer, heard: Callable[[Mapping[TopicPartition, OffsetAndMetadata]], None]
) -> None:
    """Have `heard` called for each commit that the broker has taken whole, whoever began it.

    Mostly on the I/O thread: commits of the user's and automatic ones, before a rebalance and on
    close as well. An error of `heard` is none of the client's.
    """
    coordinator = consumer._coordinator
    handle = coordinator._handle_offset_commit_response

    def hear(offsets: Any, send_time: float, response: Any) -> None:
        handle(offsets, send_time, response)  # raises where a partition was refused
        try:
            heard(offsets)
        except Exception:
            log.exception("a commit was not noted")

    coordinator._handle_offset_commit_response = hear


def commit_now(consumer: KafkaConsumer) -> None:
    """Begin the automatic commit before its time has come; nothing where it is not enabled."""
    consumer._coordinator.maybe_auto_commit_offsets_now()


def must_join(consumer: KafkaConsumer) -> bool:
    """Tell whether the next poll begins with joining the group anew, and a commit before that."""
    return bool(consumer._coordinator.need_rejoin())


def unpark(consumer: KafkaConsumer) -> None:
    """Let the client go on with what it has parked of partitions that were paused.

    3.0.12 does so only where no records are in line, and takes those that are used up for some:
    a partition that was paused and resumed may starve for as long as others have nothing new.
    """
    fetcher = consumer._fetcher
    if fetcher._paused_partition_records and not fetcher._next_partition_records:
        fetcher._next_partition_records = None


class BytesBeside(ConsumerRecord):  # type: ignore[misc] # kafka-python is untyped
    """A record whose key and value were deserialized, with their bytes."""

    raw: tuple[bytes | None, bytes | None]


BytesBeside.__name__ = BytesBeside.__qualname__ = ConsumerRecord.__name__


class _WithBytes(Fetcher.PartitionRecords):  # type: ignore[misc] # kafka-python is untyped
    """Unpacks fetched data as the client does, and keeps the bytes of each record with it."""

    def _unpack_records(self, *arguments: Any) -> Iterator[BytesBeside]:
        for record in super()._unpack_records(*arguments):
            beside = BytesBeside(*record)
            beside.raw = self._key, self._value
            yield beside

    def _deserialize(self, deserializer: Any, topic: str, headers: Any, data: Any) -> Any:
        """Note the data: the last two that were deserialized are the record's key and value."""
        self._key, self._value = getattr(self, "_value", None), data
        return super()._deserialize(deserializer, topic, headers, data)


def ask_for_topics(consumer: KafkaConsumer) -> None:
    """Ask for the metadata of what it has subscribed to, also where the client forgot to.

    It wants to know, but an answer to an older request that arrives just then makes it believe that
    it does; it asks again only after `metadata_max_age_ms`, five minutes, and has no partitions
    until then. Seen in one of forty starts with an `api_version`.
    """
    cluster = consumer._cluster
    under_way = cluster._refresh_future
    if under_way is None or under_way.is_done:
        cluster.request_update()
    else:
        under_way.add_both(lambda _: cluster.request_update())


def keep_bytes(consumer: KafkaConsumer) -> None:
    """Have records keep their bytes, where deserializers would leave nothing of them."""
    consumer._fetcher.PartitionRecords = _WithBytes


def bytes_of(record: ConsumerRecord) -> tuple[bytes | None, bytes | None]:
    """Return key and value as they were fetched."""
    raw: tuple[bytes | None, bytes | None] = getattr(record, "raw", (record.key, record.value))
    return raw
