"""Consumer lag as Kafka's admin interface tells it: ends of the partitions less commits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError, for_code

from shield import BacklogReader, BacklogTarget

PATIENCE_MS = 5000
NO_GROUP = 'no group is named; allowed is the consumers\' group_id, as group = "billing"'

NO_MANAGEMENT = "Kafka has no management API; allowed is a group without one"


class LagReader(BacklogReader):
    """Reads lag with an admin client of its own, one connection to each broker that leads.

    A partition that a group has not committed yet counts from its beginning, as one that is
    committed beyond its end does: its topic was made anew. A group that has committed none of
    them is unknown: it may be misspelt.

    Args:
        configs: the producer's settings that an admin client takes as well.
    """

    def __init__(self, configs: Mapping[str, Any]) -> None:
        self._admin = KafkaAdminClient(**configs)

    def read(self, places: Sequence[BacklogTarget]) -> Mapping[BacklogTarget, int | str]:
        """Return the lag of each topic and group."""
        found: dict[BacklogTarget, int | str] = {p: NO_GROUP for p in places if not p.group}
        found |= {p: NO_MANAGEMENT for p in places if p.via is not None}
        asked = [place for place in places if place not in found]
        topics = self._topics({place.destination for place in asked})
        for place in asked:
            partitions = topics.get(place.destination, "the broker does not know the topic")
            if isinstance(partitions, str):
                found[place] = partitions
                continue
            try:
                found[place] = self._lag(place.group, partitions)
            except KafkaError as error:
                found[place] = describe(error)
        return found

    def _topics(self, names: Iterable[str]) -> dict[str, list[TopicPartition] | str]:
        """Return the partitions of each topic, or why they are not known."""
        return {
            topic["name"]: describe(for_code(topic["error_code"])())
            if topic["error_code"]
            else [TopicPartition(topic["name"], p["partition_index"]) for p in topic["partitions"]]
            for topic in (self._admin.describe_topics(sorted(names)) if names else ())
        }

    def _lag(self, group: str, partitions: list[TopicPartition]) -> int | str:
        commits = self._admin.list_group_offsets({group: partitions})[group]
        committed = {p: int(commits[p].offset) for p in partitions if commits[p].offset >= 0}
        if not committed:
            return "the group has committed nothing of it"
        ends = self._offsets(partitions, OffsetSpec.LATEST)
        anew = [p for p in partitions if committed.get(p, ends[p] + 1) > ends[p]]
        begun = self._offsets(anew, OffsetSpec.EARLIEST)
        since = committed | begun
        return sum(ends[partition] - since[partition] for partition in partitions)

    def _offsets(self, partitions: list[TopicPartition], spec: Any) -> dict[TopicPartition, int]:
        if not partitions:
            return {}
        found = self._admin.list_partition_offsets(dict.fromkeys(partitions, spec))
        return {partition: int(at.offset) for partition, at in found.items()}

    def close(self) -> None:
        """Disconnect."""
        self._admin.close()


def describe(error: KafkaError) -> str:
    """Say what is wrong: what the broker calls it, in its words."""
    return f"{type(error).__name__}: {getattr(error, 'description', '') or error}"


def admin_configs(configs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a producer's settings an admin client takes; it waits less than that."""
    taken = {name: configs[name] for name in KafkaAdminClient.DEFAULT_CONFIG if name in configs}
    taken.pop("metric_reporters", None)
    return taken | {"bootstrap_timeout_ms": PATIENCE_MS, "request_timeout_ms": PATIENCE_MS}
