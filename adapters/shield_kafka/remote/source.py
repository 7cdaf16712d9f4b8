"""Reads an overflow topic back, as a member of a consumer group of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from shield import Envelope, ShieldError, UnavailableError
from shield.headers import split_stored
from shield.redriving.read_ahead import ReadAheadSource
from shield.selection import Mark
from shield_kafka.client.address import KafkaAddress

log = logging.getLogger("shield.kafka")
GROUP = "shield-redrive"
CONNECT_WITHIN_MS = 5000
SESSION_MS = 6_000
"""How long a redrive that was killed keeps its partitions: the next one waits for that."""
HEARTBEAT_MS = 1_500
AHEAD = 2000
"""How many messages are read ahead of who takes them; beyond, reading pauses."""
POLL_MS = 200
LOOK_EVERY_S = 0.5
ANSWER_WITHIN_MS = 5000
LAST_TRIES, LAST_PAUSE_S = 3, 0.3
CLOSE_WITHIN_S = 10.0


class TopicSource(ReadAheadSource):
    """A topic's messages in the order of each partition, from where the last redrive stood.

    Several processes may read one topic: they share its partitions. A thread reads ahead and
    keeps the membership alive, however long a message waits for its quota. What is committed is,
    for each partition, where the first message that is not forgotten stands: a process that is
    killed leaves duplicates at the most. So does a partition that goes to another process; one that
    a rebalance gives back to this one goes on where it was. Where messages are left that are not
    meant, that offset stays before them, and how far the others are forgotten stands beside it, in
    the metadata of the commit. The group is `shield-redrive-TOPIC`, or what the URL says:
    `?group_id=NAME`.

    Raises:
        ShieldError: the cluster does not answer, or the topic is not there.
    """

    def __init__(self, address: KafkaAddress) -> None:
        super().__init__()
        self._topic = address.topic
        self._consumer = _consumer(address)
        self._ends: dict[TopicPartition, int] = {}
        self._at: dict[TopicPartition, int] = {}
        self._next: dict[TopicPartition, int] = {}
        """Where the first record that was not read stands, in partitions that are read here."""
        self._reached: dict[TopicPartition, Mark] = {}
        self._assigned = False
        self._shares = False
        """Whether another member has some of the topic's partitions."""
        self._lost: set[TopicPartition] = set()
        self._look_at_s = 0.0
        self._paused = False
        self._stopping = threading.Event()
        # The client must have seen the topic's partitions after it has subscribed: else the group
        # leader finds them changed a moment after its first assignment, and begins another one.
        self._consumer.subscribe([self._topic], listener=_Listener(self))
        if self._topic not in _topics(self._consumer):
            self._consumer.close(timeout_ms=0)
            raise ShieldError(f"topic {self._topic} is not there on {address.origin}")
        self._thread = threading.Thread(target=self._run, name="shield-kafka-source", daemon=True)
        self._thread.start()

    # --- who takes ------------------------------------------------------------------------------

    def left(self) -> int | None:
        """Return how many are in this member's partitions and not taken yet.

        Markers of transactions count as messages until they are passed. None until partitions
        are assigned, and where none is; and when all is taken while another member has the other
        partitions: if that one was killed, they are still to come.
        """
        ends, at = self._ends, dict(self._at)
        if not ends:
            return None
        unread: int = sum(max(0, end - at.get(place, end)) for place, end in ends.items())
        left = unread + self.in_turn.untaken
        return None if self._shares and not left else left

    def close(self) -> None:
        """Commit what is forgotten and leave the group."""
        self._stopping.set()
        self._thread.join(CLOSE_WITHIN_S)

    # --- the thread that reads ------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._read()
                    self._look_now_and_then()
                except KafkaError as error:
                    log.warning("reading topic %s: %r", self._topic, error)
                    self._stopping.wait(1.0)
        finally:
            self._commit_at_last()
            self._consumer.close(autocommit=False, timeout_ms=CLOSE_WITHIN_S * 500)

    def _read(self) -> None:
        self._pause_or_resume()
        batches = self._consumer.poll(timeout_ms=POLL_MS)
        self._let_go_of_others()
        for place, records in batches.items():
            position = self._position(place, records[0].offset)
            if position is None:
                continue
            for record in records:
                if record.offset < self._next.get(place, 0):
                    continue
                envelope = envelope_of(record)
                if not self.was_forgotten(position, record.offset, envelope):
                    self.in_turn.put(place, record.offset, record.offset + 1, envelope)
                self._next[place] = self._at[place] = record.offset + 1

    def _position(self, place: TopicPartition, offset: int) -> Mark | None:
        """Return how far a partition was redriven before; None where that cannot be had now.

        Then it is read once more from that offset.
        """
        if place in self.positions:
            return self.positions[place]
        try:
            found = self._consumer.committed(place, metadata=True, timeout_ms=ANSWER_WITHIN_MS)
        except KafkaError as error:
            log.warning("reading topic %s: %r", self._topic, error)
            self._consumer.seek(place, offset)
            return None
        position = Mark(0)
        if found is not None:
            position = Mark.read(found.offset, found.metadata or "")
        self.positions[place] = position
        return position

    def _let_go_of_others(self) -> None:
        """After a rebalance, drop what others read now; what came back to us goes on.

        The client may begin such a partition again where it was committed: what was read of it
        already is skipped.
        """
        if not self._assigned:
            return
        self._assigned = False
        lost, self._lost = self._lost, set()
        for place in lost | (self._next.keys() - self._consumer.assignment()):
            self._next.pop(place, None)
            self.positions.pop(place, None)
            self._reached.pop(place, None)
            self.in_turn.drop(place)

    def _pause_or_resume(self) -> None:
        """Pause when enough is read, until half of it is taken; new partitions are unpaused."""
        untaken = self.in_turn.untaken
        self._paused = untaken > (AHEAD // 2 if self._paused else AHEAD)
        assigned = self._consumer.assignment()
        if self._paused:
            self._consumer.pause(*assigned)
        else:
            self._consumer.resume(*self._consumer.paused())

    def _look_now_and_then(self) -> None:
        """Commit, and see how many are left."""
        now = time.monotonic()
        if now < self._look_at_s:
            return
        self._look_at_s = now + LOOK_EVERY_S
        self._commit()
        assigned = list(self._consumer.assignment())
        at = {place: self._consumer.position(place, ANSWER_WITHIN_MS) for place in assigned}
        if assigned and None not in at.values():
            ends = self._consumer.end_offsets(assigned, timeout_ms=ANSWER_WITHIN_MS)
            self._at = {place: max(at[place], self._next.get(place, 0)) for place in assigned}
            every = self._consumer.partitions_for_topic(self._topic) or ()
            self._shares = len(assigned) < len(every)
            self._ends = ends

    def _commit(self) -> None:
        self._note_reached(self._consumer.assignment())
        reached = dict(self._reached)
        self._consumer.commit(_offsets(reached), timeout_ms=ANSWER_WITHIN_MS)
        for place, position in reached.items():
            if self._reached.get(place) == position:
                self._reached.pop(place, None)

    def _commit_at_last(self) -> None:
        """Commit before it ends; what is not committed comes twice, so it is tried again."""
        for _ in range(LAST_TRIES):
            try:
                self._commit()
            except KafkaError as error:
                log.warning(
                    "reading topic %s: what is back is not committed: %r", self._topic, error
                )
                time.sleep(LAST_PAUSE_S)
            else:
                return

    def _note_reached(self, places: Iterable[TopicPartition]) -> None:
        for place in places:
            position = self.moved(place)
            if position is not None:
                self._reached[place] = position

    # --- on the client's thread -----------------------------------------------------------------

    def revoked(self, places: Iterable[TopicPartition]) -> None:
        """Commit what is forgotten of partitions that may go to another process."""
        self._note_reached(places)
        reached = {place: self._reached[place] for place in places if place in self._reached}
        if reached:
            self._consumer.commit_async(_offsets(reached))
        self._ends = {}

    def assigned(self) -> None:
        """Hear that it is known who reads what."""
        self._assigned = True

    def lost(self, places: Iterable[TopicPartition]) -> None:
        """Hear of partitions that others may have read meanwhile."""
        self._lost.update(places)
        self._ends = {}


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc] # kafka-python is untyped
    """Hears which partitions come and go."""

    def __init__(self, source: TopicSource) -> None:
        self._source = source

    def on_partitions_revoked(self, revoked: Any) -> None:
        self._source.revoked(revoked)

    def on_partitions_lost(self, lost: Any) -> None:
        self._source.lost(lost)

    def on_partitions_assigned(self, assigned: Any) -> None:
        self._source.assigned()


