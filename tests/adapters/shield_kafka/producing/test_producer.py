"""The producer's contract with people who already use kafka-python; each line of it a test."""

from __future__ import annotations

import contextlib
import gc
import inspect
import threading
import time
import warnings
from typing import Any
from unittest.mock import MagicMock

import kafka
import pytest
from kafka.errors import IllegalStateError, KafkaError, MessageSizeTooLargeError
from kafka.partitioner import Partitioner
from kafka.producer.future import FutureRecordMetadata
from kafka.serializer import Serializer

import shield
import shield_kafka
from shield_kafka import KafkaProducer

ONE_AN_HOUR = {"rate": "1/h", "burst": 1}


class Recorder(Serializer):
    """Encodes text, adds a header, and remembers which topics it was asked for."""

    def __init__(self) -> None:
        self.topics: list[str] = []

    def serialize(self, topic: str, headers: Any, data: Any) -> Any:
        self.topics.append(topic)
        headers.append(("serialized-for", topic.encode()))
        return None if data is None else str(data).encode()


def over_limit(match: str, *chain: str) -> list[dict[str, Any]]:
    """One rule that admits one message and sends what follows down the chain."""
    return [
        {
            "name": "orders",
            "match": match,
            "quota": ONE_AN_HOUR,
            "over_limit": list(chain) or ["raise"],
        }
    ]


PUBLIC = [
    name
    for name, _ in inspect.getmembers(kafka.KafkaProducer, inspect.isfunction)
    if not name.startswith("_")
]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_method_is_called_as_the_clients_own(name):
    """Names, order, kinds and defaults of the parameters are the client's."""
    ours, theirs = (
        [
            (parameter.name, parameter.kind, parameter.default)
            for parameter in inspect.signature(getattr(cls, name)).parameters.values()
        ]
        for cls in (KafkaProducer, kafka.KafkaProducer)
    )
    assert ours == theirs


def test_it_is_a_subclass_of_the_clients(producers, topic):
    """`isinstance` holds for whoever asks, and the methods that are not ours work."""
    producer = producers()
    assert isinstance(producer, kafka.KafkaProducer)
    assert producer.partitions_for(topic) == {0, 1, 2, 3}


def test_an_admitted_message_arrives_as_it_was_sent(producers, topic, read):
    """Key, value, headers and timestamp reach the topic, and the future is the client's own."""
    producer = producers(over_limit(topic))
    future = producer.send(topic, b"v", b"k", [("h", b"1")], timestamp_ms=1234567890123)
    assert type(future) is FutureRecordMetadata
    assert future.get(60).offset == 0
    assert shield.fate(future) == "sent"
    (message,) = read(topic)
    assert (message.key(), message.value(), message.headers()) == (b"k", b"v", [("h", b"1")])
    assert message.timestamp()[1] == 1234567890123


def test_every_positional_form_of_send_works(producers, topic, read):
    """Arguments may be given by position or by name, as the client takes them."""
    producer = producers()
    producer.send(topic, b"v", b"k", [("h", b"1")], 2, 1700000000000).get(60)
    producer.send(topic=topic, key=b"tombstone", partition=2).get(60)
    first, second = read(topic)
    assert (first.partition(), first.timestamp()[1]) == (2, 1700000000000)
    assert (second.partition(), second.value()) == (2, None)


