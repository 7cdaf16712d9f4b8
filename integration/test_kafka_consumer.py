"""The shielded kafka-python consumer on a real Kafka: groups, rebalances, a member that dies."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.cluster import ClusterMetadata

from integration.brokers.sessions import require_sessions_of
from integration.consuming import ASSIGNORS, SESSION_MS, committed
from integration.reading import count, read
from shield_kafka import KafkaConsumer

PARTITIONS = 6
OLD_EVERY = 9
"""Each ninth message is an hour too old."""


class Member:
    """A process that consumes, and its log."""

    def __init__(self, way: str, log: Path, *arguments: str) -> None:
        self._log = log
        command = [sys.executable, "-m", "integration.consuming", way, *arguments, str(log)]
        self.process = subprocess.Popen(command)

    def lines(self, what: str) -> list[dict[str, Any]]:
        """Return the lines of one kind."""
        if not self._log.exists():
            return []
        lines = self._log.read_bytes().split(b"\n")[:-1]  # a killed one may leave a part of a line
        return [line for line in map(json.loads, lines) if line["what"] == what]

    @property
    def handed(self) -> list[tuple[int, int]]:
        """Partition and offset of all that it was handed over."""
        return [
            (partition, offset)
            for partition, offsets in (line["at_of"] for line in self.lines("handed"))
            for offset in offsets
        ]

    @property
    def rebalances(self) -> list[dict[str, Any]]:
        """What its listener heard, until it closed."""
        last = max(line["at"] for line in self.lines("handed"))
        heard = self.lines("assigned") + self.lines("revoked")
        return [line for line in heard if line["at"] < last]

    @property
    def handed_once(self) -> list[tuple[int, int]]:
        """Of that what it must not have got twice: of partitions that it kept until its end."""
        revoked = [line["partitions"] for line in self.rebalances if line["what"] == "revoked"]
        gone = {number for partitions in revoked for number in partitions}
        return [at for at in self.handed if at[0] not in gone]


class Load:
    """A thread that sends numbered messages, a part of them too old: 1,100 a second, until told.

    Two members are handed 1,000 a second at the most, three 1,500.
    """

    def __init__(self, address: str, topic: str) -> None:
        self._producer = KafkaProducer(bootstrap_servers=address)
        self._topic = topic
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self.messages = 0
        self.old: set[tuple[int, int]] = set()
        """Partition and offset of those that are too old."""

    def _send(self) -> None:
        futures = []
        old_ms = int((time.time() - 7200) * 1000)
        while not self._enough.wait(0.025):
            for _ in range(28):
                at_ms = None if self.messages % OLD_EVERY else old_ms
                body = b"%d" % self.messages
                sent = self._producer.send(self._topic, body, timestamp_ms=at_ms)
                if at_ms is not None:
                    futures.append(sent)
                self.messages += 1
        self.old = {(at.partition, at.offset) for at in (future.get(60) for future in futures)}

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._enough.set()
        self._thread.join()
        self._producer.close()


def until(true: Callable[[], bool], within_s: float, what: str) -> None:
    """Wait for something, looking ten times a second."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.fixture(params=ASSIGNORS)
def members(request, kafka, new_topic, tmp_path) -> Iterator[Callable[[str], Member]]:
    """Start members of one group, which reads a topic and overflows into another."""
    topic, overflow, group = new_topic(PARTITIONS), new_topic(2), uuid.uuid4().hex
    started: list[Member] = []

    def start(way: str) -> Member:
        log = tmp_path / f"{len(started)}.log"
        member = Member(way, log, kafka.address, group, topic, overflow, request.param)
        started.append(member)
        return member

    start.topic, start.overflow, start.group = topic, overflow, group  # type: ignore[attr-defined]
    start.cooperative = request.param == "cooperative-sticky"  # type: ignore[attr-defined]
    yield start
    for member in started:
        member.process.kill()
        member.process.wait()


