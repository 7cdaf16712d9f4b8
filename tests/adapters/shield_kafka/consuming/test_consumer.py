"""The drop-in consumer, on librdkafka's mock cluster."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
import threading
import time

import kafka
import pytest
from kafka import ConsumerRebalanceListener, OffsetAndMetadata, TopicPartition
from kafka.errors import IllegalStateError, KafkaConfigurationError
from kafka.serializer import Deserializer

from shield import Shield
from shield_kafka import KafkaConsumer
from shield_kafka.demo.embedded import API_VERSION
from tests.eventually import GENEROUS_S
from tests.making import counts

TEN_AN_HOUR = {"rate": "10/h", "burst": 10}
_groups = itertools.count()


def rule(**more):
    return {"name": "in", "match": "*", "direction": "consume", **more}


def bodies(messages: int) -> list[bytes]:
    return [b"%d" % number for number in range(messages)]


def read(consumer, messages: int, within_s: float = GENEROUS_S) -> list[bytes]:
    """Poll until so many are there."""
    found: list[bytes] = []
    deadline = time.monotonic() + within_s
    while len(found) < messages and time.monotonic() < deadline:
        for records in consumer.poll(500).values():
            found += [record.value for record in records]
    return found


def read_exactly(consumer, messages: int) -> list[bytes]:
    """Poll until so many are there, and for no more: a poll may return any part of them."""
    found: list[bytes] = []
    while len(found) < messages:
        polled = consumer.poll(500, max_records=messages - len(found))
        found += [record.value for records in polled.values() for record in records]
    return found


def group() -> str:
    return f"group-{next(_groups)}"


class Upper(Deserializer):
    """Makes text of bytes; what is not UTF-8 raises."""

    def deserialize(self, topic, headers, data):
        return None if data is None else data.decode().upper()


# --- the same as the client's ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "rules", [[], [rule(quota="1000000/s", in_flight={"messages": 100_000})]], ids=["none", "wide"]
)
def test_poll_and_iteration_give_what_the_client_gives(consumers, written, rules):
    """All records, in order, of the client's own type; and the position with them."""
    topic = written(bodies(30), key=b"k", headers=[("a", b"b")])
    place = TopicPartition(topic, 0)
    consumer = consumers(topic, rules, max_poll_records=20)
    with kafka.KafkaConsumer(
        bootstrap_servers=consumer.config["bootstrap_servers"], api_version=API_VERSION
    ) as bare:
        bare.assign([place])
        bare.seek(place, 0)
        expected = [next(bare) for _ in range(30)]
    assert read_exactly(consumer, 20) == bodies(20)
    assert consumer.position(place) == 20
    consumer.seek(place, 0)
    found = list(itertools.islice(consumer, 30))
    assert found == expected
    assert [type(record) for record in found] == [type(record) for record in expected]
    assert consumer.position(place) == 30


def test_wrong_arguments_raise_what_the_client_raises(consumers, written):
    """Also while records wait."""
    consumer = consumers(written(bodies(20)), [rule(quota=TEN_AN_HOUR)])
    for _ in range(2):
        for error, arguments in [
            (ValueError, {"timeout_ms": -1}),
            (TypeError, {"max_records": "5"}),
            (ValueError, {"max_records": 0}),
        ]:
            with pytest.raises(error):
                consumer.poll(**arguments)
        assert read(consumer, 10, 2.0) in (bodies(10), [])
    with pytest.raises(KeyError):
        consumer.pause(TopicPartition("other", 0))
    with pytest.raises(TypeError):
        consumer.resume("other")
    consumer.close()
    consumer.close()
    with pytest.raises(IllegalStateError):
        consumer.poll()
    with pytest.raises(KafkaConfigurationError):
        KafkaConsumer(nonsense=1)


def test_the_name_is_the_argument_else_what_identifies_the_client(bootstrap):
    """To rules and ledger: `shield_consumer`, the settings, `client_id`, `group_id`."""
    settings = {"rules": [rule()]}
    for configs, chosen, expected in [
        ({"shield_consumer": "me", "client_id": "c"}, settings, "me"),
        ({"client_id": "c"}, settings | {"shield": {"producer": "us"}}, "us"),
        ({"client_id": "c", "group_id": "g"}, settings, "c"),
        ({"group_id": "g"}, settings, "g"),
    ]:
        with KafkaConsumer(
            bootstrap_servers=bootstrap, api_version=API_VERSION, shield=chosen, **configs
        ) as consumer:
            assert consumer._hand_over._name == expected