def test_overflow_keeps_the_message_and_says_where_it_was_going(producers, topic, read):
    """Key, value, headers, timestamp survive; ours say origin, rule, policy, reason, producer."""
    producer = producers(over_limit(topic, f"overflow {topic}.overflow"), shield_producer="web")
    producer.send(topic, b"first").get(60)
    future = producer.send(topic, b"v", b"k", [("h", b"1")], timestamp_ms=1234567890123)
    metadata = future.get(60)
    assert type(future) is FutureRecordMetadata
    assert metadata.topic == f"{topic}.overflow"
    assert metadata.serialized_value_size == 1
    assert shield.fate(future) == "overflowed"
    (message,) = read(f"{topic}.overflow")
    headers = dict(message.headers())
    assert (message.key(), message.value(), headers["h"]) == (b"k", b"v", b"1")
    assert headers["shield-original-timestamp"] == b"1234567890123"
    assert message.timestamp()[1] > 1234567890123
    assert (message.partition(), message.offset()) == (metadata.partition, metadata.offset)
    assert headers["shield-original-destination"] == topic.encode()
    assert headers["shield-rule"] == b"orders"
    assert headers["shield-policy"] == b"quota"
    assert headers["shield-reason"] == b"1/h per producer"
    assert headers["shield-producer"] == b"web"
    assert headers["shield-attempt"] == b"1"
    assert len(headers["shield-message-id"]) == 36
    assert b"T" in headers["shield-diverted-at"]


def test_an_overflow_completes_callbacks_and_topic_partition_of_its_future(producers, topic):
    """Callbacks get the overflow's metadata; instrumentation finds the place it went to."""
    producer = producers(over_limit(topic, f"overflow {topic}.overflow"))
    producer.send(topic, b"first")
    seen: list[Any] = []
    future = producer.send(topic, b"second").add_callback(seen.append)
    producer.flush()
    assert [metadata.topic for metadata in seen] == [f"{topic}.overflow"]
    assert future._produce_future.topic_partition.topic == f"{topic}.overflow"


def test_a_message_diverted_again_keeps_its_id_and_counts_attempts(producers, topic, read):
    """The id is for the message's whole life; the attempt is one more each time."""
    producer = producers(over_limit(topic, f"overflow {topic}.overflow"))
    producer.send(topic, b"first").get(60)
    before = [("shield-message-id", b"the-id"), ("shield-attempt", b"3"), ("shield-rule", b"old")]
    producer.send(topic, b"second", headers=before).get(60)
    (message,) = read(f"{topic}.overflow")
    headers = message.headers()
    assert len(headers) == len(dict(headers))
    assert dict(headers)["shield-message-id"] == b"the-id"
    assert dict(headers)["shield-attempt"] == b"4"
    assert dict(headers)["shield-rule"] == b"orders"


def test_an_explicit_partition_is_left_to_the_partitioner_in_the_overflow_topic(producers, topic):
    """A partition of the original topic may not exist there."""
    producer = producers(over_limit(topic, f"overflow {topic}.overflow"))
    producer.send(topic, b"first").get(60)
    picked = {
        producer.send(topic, b"v", b"%d" % i, partition=3).get(60).partition for i in range(9)
    }
    assert picked != {3}


def test_drop_completes_at_once_and_says_so(producers, topic):
    """The future is done with offset -1, and its fate is `dropped`."""
    producer = producers(over_limit(topic, "drop"))
    producer.send(topic, b"first").get(60)
    future = producer.send(topic, b"second", b"k", partition=1)
    assert future.is_done
    assert future.succeeded()
    assert future.get(0).offset == -1
    assert (future.value.topic, future.value.partition) == (topic, 1)
    assert (future.value.serialized_key_size, future.value.serialized_value_size) == (1, 6)
    assert shield.fate(future) == "dropped"
    ledger = producer.shield.ledger()
    assert ledger.dropped == 1
    assert ledger.drops == {("orders", "quota", "1/h per producer"): 1}


def test_raise_is_caught_as_a_kafka_error(producers, topic):
    """`OverLimitError` is Shield's and the client's; it names rule, policy, reason and when."""
    producer = producers(over_limit(topic, "raise"))
    producer.send(topic, b"first").get(60)
    with pytest.raises(KafkaError) as caught:
        producer.send(topic, b"second")
    error = caught.value
    assert isinstance(error, shield.OverLimitError)
    assert isinstance(error, shield_kafka.KafkaOverLimitError)
    assert (error.rule, error.policy, error.reason) == ("orders", "quota", "1/h per producer")
    assert 3590 < error.retry_after <= 3600
    assert "orders" in str(error)
    assert hash(error) is not None
    assert producer.shield.ledger().raised == 1