@pytest.mark.timeout(400, func_only=True)
def test_through_rebalances_and_a_kill_every_record_is_handed_over_or_shed(kafka, members):
    """Three members under load, one joins late, one is killed: at least once, and none skipped.

    Rebalances fall into moments in which partitions wait; no commit covers what was not handed
    over to anybody, or has not arrived in the overflow topic. Where members keep partitions through
    a rebalance, they go on with what waits of them: none of it comes twice.
    """
    require_sessions_of(SESSION_MS, kafka.address)
    first, second = members("poll"), members("poll")
    with Load(kafka.address, members.topic) as load:
        until(lambda: len(second.handed) > 200, 90, "the second is handed nothing")
        third = members("iterate")
        until(lambda: len(third.handed) > 100, 90, "the third is handed nothing")
        second.process.kill()
        second.process.wait()

    def all_committed() -> bool:
        at = committed(kafka.address, members.group, members.topic, PARTITIONS)
        return sum(at.values()) == load.messages

    until(all_committed, 90, "the rest is not committed")
    for member in (first, third):
        member.process.terminate()
        assert member.process.wait(60) == 0

    group = [first, second, third]
    handed = {at for member in group for at in member.handed}
    overflowed = read(kafka.address, members.overflow)
    assert count(kafka.address, members.topic) == load.messages
    everything = {(r.partition, r.offset) for r in read(kafka.address, members.topic)}
    assert handed.isdisjoint(load.old)
    assert handed | load.old == everything
    old_bodies = {b"%d" % number for number in range(0, load.messages, OLD_EVERY)}
    assert {record.value for record in overflowed} == old_bodies
    for member in group:
        check_commits(member, group, load.old)
        assert len(member.handed_once) == len(set(member.handed_once))
    assert first.handed_once or third.handed_once or not members.cooperative
    assert any(line["waits"] for member in group for line in member.rebalances)
    assert sum(len(member.lines("assigned")) for member in group) >= 4
    for member in (first, third):
        (line,) = member.lines("ended")
        ledger = line["ledger"]
        assert ledger["balanced"]
        assert (ledger["in_flight"], ledger["dropped"]) == (0, 0)
        assert ledger["delivered"] <= len(member.handed) <= ledger["offered"]


def check_commits(member: Member, group: list[Member], old: set[tuple[int, int]]) -> None:
    """Below each commit all was handed over before it, to whomever, or is too old."""
    handed_at: dict[tuple[int, int], float] = {}
    for other in group:
        for line in other.lines("handed"):
            partition, offsets = line["at_of"]
            for offset in offsets:
                at = partition, offset
                handed_at[at] = min(line["at"], handed_at.get(at, line["at"]))
    for line in member.lines("committed"):
        for partition, end in line["offsets"].items():
            for offset in range(end or 0):
                at = int(partition), offset
                assert at in old or handed_at[at] <= line["at"]


def test_a_metadata_answer_that_crosses_the_subscription_costs_nothing(
    kafka, new_topic, monkeypatch
):
    """The client takes it for the topics', and would look again in five minutes."""
    topic = new_topic(2)
    set_topics = ClusterMetadata.set_topics

    def just_before_the_answer(cluster: ClusterMetadata, topics: list[str]) -> Any:
        while not cluster.metadata_refresh_in_progress:
            cluster.request_update()  # the first answer may be there already
            time.sleep(0.0001)
        return set_topics(cluster, topics)

    monkeypatch.setattr(ClusterMetadata, "set_topics", just_before_the_answer)
    with KafkaProducer(bootstrap_servers=kafka.address) as producer:
        producer.send(topic, b"there").get(60)
    for _ in range(10):
        with KafkaConsumer(
            topic,
            bootstrap_servers=kafka.address,
            api_version=(4, 0),
            auto_offset_reset="earliest",
            consumer_timeout_ms=10_000,
            shield={},
        ) as consumer:
            assert next(consumer).value == b"there"