# --- within the limit -----------------------------------------------------------------------------


def test_poll_returns_what_is_admitted_and_keeps_the_rest(consumers, written):
    """The position, and so a commit, covers what was handed over alone; nothing seems paused."""
    topic = written(bodies(25))
    place = TopicPartition(topic, 0)
    consumer = consumers(topic, [rule(quota={"rate": "20/s", "burst": 10})])
    assert read(consumer, 10) == bodies(10)
    assert consumer.position(place) == 10
    assert consumer.paused() == set()
    begun = time.monotonic()
    assert read(consumer, 15) == bodies(25)[10:]
    assert time.monotonic() - begun > 0.6
    assert consumer.position(place) == 25


def test_iteration_keeps_to_the_limit(consumers, written):
    """And ends as the client's, when nothing comes for a while."""
    topic = written(bodies(25))
    consumer = consumers(topic, [rule(quota=TEN_AN_HOUR)], consumer_timeout_ms=500)
    assert [record.value for record in consumer] == bodies(10)
    assert consumer.position(TopicPartition(topic, 0)) == 10


def test_poll_comes_back_in_time_while_records_wait(consumers, written):
    """However long the quota would take."""
    consumer = consumers(written(bodies(20)), [rule(quota=TEN_AN_HOUR)])
    read(consumer, 10)
    begun = time.monotonic()
    assert consumer.poll(300) == {}
    assert 0.25 < time.monotonic() - begun < 10.0


def test_what_the_user_pauses_stays_his(consumers, written):
    """He sees it, and only he resumes it."""
    topic = written(bodies(25))
    place = TopicPartition(topic, 0)
    consumer = consumers(topic, [rule(quota={"rate": "50/s", "burst": 10})])
    read(consumer, 10)
    consumer.pause(place)
    assert consumer.paused() == {place}
    assert read(consumer, 1, 0.5) == []
    assert consumer.paused() == {place}
    consumer.resume(place)
    assert read(consumer, 15) == bodies(25)[10:]


def test_seek_goes_where_it_says_though_records_wait(consumers, written):
    """Also to the beginning and to the end."""
    topic = written(bodies(25))
    place = TopicPartition(topic, 0)
    consumer = consumers(topic, [rule(quota={"rate": "1000/s", "burst": 10})])
    read(consumer, 10)
    consumer.seek(place, 20)
    assert read(consumer, 5) == bodies(25)[20:]
    consumer.seek_to_beginning(place)
    assert read(consumer, 25) == bodies(25)
    consumer.seek_to_end(place)
    assert read(consumer, 1, 0.5) == []
    assert consumer.position(place) == 25


def test_a_partition_resumed_with_records_parked_does_not_starve(bootstrap, consumers, topic):
    """In 3.0.12 it may: what is used up stands in the way of what is parked."""
    with kafka.KafkaProducer(bootstrap_servers=bootstrap, api_version=API_VERSION) as producer:
        for number in range(40):
            producer.send(topic, b"%d" % number, partition=number % 2)
    places = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
    consumer = consumers(topic, max_poll_records=5)
    consumer.assign(places)
    read(consumer, 5)
    began = next(place for place in places if consumer.position(place))
    consumer.pause(began)
    other = read(consumer, 20, 3.0)
    consumer.resume(began)
    assert len(other) + len(read(consumer, 35 - len(other), 5.0)) == 35


# --- over the limit -------------------------------------------------------------------------------