def test_wait_sends_when_the_quota_allows(producers, topic, read):
    """A caller over its quota is kept until its turn, then its message is sent as usual."""
    quota = {"rate": "10/s", "burst": 1}
    producer = producers([{"match": topic, "quota": quota, "over_limit": "wait 5s"}])
    producer.partitions_for(topic)
    for i in range(10):
        producer.send(topic, b"%d" % i, partition=0)
    producer.flush()
    assert [message.value() for message in read(topic)] == [b"%d" % i for i in range(10)]
    ledger = producer.shield.ledger()
    assert (ledger.delivered, sum(ledger.over_limit.values())) == (10, 9)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"value": "text"}, TypeError),
        ({"value": b"v", "key": 7}, TypeError),
        ({"value": b"v", "headers": {"a": b"b"}}, TypeError),
        ({"value": b"v", "headers": [("a", "b")]}, TypeError),
        ({"value": b"v", "headers": (("a", b"b"),)}, TypeError),
        ({}, ValueError),
        ({"value": b"v", "partition": 99}, ValueError),
        ({"value": b"v", "partition": -1}, ValueError),
        ({"value": b"v" * 2_000_000}, MessageSizeTooLargeError),
    ],
)
def test_bad_arguments_raise_what_the_client_raises_and_charge_nothing(
    producers, bootstrap, topic, arguments, error
):
    """The same error with the same words as the bare client; the quota is untouched."""
    bare = kafka.KafkaProducer(bootstrap_servers=bootstrap, api_version=(2, 3))
    with pytest.raises(error) as expected:
        bare.send(topic, **arguments)
    bare.close()
    producer = producers(over_limit(topic, "raise"))
    with pytest.raises(error) as raised:
        producer.send(topic, **arguments)
    assert str(raised.value) == str(expected.value)
    assert producer.send(topic, b"the one the quota has").get(60).offset >= 0
    ledger = producer.shield.ledger()
    assert ledger.balanced
    assert (ledger.delivered, ledger.raised) == (1, 0)


@pytest.mark.parametrize("name", [7, None, b"bytes", "no spaces allowed", ""])
def test_a_bad_topic_raises_what_the_client_raises(producers, bootstrap, topic, name):
    """A topic that is no text, or no legal name, is the client's to refuse."""
    bare = kafka.KafkaProducer(bootstrap_servers=bootstrap, api_version=(2, 3), max_block_ms=300)
    with pytest.raises(Exception) as expected:  # noqa: PT011 - whatever it is
        bare.send(name, b"v")
    bare.close()
    producer = producers(over_limit("*", "raise"), max_block_ms=300)
    with pytest.raises(type(expected.value)):
        producer.send(name, b"v")
    producer.send(topic, b"the one the quota has").get(60)


def test_send_after_close_raises_what_the_client_raises(producers, topic):
    """Closed is closed: IllegalStateError, nothing charged, nothing offered."""
    producer = producers(over_limit(topic))
    producer.close()
    producer.close()
    with pytest.raises(IllegalStateError):
        producer.send(topic, b"v")
    assert producer.shield.ledger().offered == 0


def test_serializers_run_once_under_the_original_topic(producers, topic, read):
    """A diverted message is not serialized again, and headers a serializer adds go along."""
    keys, values = Recorder(), Recorder()
    producer = producers(
        over_limit(topic, f"overflow {topic}.overflow"),
        key_serializer=keys,
        value_serializer=values,
    )
    producer.send(topic, 1, 10).get(60)
    producer.send(topic, 2, 20).get(60)
    assert keys.topics == values.topics == [topic, topic]
    (message,) = read(f"{topic}.overflow")
    assert (message.key(), message.value()) == (b"20", b"2")
    added = [value for name, value in message.headers() if name == "serialized-for"]
    assert added == [topic.encode()] * 2


