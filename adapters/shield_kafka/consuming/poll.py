"""Between kafka-python's `poll` and its user: what is handed over now, and what waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from operator import itemgetter
from typing import Any

from kafka.consumer.fetcher import ConsumerRecord
from kafka.structs import OffsetAndMetadata, TopicPartition

from shield import Delivery, OverLimit, Permit, Reject, Shield
from shield.action import Divert, Drop
from shield_kafka.client.internals import StateOf, bytes_of
from shield_kafka.consuming.in_flight import Outstanding, PermitRun
from shield_kafka.consuming.overflow import ConsumerOverflow, OverflowSend
from shield_kafka.consuming.partition import LOOK_EVERY_S, Partition, Sojourn, at, behind

COMMIT_EVERY_S = 0.1
"""How soon an automatic commit that has no answer is tried again, where records wait for it."""
Records = dict[TopicPartition, list[Any]]

_key_size = itemgetter(ConsumerRecord._fields.index("serialized_key_size"))
_value_size = itemgetter(ConsumerRecord._fields.index("serialized_value_size"))
_timestamp = itemgetter(ConsumerRecord._fields.index("timestamp"))


class RecordGate:
    """Asks the Shield about the records of one topic."""

    def __init__(self, shield: Shield, name: str, topic: str, aside: ConsumerOverflow) -> None:
        self._shield = shield
        self._name = name
        self._topic = topic
        self._aside = aside
        self.takes_runs = shield.engine.takes_runs(Delivery(topic, 0, name))

    def run(self, records: Sequence[Any]) -> Permit | None:
        """Admit records together, or not at all."""
        return self._shield.engine.receive_run(
            Delivery(
                self._topic,
                size_of(records),
                self._name,
                written_s=written_s(records),
                messages=len(records),
            )
        )

    def sojourn(self) -> Sojourn | None:
        """Return what asks how long what is fetched now may wait; None where it may for ever."""
        standing = self._shield.engine.standing(self._topic, self._name)
        return None if standing is None else Sojourn(standing, self._shield.clock.now())

    def one(self, record: Any, sojourn: Sojourn | None = None) -> Permit | OverLimit | Drop:
        """Decide on one record, which hooks and policies see with its key and headers."""
        key, _ = bytes_of(record)
        delivery = Delivery(
            self._topic,
            size_of((record,)),
            self._name,
            key,
            record.headers,
            written_s=written_s((record,)),
        )
        try:
            if sojourn is not None:
                return sojourn.offer(delivery, self._shield.clock.now())
            return self._shield.engine.receive(delivery)
        except Reject:
            return Drop()

    def send(self, record: Any, over: OverLimit, step: Divert) -> OverflowSend:
        """Begin to send a record elsewhere."""
        return self._aside.send(record, over, step)

    @property
    def may_send(self) -> bool:
        """Whether one more record may be under way elsewhere."""
        return self._aside.has_room


class Poll:
    """Decides about what the client has fetched; keeps what waits, and what is not committed yet.

    What waits is kept here, and its partition is paused only while the client polls, so that the
    user never sees that, nothing is fetched for it meanwhile, and a rebalance leaves nothing
    paused. The client's position stays at what was handed over or passed, so that no commit, by
    whomever, covers more.

    Args:
        shield: decides.
        name: who consumes, to rules and ledger.
        state_of: finds the client's state of a partition.
        aside: sends elsewhere.
        commits: whether the consumer has a group; without one, what was handed over is done when
            the next is asked for.
    """

    def __init__(
        self,
        shield: Shield,
        name: str,
        state_of: StateOf,
        aside: ConsumerOverflow,
        *,
        commits: bool,
    ) -> None:
        self._shield = shield
        self._name = name
        self._state_of = state_of
        self._aside = aside
        self._commits = commits
        self._lock = threading.RLock()
        self._judges: dict[str, RecordGate] = {}
        self._partitions: dict[TopicPartition, Partition] = {}
        self._handed: dict[TopicPartition, Outstanding] = {}
        self._iterated: list[tuple[Outstanding, int, int]] = []
        self._commit_at_s = 0.0
        self.paused: set[TopicPartition] = set()
        """The partitions that are paused now by us alone."""

    # --- around the client's poll ---------------------------------------------------------------

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """Have nothing fetched for partitions of which records wait."""
        with self._lock:
            waiting = {place: partition.state for place, partition in self._partitions.items()}
            ours = [(place, state) for place, state in waiting.items() if not state.paused]
            self.paused.update(place for place, _ in ours)
            for _, state in ours:
                state.paused = True
        try:
            yield
        finally:
            for place, state in ours:
                if place in self.paused:  # else the user has paused it meanwhile
                    self.paused.discard(place)
                    state.paused = False

    @property
    def waits(self) -> bool:
        """Whether records wait that were fetched."""
        return bool(self._partitions)

    def commit_is_due(self) -> bool:
        """Tell whether records wait for a commit of those before them, and none is under way."""
        now = self._shield.clock.now()
        with self._lock:
            bound = any(p.bound for p in self._partitions.values()) and any(self._handed.values())
        if not bound or now < self._commit_at_s:
            return False
        self._commit_at_s = now + COMMIT_EVERY_S
        return True

    def wait_s(self) -> float:
        """Return after how many seconds some of what waits may be handed over."""
        now = self._shield.clock.now()
        with self._lock:
            return min((p.wait_s(now) for p in self._partitions.values()), default=inf)

    def begin(self) -> None:
        """See where the client's positions are, before it polls."""
        with self._lock:
            self.end_iteration()
            if not self._commits:
                for handed in self._handed.values():
                    handed.all_done()
            for place, partition in list(self._partitions.items()):
                if self._state_of(place) is not partition.state or not partition.caught_up():
                    del self._partitions[place]
                    partition.let_go()
                elif partition.is_done:
                    del self._partitions[place]

    def end_iteration(self) -> None:
        """Take back what was to be iterated over and was not: the client fetches it again."""
        with self._lock:
            iterated, self._iterated = self._iterated, []
        for handed, first, end in iterated:
            position = handed.state.position
            at = first if position is None else max(first, position.offset)
            if at < end:
                handed.take_back(at, end)

    def hand_over(self, fetched: Records, most: int, *, update_offsets: bool) -> Records:
        """Return what the user gets now, of what has waited and of what was fetched."""
        given: Records = {}
        with self._lock:
            self.drop_lost()
            try:
                self._hand_over(given, fetched, most, update_offsets=update_offsets)
            except BaseException:
                self._undo(given, fetched)
                raise
        return given

    def _hand_over(
        self, given: Records, fetched: Records, most: int, *, update_offsets: bool
    ) -> None:
        if self._partitions:
            most = self._hand_waiting(given, fetched, most, update_offsets=update_offsets)
        for place, records in fetched.items():
            state = self._state_of(place)
            if state is None or state.position is None:
                continue  # another thread has taken it away: it is fetched again
            handed = self._handed_of(place, state)
            if not self._all_at_once(place, handed, records, most):
                if update_offsets:
                    start, end = at(records[0]), state.position
                else:
                    start, end = state.position, behind(records[-1])
                sojourn = self._judge(place.topic).sojourn()
                self._partitions[place] = Partition(state, handed, records, start, end, sojourn)
                records = self._take(place, most, update_offsets=update_offsets)
            most -= self._give(given, place, records, update_offsets=update_offsets)

    def _undo(self, given: Records, fetched: Records) -> None:
        """Have everything fetched again that the user does not get now: he gets an error."""
        for place in fetched.keys() | self._partitions.keys():
            state = self._state_of(place)
            first = given.get(place) or fetched.get(place)
            if state is not None and state.position is not None:
                if first:
                    state.position = at(first[0])
                self._handed_of(place, state).take_back(state.position.offset, inf)
            partition = self._partitions.pop(place, None)
            if partition is not None:
                partition.let_go()
        self._iterated.clear()

    def _all_at_once(
        self, place: TopicPartition, handed: Outstanding, records: list[Any], most: int
    ) -> bool:
        """Hand over all that was fetched of a partition, where it is admitted together."""
        judge = self._judge(place.topic)
        if not judge.takes_runs or len(records) > most:
            return False
        permit = judge.run(records)
        if permit is None:
            return False
        handed.add(PermitRun(records[0].offset, records[-1].offset + 1, permit, joins=True))
        return True

    def _give(
        self, given: Records, place: TopicPartition, records: list[Any], *, update_offsets: bool
    ) -> int:
        if not records:
            return 0
        given[place] = records
        if not update_offsets:
            until = records[-1].offset + 1
            self._iterated.append((self._handed[place], records[0].offset, until))
        return len(records)

    def _hand_waiting(
        self, given: Records, fetched: Records, most: int, *, update_offsets: bool
    ) -> int:
        """Hand over what may be now of what has waited; return how much room is left."""
        for place, partition in list(self._partitions.items()):
            if place in fetched or not partition.caught_up():  # the client has begun anew there
                del self._partitions[place]
                partition.let_go()
            elif partition.state.is_fetchable():
                records = self._take(place, most, update_offsets=update_offsets)
                most -= self._give(given, place, records, update_offsets=update_offsets)
            elif partition.sojourn is not None:
                partition.sojourn.rest(self._shield.clock.now())
        return most

    def _take(self, place: TopicPartition, most: int, *, update_offsets: bool) -> list[Any]:
        partition = self._partitions[place]
        records = partition.take(most, self._shield.clock.now(), self._judge(place.topic))
        partition.place(records, update_offsets=update_offsets)
        del self._partitions[place]
        if not partition.is_done:
            self._partitions[place] = partition  # behind the others: they take turns
        return records

    def _judge(self, topic: str) -> RecordGate:
        judge = self._judges.get(topic)
        if judge is None:
            judge = RecordGate(self._shield, self._name, topic, self._aside)
            self._judges[topic] = judge
        return judge

    def _handed_of(self, place: TopicPartition, state: Any) -> Outstanding:
        handed = self._handed.get(place)
        if handed is None:
            handed = self._handed[place] = Outstanding(self._shield, state)
        return handed

    # --- what ends it ---------------------------------------------------------------------------

    def committed(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Settle what a commit covers; from any thread."""
        for place, position in offsets.items():
            handed = self._handed.get(place)
            if handed is not None:
                handed.done(position.offset)
        self._commit_at_s = 0.0

    def drop_lost(self) -> None:
        """Release the partitions that the consumer has no longer, or has anew. Under the lock."""
        if all(self._state_of(place) is handed.state for place, handed in self._handed.items()):
            return
        for place, handed in list(self._handed.items()):
            if self._state_of(place) is not handed.state:
                del self._handed[place]
                partition = self._partitions.pop(place, None)
                if partition is not None:
                    partition.let_go()
                handed.lost()

    def end_sending(self, deadline: float) -> None:
        """Wait, until that time of `time.monotonic`, for what is being sent elsewhere."""
        self.begin()
        while self._aside.under_way and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY_S)
        with self._lock:
            for partition in self._partitions.values():
                partition.pass_sent()

    def close(self) -> None:
        """Release everything, under the lock: what is not committed comes again elsewhere."""
        with self._lock:
            self._iterated.clear()
            partitions, self._partitions = self._partitions, {}
            for partition in partitions.values():
                partition.let_go()
            for handed in self._handed.values():
                handed.lost()
            self._handed.clear()


def size_of(records: Sequence[Any]) -> int:
    """Return the bytes of keys and values; what is None is none, where the client says -1."""
    keys: list[int] = list(map(_key_size, records))
    values: list[int] = list(map(_value_size, records))
    return sum(keys) + keys.count(-1) + sum(values) + values.count(-1)


def written_s(records: Sequence[Any]) -> float | None:
    """Return when the oldest was written, in seconds since 1970; None where none says so."""
    try:
        oldest_ms = min(map(_timestamp, records))
    except TypeError:  # the first message format has None
        oldest_ms = min((r.timestamp for r in records if r.timestamp is not None), default=-1)
    return None if oldest_ms is None or oldest_ms < 0 else oldest_ms / 1000