def test_what_is_too_old_goes_to_the_overflow_topic_and_then_is_passed(
    consumers, written, topic, read
):
    """Whole, with its key, headers and timestamp, and the headers that say why."""
    written([b"old"], key=b"k", headers=[("a", b"b")], timestamp_ms=1000)
    written([b"young"])
    consumer = consumers(topic, [rule(max_age="1m", over_limit=f"overflow {topic}.late")])
    (records,) = consumer.poll(10_000).values()
    assert [record.value for record in records] == [b"young"]
    assert consumer.position(TopicPartition(topic, 0)) == 2
    (late,) = read(f"{topic}.late")
    headers = dict(late.headers())
    assert (late.key(), late.value()) == (b"k", b"old")
    assert headers["shield-original-timestamp"] == b"1000"
    assert headers["a"] == b"b"
    assert headers["shield-original-destination"] == topic.encode()
    assert headers["shield-policy"] == b"max_age"
    assert counts(consumer.shield.ledger()) == {"offered": 2, "overflowed": 1, "in_flight": 1}


def test_what_was_deserialized_goes_elsewhere_in_its_bytes(consumers, written, topic, read):
    """Never serialized again; those who are handed theirs see the client's type."""
    written([b"old", b"older"], key=b"k", timestamp_ms=1000)
    written([b"young"], key=b"k")
    consumer = consumers(
        topic,
        [rule(max_age="1m", over_limit=f"overflow {topic}.late")],
        key_deserializer=Upper(),
        value_deserializer=Upper(),
    )
    ((record,),) = consumer.poll(10_000).values()
    assert (record.key, record.value) == ("K", "YOUNG")
    assert isinstance(record, kafka.consumer.fetcher.ConsumerRecord)
    assert repr(record).startswith("ConsumerRecord(topic=")
    assert sorted(m.value() for m in read(f"{topic}.late")) == [b"old", b"older"]
    assert {m.key() for m in read(f"{topic}.late")} == {b"k"}


def test_a_deserializer_that_raises_does_so_as_with_the_client(consumers, written, topic):
    """The records before it first; then its error, with the position before it."""
    written([b"a", b"\xff", b"b"])
    consumer = consumers(topic, [rule(quota="1000/s")], value_deserializer=Upper())
    ((record,),) = consumer.poll(5000).values()
    assert record.value == "A"
    with pytest.raises(UnicodeDecodeError):
        consumer.poll(5000)
    assert consumer.position(TopicPartition(topic, 0)) == 1


def test_it_may_overflow_into_a_file(consumers, written, topic, tmp_path):
    """Through the transport of its URL."""
    written(bodies(3), timestamp_ms=1000)
    chain = f"overflow file://{tmp_path}/late"
    consumer = consumers(topic, [rule(max_age="1m", over_limit=chain)])
    assert consumer.poll(1000) == {}
    assert counts(consumer.shield.ledger()) == {"offered": 3, "overflowed": 3}
    assert consumer.position(TopicPartition(topic, 0)) == 3


def test_a_record_whose_overflow_fails_is_not_passed(consumers, written, topic):
    """It waits, and everything behind it; when the consumer closes, it goes back."""
    written(bodies(3), timestamp_ms=1000)
    consumer = consumers(topic, [rule(max_age="1m", over_limit="overflow not*legal")])
    assert consumer.poll(1000) == {}
    assert consumer.position(TopicPartition(topic, 0)) == 0
    consumer.close()
    ledger = consumer.shield.ledger()
    assert (ledger.failed, ledger.in_flight, ledger.balanced) == (ledger.offered, 0, True)


# --- commits --------------------------------------------------------------------------------------


def test_commits_settle_what_they_cover(consumers, written):
    """Of everything, of a part, without waiting; what is not committed has failed at the end."""
    topic = written(bodies(40))
    place = TopicPartition(topic, 0)
    consumer = consumers(topic, [rule()], group_id=group(), enable_auto_commit=False)
    assert len(read(consumer, 40)) == 40
    consumer.commit({place: OffsetAndMetadata(7, "", -1)})
    assert counts(consumer.shield.ledger()) == {"offered": 40, "delivered": 7, "in_flight": 33}
    future = consumer.commit_async({place: OffsetAndMetadata(20, "", -1)})
    while not future.is_done:
        consumer.poll(10)
    assert consumer.shield.ledger().delivered == 20
    consumer.seek(place, 0)
    read(consumer, 40)
    consumer.commit()
    assert counts(consumer.shield.ledger()) == {"offered": 80, "delivered": 80}
    consumer.seek(place, 30)
    read(consumer, 10)
    consumer.close()
    assert counts(consumer.shield.ledger()) == {"offered": 90, "delivered": 80, "failed": 10}