def test_a_serializer_that_makes_no_bytes_raises_what_the_client_raises(producers, topic):
    """The type of what serializers return is checked before a quota is charged."""

    class Wrong(Serializer):
        def serialize(self, topic, headers, data):
            return 3.14

    producer = producers(over_limit(topic), value_serializer=Wrong())
    with pytest.raises(TypeError, match="Unsupported type for serialized value"):
        producer.send(topic, "v")
    assert producer.shield.ledger().offered == 0


def test_an_error_in_a_serializer_reaches_the_caller_and_charges_nothing(producers, topic):
    """What a user's serializer raises is the user's."""

    class Broken(Serializer):
        def serialize(self, topic, headers, data):
            raise ZeroDivisionError

    producer = producers(over_limit(topic), value_serializer=Broken())
    with pytest.raises(ZeroDivisionError):
        producer.send(topic, "v")
    assert producer.shield.ledger().offered == 0


def test_a_partitioner_sees_the_original_key_and_value(producers, topic):
    """Serializing early does not change what a partitioner is given."""
    seen: list[Any] = []

    class Spy(Partitioner):
        def partition(self, topic, key, serialized_key, value, serialized_value, cluster):
            seen.append((key, serialized_key, value, serialized_value))
            return 1

    producer = producers(key_serializer=Recorder(), value_serializer=Recorder(), partitioner=Spy())
    assert producer.send(topic, 2, 20).get(60).partition == 1
    assert seen == [(20, b"20", 2, b"2")]


@pytest.mark.parametrize("wrap", [bytearray, memoryview])
def test_every_type_of_bytes_is_taken(producers, topic, read, wrap):
    """Bytearray and memoryview go through, as value and as key, also with a quota per key."""
    producer = producers([{"match": topic, "quota": {"rate": "1/h", "per": "key"}}])
    producer.send(topic, wrap(b"v"), wrap(b"k")).get(60)
    (message,) = read(topic)
    assert (message.key(), message.value()) == (b"k", b"v")


def test_quotas_per_header_and_key_tell_messages_apart(producers, topic):
    """Each tenant, or key, has a quota of its own."""
    producer = producers(
        [{"match": topic, "quota": ONE_AN_HOUR | {"per": "header:tenant"}, "over_limit": "drop"}]
    )
    fates = [
        shield.fate(producer.send(topic, b"v", headers=[("tenant", tenant)]))
        for tenant in (b"a", b"b", b"a", b"c", b"b")
    ]
    assert fates == ["sent", "sent", "dropped", "sent", "dropped"]


def test_producers_of_one_name_share_a_quota_and_others_do_not(producers, topic):
    """In one Shield, the name decides whose quota it is."""
    shared = shield.Shield({"rules": over_limit(topic, "drop")})
    a1 = producers(shared, shield_producer="a")
    a2 = producers(shared, shield_producer="a")
    b = producers(shared, client_id="b")
    assert [shield.fate(p.send(topic, b"v")) for p in (a1, a2, b)] == ["sent", "dropped", "sent"]
    assert {"a", "b"} <= shared.ledger().producers.keys()


def test_settings_that_name_the_process_name_its_producers(producers, topic):
    """`producer` in the settings stands above a client_id."""
    shared = shield.Shield({"shield": {"producer": "checkout"}, "rules": over_limit(topic, "drop")})
    first, second = producers(shared, client_id="a"), producers(shared, client_id="b")
    assert [shield.fate(p.send(topic, b"v")) for p in (first, second)] == ["sent", "dropped"]
    assert list(shared.ledger().producers) == ["checkout"]


def test_in_flight_is_released_by_the_brokers_answer(producers, topic):
    """As many again may be sent once those before are acknowledged."""
    producer = producers([{"match": topic, "in_flight": {"messages": 2}, "over_limit": "drop"}])
    for _ in range(3):
        futures = [producer.send(topic, b"v") for _ in range(2)]
        [future.get(60) for future in futures]
    assert producer.shield.ledger().delivered == 6


