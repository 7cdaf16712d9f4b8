"""kafka-python's consumer under Shield."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kafka import ConsumerRebalanceListener
from kafka import KafkaConsumer as Client
from kafka.structs import TopicPartition

import shield
from shield import Shield
from shield_kafka.client import internals
from shield_kafka.consuming.overflow import ConsumerOverflow
from shield_kafka.consuming.poll import Poll, Records

CLOSE_WITHIN_S = 5.0
"""How long `close` waits for the answers to what is being sent elsewhere."""

JOIN_WITHIN_MS = 1000
"""How long a poll may last that joins the group, though records wait: first it may commit."""


class _Nothing:
    """In the place of what hands over, after a bare `__new__`: there all is the client's own."""

    def __init__(self) -> None:
        self.paused: set[TopicPartition] = set()

    def end_iteration(self) -> None:
        """Nothing was handed over."""

    def drop_lost(self) -> None:
        """Nothing waits."""


class KafkaConsumer(Client):  # type: ignore[misc] # kafka-python is untyped
    """`kafka.KafkaConsumer` under rules with `direction = "consume"`: same arguments and results.

    Args:
        *topics: as `kafka.KafkaConsumer` takes them.
        shield: a `shield.Shield`, the path of a settings file, a dict of settings, or None for
            the one that this process shares (`shield.default()`).
        shield_consumer: who this consumer is to rules and ledger. Without it: the settings'
            `producer`, else a `client_id` given here, else the `group_id`, else the program's name.
        **configs: as `kafka.KafkaConsumer` takes them.

    `poll` and iteration hand over what the rules admit. What they do not waits, with all that is
    behind it in its partition, while `poll` goes on with the other partitions, heartbeats and
    rebalances; what is dropped by a rule, or sent to its overflow destination and confirmed there,
    is passed. The consumer's position, and so each commit, covers what was handed over or passed
    and nothing else.

    A record is in flight from hand-over until its offset is committed, by the user or
    automatically; without a group, until the next poll.
    """

    shield: Shield
    """The Shield that decides; `consumer.shield.ledger()` accounts for every record."""
    _hand_over: Poll | _Nothing = _Nothing()

    def __init__(
        self,
        *topics: str,
        shield: Shield | str | Path | dict[str, Any] | None = None,
        shield_consumer: str | None = None,
        **configs: Any,
    ) -> None:
        self.shield = chosen = _shield_of(shield)
        super().__init__(*topics, **configs)
        name = shield_consumer or _name(chosen, configs)
        self._aside = ConsumerOverflow(self.config)
        self._hand_over = Poll(
            chosen,
            name,
            internals.states_of(self),
            self._aside,
            commits=self.config["group_id"] is not None,
        )
        internals.on_committed(self, self._hand_over.committed)
        if topics:
            internals.ask_for_topics(self)
        deserializes = self.config["key_deserializer"] or self.config["value_deserializer"]
        if deserializes and any(rule.direction == "consume" for rule in chosen.rules):
            internals.keep_bytes(self)

    # --- handing over -------------------------------------------------------------------------

    def poll(
        self, timeout_ms: float = 0, max_records: int | None = None, update_offsets: bool = True
    ) -> Records:
        """Fetch as `kafka.KafkaConsumer.poll` does, and return what the rules admit in time."""
        hand_over = self._hand_over
        if isinstance(hand_over, _Nothing):
            return self._client_poll(timeout_ms, max_records, update_offsets)
        deadline = time.monotonic() + timeout_ms / 1000
        most = self.config["max_poll_records"] if max_records is None else max_records
        left_ms = timeout_ms
        while True:
            hand_over.begin()
            internals.unpark(self)
            if hand_over.waits:
                fetched = self._fetch_others(hand_over, left_ms, max_records, update_offsets)
            else:
                fetched = self._client_poll(left_ms, max_records, update_offsets)
            given = hand_over.hand_over(fetched, most, update_offsets=update_offsets)
            if given or self._closed:
                return given
            left_ms = max(0.0, deadline - time.monotonic()) * 1000
            if not left_ms:
                return given

    def _client_poll(
        self, timeout_ms: float, max_records: int | None, update_offsets: bool
    ) -> Records:
        fetched: Records = super().poll(timeout_ms, max_records, update_offsets)
        return fetched

    def _fetch_others(
        self, hand_over: Poll, left_ms: float, max_records: int | None, update_offsets: bool
    ) -> Records:
        """Poll while records of some partitions wait, until those may be handed over."""
        if hand_over.commit_is_due():
            internals.commit_now(self)
        wait_ms = hand_over.wait_s() * 1000
        if internals.must_join(self):
            wait_ms = max(wait_ms, JOIN_WITHIN_MS)
        wait_ms = min(left_ms, wait_ms)
        with hand_over.pausing():
            return self._client_poll(wait_ms, max_records, update_offsets)

    # --- what the user has paused, and where he goes ------------------------------------------

    def paused(self) -> set[TopicPartition]:
        """Return what the user has paused; what waits here is not among it."""
        paused: set[TopicPartition] = super().paused()
        return paused - self._hand_over.paused

    def pause(self, *partitions: TopicPartition) -> None:
        """Pause as the client does."""
        super().pause(*partitions)
        self._hand_over.paused.difference_update(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        """Resume what the user has paused; from a rebalance listener, nothing else."""
        ours = self._hand_over.paused
        super().resume(*(p for p in partitions if p not in ours) if ours else partitions)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Seek as the client does: what waits of that partition is fetched again where needed."""
        self._hand_over.end_iteration()
        super().seek(partition, offset)

    def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        """Seek as the client does."""
        self._hand_over.end_iteration()
        super().seek_to_beginning(*partitions)

    def seek_to_end(self, *partitions: TopicPartition) -> None:
        """Seek as the client does."""
        self._hand_over.end_iteration()
        super().seek_to_end(*partitions)

    def subscribe(
        self,
        topics: Sequence[str] = (),
        pattern: str | None = None,
        listener: ConsumerRebalanceListener | None = None,
    ) -> None:
        """Subscribe as the client does, and ask for the topics' metadata in any case."""
        super().subscribe(topics, pattern, listener)
        if isinstance(self._hand_over, Poll):
            internals.ask_for_topics(self)

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        """Assign as the client does; what waits of other partitions goes back to the broker."""
        super().assign(partitions)
        self._hand_over.drop_lost()

    def unsubscribe(self) -> None:
        """Unsubscribe as the client does; what waits goes back to the broker."""
        self._hand_over.end_iteration()
        super().unsubscribe()
        self._hand_over.drop_lost()

    def close(self, autocommit: bool = True, timeout_ms: float | None = None) -> None:
        """Close as the client does; what was not committed counts as failed: it comes again.

        What is on its way elsewhere is waited for, five seconds at the most.
        """
        hand_over = self._hand_over
        if self._closed or isinstance(hand_over, _Nothing):
            super().close(autocommit, timeout_ms)
            return
        within_s = CLOSE_WITHIN_S if timeout_ms is None else min(CLOSE_WITHIN_S, timeout_ms / 1000)
        deadline = time.monotonic() + within_s
        hand_over.end_sending(deadline)
        super().close(autocommit, timeout_ms)
        hand_over.close()
        self._aside.close(max(0.0, deadline - time.monotonic()))


def _shield_of(choice: Shield | str | Path | dict[str, Any] | None) -> Shield:
    return shield.shield_of(choice)


def _name(chosen: Shield, configs: dict[str, Any]) -> str:
    given = configs.get("client_id") or configs.get("group_id")
    if chosen.settings.names_producer or not given:
        return chosen.settings.producer
    return str(given)
