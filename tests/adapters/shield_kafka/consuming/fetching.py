"""What `Poll` needs of a client and of a way elsewhere, without either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kafka.consumer.fetcher import ConsumerRecord
from kafka.structs import OffsetAndMetadata, TopicPartition

from shield import Shield
from shield_kafka.consuming.overflow import OverflowSend
from shield_kafka.consuming.poll import Poll, Records

Written = Callable[[int], float]


class State:
    """One assigned partition, as the client keeps it."""

    def __init__(self, offset: int = 0) -> None:
        self.paused = False
        self.position: OffsetAndMetadata | None = OffsetAndMetadata(offset, "", -1)

    def is_fetchable(self) -> bool:
        return not self.paused and self.position is not None


class Sends:
    """Takes records that go elsewhere; the test confirms them, or lets them fail."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, OverflowSend, Callable[[], None]]] = []
        self.most = 1000

    @property
    def under_way(self) -> int:
        return sum(not sending.ended for _, sending, _ in self.sent)

    @property
    def has_room(self) -> bool:
        return self.under_way < self.most

    def send(self, record, over, step) -> OverflowSend:
        sending = OverflowSend()
        self.sent.append((record, sending, step.done))
        return sending

    @property
    def offsets(self) -> list[int]:
        return [record.offset for record, _, _ in self.sent]

    def end(self, error: Exception | None = None) -> None:
        """Answer all that have no answer."""
        for _, sending, done in self.sent:
            if not sending.ended:
                done()
                sending.error, sending.ended = error, True


class Fetching:
    """A client's `poll` around a `Poll`, on partitions that hold records without end."""

    def __init__(self, shield: Shield, *partitions: int, commits: bool = True, written=None):
        self.shield = shield
        self.states = {TopicPartition("t", number): State() for number in partitions or (0,)}
        self.sends = Sends()
        self.hand_over = Poll(shield, "c", self.states.get, self.sends, commits=commits)
        self.written: Written = written or (lambda offset: -1)
        self.fetch = 10
        """How many of a partition it fetches at once."""
        self.paused_meanwhile: set[int] = set()
        self.handed: dict[int, list[int]] = {place.partition: [] for place in self.states}

    def poll(self, most: int = 500, *, update_offsets: bool = True) -> dict[int, list[int]]:
        """Return the offsets that are handed over, by partition."""
        self.hand_over.begin()
        with self.hand_over.pausing():
            self.paused_meanwhile = {p.partition for p, s in self.states.items() if s.paused}
            fetched = self._fetched(most, update_offsets=update_offsets)
        given = self.hand_over.hand_over(fetched, most, update_offsets=update_offsets)
        found = {place.partition: [r.offset for r in records] for place, records in given.items()}
        if update_offsets:
            for number, offsets in found.items():
                self.handed[number] += offsets
        return found

    def _fetched(self, most: int, *, update_offsets: bool) -> Records:
        fetched: Records = {}
        for place, state in self.states.items():
            if state.is_fetchable() and most > 0 and state.position is not None:
                at = state.position.offset
                records = [self.record(place, at + n) for n in range(min(self.fetch, most))]
                most -= len(records)
                fetched[place] = records
                if update_offsets:
                    state.position = OffsetAndMetadata(records[-1].offset + 1, "", -1)
        return fetched

    def record(self, place: TopicPartition, offset: int) -> ConsumerRecord:
        written = self.written(offset)
        return ConsumerRecord(
            place.topic, place.partition, -1, offset, written, 0, b"k", b"v" * 9, [], None, 1, 9, -1
        )

    def iterate(self, found: dict[int, list[int]], most: int = 1000) -> None:
        """Move the positions as the client does while its user iterates over what was handed."""
        for number, offsets in found.items():
            for offset in offsets[:most]:
                self.state(number).position = OffsetAndMetadata(offset + 1, "", -1)
                self.handed[number].append(offset)
            most -= min(most, len(offsets))

    def state(self, number: int = 0) -> State:
        return self.states[TopicPartition("t", number)]

    def position(self, number: int = 0) -> int | None:
        position = self.state(number).position
        return None if position is None else int(position.offset)

    def seek(self, offset: int, number: int = 0) -> None:
        self.hand_over.end_iteration()
        self.state(number).position = OffsetAndMetadata(offset, "", -1)

    def commit(self, number: int = 0) -> None:
        """Commit the position, as the client does."""
        self.hand_over.committed({TopicPartition("t", number): self.state(number).position})