def test_an_overflow_topic_that_is_missing_lets_the_chain_go_on(bootstrap, topic):
    """Nothing hangs for longer than two seconds, and only the first time."""
    chosen = shield.Shield({"rules": over_limit(topic, "overflow bad*name", "drop")})
    with KafkaProducer(bootstrap_servers=bootstrap, api_version=(2, 3), shield=chosen) as producer:
        fates = [shield.fate(producer.send(topic, b"v")) for _ in range(3)]
    assert fates == ["sent", "dropped", "dropped"]


def test_an_overflow_send_that_fails_goes_on_with_the_chain(producers, topic, read, monkeypatch):
    """A second overflow takes what the first could not, and the caller's future follows it."""
    chain = [f"overflow {topic}.gone", f"overflow {topic}.second"]
    producer = producers(over_limit(topic, *chain), retries=0, enable_idempotence=False)
    producer.send(topic, b"first").get(60)
    producer.send(f"{topic}.second", b"there already").get(60)
    fail_sends_to(producer, f"{topic}.gone", monkeypatch)
    future = producer.send(topic, b"second")
    producer.flush()
    assert future.is_done
    assert future.get(60).topic == f"{topic}.second"
    assert {message.value() for message in read(f"{topic}.second")} == {b"there already", b"second"}
    ledger = producer.shield.ledger()
    assert (ledger.overflowed, ledger.in_flight) == (1, 0)


@pytest.mark.parametrize(("last", "end"), [("raise", "raised"), ("drop", "dropped")])
def test_what_ends_the_chain_after_a_failed_overflow_completes_the_future(
    producers, topic, monkeypatch, last, end
):
    """`raise` fails the future with OverLimitError; `drop` completes it with offset -1."""
    producer = producers(over_limit(topic, f"overflow {topic}.gone", last))
    producer.send(topic, b"first").get(60)
    fail_sends_to(producer, f"{topic}.gone", monkeypatch)
    future = producer.send(topic, b"second")
    if last == "raise":
        with pytest.raises(shield.OverLimitError) as caught:
            future.get(60)
        assert isinstance(caught.value.__cause__, KafkaError)
        assert shield.fate(future) == "raised"
    else:
        assert future.get(60).offset == -1
        assert shield.fate(future) == "dropped"
    producer.flush()
    ledger = producer.shield.ledger()
    assert getattr(ledger, end) == 1
    assert ledger.balanced
    assert ledger.in_flight == 0