def _consumer(address: KafkaAddress) -> Any:
    configs = {
        "bootstrap_timeout_ms": CONNECT_WITHIN_MS,
        "session_timeout_ms": SESSION_MS,
        "heartbeat_interval_ms": HEARTBEAT_MS,
        "group_id": f"{GROUP}-{address.topic}",
        **address.consumer_configs,
    }
    try:
        return KafkaConsumer(
            **configs,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )
    except KafkaError as error:
        raise UnavailableError(f"cannot read from {address.origin}: {error!r}") from None


def _offsets(reached: dict[TopicPartition, Mark]) -> dict[TopicPartition, OffsetAndMetadata]:
    return {place: OffsetAndMetadata(to.at, to.text, -1) for place, to in reached.items()}


def _topics(consumer: Any) -> set[str]:
    try:
        topics: set[str] = consumer.topics()
    except KafkaError:
        return set()
    return topics


def envelope_of(record: Any) -> Envelope:
    """Return the whole message that a record read back is."""
    own, marks = split_stored(tuple(record.headers or ()))
    return Envelope(
        destination=record.topic,
        body=record.value,
        kind="kafka",
        key=record.key,
        headers=own,
        timestamp_ms=None if record.timestamp is None or record.timestamp < 0 else record.timestamp,
        marks=marks,
    )