def test_the_automatic_commit_settles_and_covers_what_was_handed_over_alone(consumers, written):
    """Where a bound holds records it comes at once; the last one is made by `close`."""
    topic = written(bodies(25))
    name = group()
    consumer = consumers(topic, [rule(in_flight={"messages": 10})], group_id=name)
    assert read(consumer, 20) == bodies(20)
    consumer.close()
    assert consumer.shield.ledger().delivered == 20
    other = consumers(topic, group_id=name)
    assert other.committed(TopicPartition(topic, 0)) == 20


def test_an_iteration_that_stops_half_way_commits_half(consumers, written):
    """The rest goes back: admitted, and not handed over."""
    topic = written(bodies(10))
    consumer = consumers(topic, [rule(quota="1000/s")], group_id=group())
    for record in consumer:
        if record.offset == 3:
            break
    consumer.close()
    assert counts(consumer.shield.ledger()) == {"offered": 10, "delivered": 4, "failed": 6}


def test_a_rebalance_listener_sees_and_moves_what_is_the_users(consumers, written):
    """`paused` shows nothing of ours, and a `seek` there is where it goes on."""
    topic = written(bodies(25))
    seen = []

    class Listener(ConsumerRebalanceListener):
        def on_partitions_revoked(self, revoked):
            seen.append(("revoked", consumer.paused()))

        def on_partitions_assigned(self, assigned):
            seen.append(("assigned", consumer.paused()))
            for place in assigned:
                consumer.seek(place, 20 if place.partition == 0 else 0)

    consumer = consumers(topic, [rule(quota=TEN_AN_HOUR)], group_id=group())
    consumer.subscribe([topic], listener=Listener())
    assert read(consumer, 5) == bodies(25)[20:]
    assert seen == [("assigned", set())] or seen[-1] == ("assigned", set())


# --- faults ---------------------------------------------------------------------------------------


def test_two_threads_that_poll_are_the_clients_own_matter(consumers, written):
    """Nothing of ours raises or hangs, and the books balance."""
    consumer = consumers(written(bodies(2000)), [rule(quota={"rate": "1000/s", "burst": 100})])
    errors = []

    def poll():
        try:
            for _ in range(30):
                consumer.poll(20)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=poll) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert errors == []
    assert consumer.shield.ledger().balanced


def test_a_forked_child_leaves_the_consumer_to_its_parent(bootstrap, written):
    """It ends at once, and the parent reads on, in order and with its overflow."""
    topic = written(bodies(30), timestamp_ms=1000)
    written(bodies(30))
    script = f"""
    import os, sys
    from kafka import TopicPartition
    from shield_kafka import KafkaConsumer
    rule = {{"name": "in", "match": "*", "direction": "consume", "max_age": "1m",
            "quota": {{"rate": "50/s", "burst": 10}},
            "over_limit": ["wait", "overflow {topic}.late"]}}
    consumer = KafkaConsumer(bootstrap_servers="{bootstrap}", api_version={API_VERSION},
                             auto_offset_reset="earliest", shield={{"rules": [rule]}})
    consumer.assign([TopicPartition("{topic}", 0)])
    found = []
    while len(found) < 10:
        for records in consumer.poll(100).values():
            found += [record.value for record in records]
    child = os.fork()
    if child == 0:
        sys.exit(0 if consumer.shield.ledger().offered == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    while len(found) < 30:
        for records in consumer.poll(100).values():
            found += [record.value for record in records]
    consumer.close()
    ledger = consumer.shield.ledger()
    print(len(found), ledger.overflowed, ledger.balanced)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.stdout.split() == ["30", "30", "True"], done.stderr


def test_a_shield_may_be_shared_by_consumers(bootstrap, consumers, written):
    """Consumers of one name share its quota."""
    topic = written(bodies(20))
    shared = Shield({"rules": [rule(quota=TEN_AN_HOUR)], "shield": {"producer": "us"}})
    first, second = consumers(topic, shared), consumers(topic, shared)
    assert len(read(first, 6, 1.0) + read(second, 10, 1.0)) == 10