def fail_sends_to(producer: KafkaProducer, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let batches for one topic fail as if the broker had refused them."""
    producer.partitions_for(topic)
    sender = type(producer._sender)
    complete = sender._complete_batch

    def refuse(self: Any, batch: Any, response: Any) -> None:
        if batch.topic_partition.topic == topic:
            self._complete_batch_with_exception(batch, KafkaError("refused by the test"))
        else:
            complete(self, batch, response)

    monkeypatch.setattr(sender, "_complete_batch", refuse)


def test_overflow_is_bounded_by_itself(producers, topic):
    """Beyond its own bound an overflow declines, so a silent broker cannot fill the memory."""
    overflow = {"overflow": {"destination": f"{topic}.overflow", "messages": 2}}
    producer = producers(
        [{"match": topic, "quota": ONE_AN_HOUR, "over_limit": [overflow, "drop"]}], linger_ms=2000
    )
    fates = [shield.fate(producer.send(topic, b"v")) for _ in range(5)]
    assert fates == ["sent", "overflowed", "overflowed", "dropped", "dropped"]


def test_a_message_to_the_overflow_topic_is_not_diverted_to_it(producers, topic):
    """A rule that covers its own overflow topic goes on with the chain there."""
    producer = producers(over_limit(f"{topic}*", f"overflow {topic}.overflow", "drop"))
    fates = [shield.fate(producer.send(f"{topic}.overflow", b"v")) for _ in range(2)]
    assert fates == ["sent", "dropped"]


def test_a_send_from_a_callback_never_waits(producers, topic):
    """The I/O thread would wait for its own answers: `wait` declines there."""
    rules = [{"match": topic, "in_flight": {"messages": 1}, "over_limit": ["wait 30s", "drop"]}]
    producer = producers(rules, linger_ms=100)  # else the answer may be there before the callback
    fates: list[str] = []

    def again(_: object) -> None:
        producer.send(topic, b"from the callback")
        fates.append(shield.fate(producer.send(topic, b"one too many")))

    producer.send(topic, b"v").add_callback(again)
    producer.flush(10)
    producer.close(10)
    assert fates == ["dropped"]
    assert producer.shield.ledger().balanced


def test_a_callback_never_waits_for_the_metadata_of_an_overflow_topic(producers, topic):
    """`send` to a topic not known yet stalls the sender: the overflow declines, and asks for it."""
    producer = producers(over_limit(topic, f"overflow {topic}.overflow", "drop"), linger_ms=100)
    seen: list[tuple[str, float]] = []

    def again(_: object) -> None:
        began = time.monotonic()
        fate = shield.fate(producer.send(topic, b"over the limit"))
        seen.append((fate, time.monotonic() - began))

    producer.send(topic, b"v").add_callback(again)
    producer.flush(10)
    ((fate, took_s),) = seen
    assert fate == "dropped"
    assert took_s < 2.5  # it would wait for five seconds


def test_a_callback_that_raises_harms_nobody(producers, topic):
    """The client swallows it; the books are settled all the same, also of an overflow."""
    producer = producers(over_limit(topic, f"overflow {topic}.overflow"))

    def broken(_: object) -> None:
        raise ZeroDivisionError

    for _ in range(2):
        producer.send(topic, b"v").add_callback(broken)
    producer.flush(10)
    ledger = producer.shield.ledger()
    assert (ledger.delivered, ledger.overflowed, ledger.in_flight) == (1, 1, 0)


def test_a_transaction_decides_the_fate_of_all_its_messages(producers, topic, read):
    """Before commit all are in flight; after it they are delivered and overflowed."""
    producer = producers(
        over_limit(topic, f"overflow {topic}.overflow"), transactional_id=f"t-{topic}"
    )
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(topic, b"first").get(60)
    producer.send(topic, b"second").get(60)
    before = producer.shield.ledger()
    assert (before.in_flight, before.delivered, before.overflowed) == (2, 0, 0)
    producer.commit_transaction()
    after = producer.shield.ledger()
    assert (after.in_flight, after.delivered, after.overflowed) == (0, 1, 1)


def test_an_aborted_transaction_fails_what_it_has_not_sent_yet(producers, topic):
    """Also what was overflowed: its send is over with the transaction, and no chain goes on."""
    rules = over_limit(topic, f"overflow {topic}.overflow", "drop")
    producer = producers(rules, transactional_id=f"t-{topic}", linger_ms=60_000)
    producer.partitions_for(topic)
    producer.init_transactions()
    producer.begin_transaction()
    futures = [producer.send(topic, b"v") for _ in range(5)]
    producer.abort_transaction()
    ledger = producer.shield.ledger()
    assert (ledger.failed, ledger.offered, ledger.in_flight) == (5, 5, 0)
    assert all(future.failed() for future in futures)


@pytest.mark.parametrize("way", ["abort", "close"])
def test_an_aborted_transaction_fails_all_its_messages(producers, topic, way):
    """Aborted, or closed without a commit: also the overflowed ones count as failed."""
    producer = producers(
        over_limit(topic, f"overflow {topic}.overflow"), transactional_id=f"t-{topic}"
    )
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(topic, b"first").get(60)
    producer.send(topic, b"second").get(60)
    if way == "abort":
        producer.abort_transaction()
    else:
        producer.close()
    ledger = producer.shield.ledger()
    assert (ledger.failed, ledger.overflowed, ledger.in_flight) == (2, 0, 0)


def test_no_thread_is_started_and_none_is_left(producers, bootstrap, topic):
    """One producer is one thread, the client's own."""
    before = threading.active_count()
    producer = producers(over_limit(topic, f"overflow {topic}.overflow"))
    producer.send(topic, b"v")
    assert threading.active_count() == before + 1
    producer.close()
    assert threading.active_count() == before


def test_a_bare_new_and_a_failed_init_can_be_collected(bootstrap):
    """`__del__` calls close: on what was never made it does nothing, and raises nothing."""
    gc.collect()  # what earlier tests have left
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        KafkaProducer.__new__(KafkaProducer)
        with pytest.raises(ValueError, match="Unrecognized configs"):
            KafkaProducer(bootstrap_servers=bootstrap, api_version=(2, 3), no_such_config=1)
        gc.collect()


class Unraisable:
    """Keeps what could not be raised, as from a `__del__`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.errors: list[Any] = []
        monkeypatch.setattr("sys.unraisablehook", lambda each: self.errors.append(each.exc_value))


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"config": {"partitioner": MagicMock()}},
        {"config": {"partitioner": MagicMock()}, "_metadata": MagicMock()},
        {"config": KafkaProducer.DEFAULT_CONFIG.copy(), "_closed": True},
        {
            "config": KafkaProducer.DEFAULT_CONFIG.copy(),
            "_closed": False,
            "_sender": MagicMock(),
            "_accumulator": MagicMock(),
            "_metrics": None,
        },
    ],
    ids=lambda each: "+".join(each) or "nothing",
)
def test_one_whose_init_was_bypassed_works_as_the_clients_own(monkeypatch, attributes):
    """Tests make them by `__new__` and give them what they need: none raises when collected."""
    gc.collect()
    unraisable = Unraisable(monkeypatch)
    producer = KafkaProducer.__new__(KafkaProducer)
    vars(producer).update(attributes)
    if "_metadata" in attributes:
        producer._metadata.topics.return_value = {"t"}
        producer._metadata.partitions_for_topic.return_value = {0, 1}
        assert producer._partition("t", 1, None, None, b"k", b"v") == 1
    del producer
    gc.collect()
    assert unraisable.errors == []
    if "_sender" in attributes:
        assert attributes["_sender"].initiate_close.called


@pytest.mark.parametrize(
    "wrong",
    [
        {"no_such_config": 1},
        {"api_version": (0, 8), "enable_idempotence": True},
        {"shield": {"rules": [{"match": 7}]}},
        {"acks": 0, "transactional_id": "t"},
        {"partitioner": None, "compression_type": "no such"},
    ],
    ids=str,
)
def test_one_whose_init_failed_raises_nothing_when_collected(bootstrap, monkeypatch, wrong):
    """However far it got."""
    unraisable = Unraisable(monkeypatch)
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the client says
        KafkaProducer(**{"bootstrap_servers": bootstrap, "api_version": (2, 3)} | wrong)
    gc.collect()
    assert unraisable.errors == []


@pytest.mark.parametrize("chain", [["overflow {}.overflow"], ["raise"]], ids=str)
def test_a_producer_that_nobody_holds_sends_what_it_has_and_ends(bootstrap, topic, read, chain):
    """Also where its last overflow sends still hold it, and let it go on its own I/O thread."""
    before = threading.active_count()
    chosen = shield.Shield({"rules": over_limit(topic, *(link.format(topic) for link in chain))})
    producer = KafkaProducer(
        bootstrap_servers=bootstrap, api_version=(2, 3), shield=chosen, linger_ms=300
    )
    for name in (topic, f"{topic}.overflow"):
        producer.partitions_for(name)
    with contextlib.suppress(shield.OverLimitError):
        for _ in range(10):
            producer.send(topic, b"v")
    del producer
    give_up = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < give_up, "its thread was left behind"
        time.sleep(0.05)
    ledger = chosen.ledger()
    assert (len(read(topic)), len(read(f"{topic}.overflow"))) == (1, ledger.overflowed)
    assert (ledger.delivered, ledger.in_flight, ledger.balanced) == (1, 0, True)


def test_no_broker_at_all_does_what_the_client_does():
    """The same error from making it, and no thread is left."""
    before = threading.active_count()
    nowhere: dict[str, Any] = {"bootstrap_servers": "127.0.0.1:1", "bootstrap_timeout_ms": 300}
    with pytest.raises(KafkaError) as expected:
        kafka.KafkaProducer(**nowhere)
    with pytest.raises(type(expected.value)):
        KafkaProducer(shield={}, **nowhere)
    gc.collect()
    assert threading.active_count() == before


def test_wrong_settings_are_refused_before_anything_is_connected():
    """A SettingsError, not a connection that is left behind."""
    before = threading.active_count()
    with pytest.raises(shield.SettingsError, match=r"rules\[0\]"):
        KafkaProducer(bootstrap_servers="127.0.0.1:1", shield={"rules": [{"matsch": "*"}]})
    assert threading.active_count() == before


def test_the_context_manager_flushes_and_closes(bootstrap, topic, read):
    """Leaving the block delivers what was sent."""
    with KafkaProducer(bootstrap_servers=bootstrap, api_version=(2, 3), shield={}) as producer:
        assert isinstance(producer, KafkaProducer)
        for _ in range(100):
            producer.send(topic, b"v")
    assert len(read(topic)) == 100
    assert producer.shield.ledger().delivered == 100


def test_metrics_work_and_may_be_off(producers):
    """`metrics()` is the client's own, None where metrics are disabled."""
    assert "producer-metrics" in producers().metrics()
    assert producers(metrics_enabled=False).metrics() is None


def test_instrumentation_that_wraps_the_clients_class_sees_each_send_once(
    producers, topic, monkeypatch
):
    """OpenTelemetry patches `kafka.KafkaProducer.send` and puts `headers` in by name."""
    calls: list[tuple[Any, Any]] = []
    plain = kafka.KafkaProducer.send

    def traced(self: Any, *args: Any, **kwargs: Any) -> Any:
        headers = args[3] if len(args) > 3 else kwargs.get("headers")
        kwargs["headers"] = [*(headers or []), ("traceparent", b"00-1")]
        calls.append((args, kwargs))
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(kafka.KafkaProducer, "send", traced)
    producer = producers(over_limit(topic, f"overflow {topic}.overflow"))
    producer.send(topic, b"1", b"k", [("a", b"b")]).get(60)
    producer.send(topic, b"2").get(60)
    assert [args[0] for args, _ in calls] == [topic, f"{topic}.overflow"]


def test_it_can_be_put_in_the_place_of_the_clients_class(producers, topic, monkeypatch):
    """A program may patch `kafka.KafkaProducer` itself; ours still finds the client beneath."""
    monkeypatch.setattr(kafka, "KafkaProducer", KafkaProducer)
    assert producers().send(topic, b"v").get(60).offset == 0


def test_threads_that_send_at_once_are_all_accounted_for(producers, topic, read):
    """Under contention the ledger balances at every look and matches the topics."""
    rules = [{"match": topic, "quota": {"rate": "2000/s", "burst": 50}}]
    rules[0]["over_limit"] = [f"overflow {topic}.overflow"]
    producer = producers(rules)
    stop = threading.Event()
    unbalanced: list[Any] = []

    def watch() -> None:
        while not stop.wait(0.001):
            ledger = producer.shield.ledger()
            if not ledger.balanced:
                unbalanced.append(ledger)

    def send() -> None:
        for _ in range(500):
            producer.send(topic, b"v")

    watcher = threading.Thread(target=watch)
    senders = [threading.Thread(target=send) for _ in range(4)]
    for thread in (watcher, *senders):
        thread.start()
    for thread in senders:
        thread.join()
    producer.flush()
    stop.set()
    watcher.join()
    ledger = producer.shield.ledger()
    assert not unbalanced
    assert ledger.offered == ledger.delivered + ledger.overflowed == 2000
    assert len(read(topic)) == ledger.delivered
    assert len(read(f"{topic}.overflow")) == ledger.overflowed
