"""`shield setup --broker kafka`: topics for what overflows."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from math import inf
from typing import Any, Self

from kafka import KafkaAdminClient
from kafka.errors import KafkaError, TopicAlreadyExistsError

from shield import UnavailableError
from shield.provisioning import Destination, Provisioner, Resource, State
from shield.retention import Retention, spelled
from shield.rule import glob_matches
from shield_kafka.client.address import KafkaAddress, address_like
from shield_kafka.operations.retention import TIME, retention_of, set_retention

USUAL = "localhost:9092"
REACH_MS = 5000
MOST_ASKED = 100
"""Of how many originals the retention is asked for."""


def address_at(bootstrap: str | None) -> KafkaAddress:
    """Return the address of the cluster at HOST:PORT, or of the usual one on this machine."""
    return address_like({"bootstrap_servers": bootstrap or USUAL}, "")


class KafkaProvisioner(Provisioner):
    """Creates topics with kafka-python; replicated as the broker's own default says.

    Args:
        address: where the cluster is.
        hint: what the user may do where it does not answer.
        partitions: of new topics; None for as many as the largest of the originals has, or the
            broker's own default where none of them is there.
    """

    def __init__(self, address: KafkaAddress, partitions: int | None, hint: str = "") -> None:
        self._address = address
        self._hint = hint
        self._wanted = partitions
        self._where = ",".join(address.servers)
        self.title = f"Kafka at {self._where}"

    def __enter__(self) -> Self:
        """Connect, and find out which topics there are."""
        _silence(logging.CRITICAL)
        try:
            self._admin = KafkaAdminClient(
                **self._address.connect_configs, bootstrap_timeout_ms=REACH_MS
            )
            topics = self._admin.describe_topics()
        except (KafkaError, ValueError) as error:
            _silence(logging.NOTSET)
            raise UnavailableError(
                f"no Kafka for us at {self._where}: {error}; name yours with --bootstrap HOST:PORT"
            ) from error
        self._partitions = {topic["name"]: len(topic["partitions"]) for topic in topics}
        return self

    def __exit__(self, *exception: object) -> None:
        """Disconnect."""
        self._admin.close()
        _silence(logging.NOTSET)

    def look(self, destination: Destination) -> Iterator[Resource]:
        """Yield the topic."""
        there = destination.name in self._partitions
        yield self._thing(destination, State.THERE if there else State.MISSING)

    def make(self, destination: Destination) -> Iterator[Resource]:
        """Create the topic where it is missing; let it keep messages for as long as is asked."""
        name = destination.name
        try:
            state = self._made(name, destination.match)
        except TopicAlreadyExistsError:
            yield Resource("topic", name, State.THERE, "made by another meanwhile")
        except (KafkaError, ValueError) as error:
            yield Resource("topic", name, State.REFUSED, str(error))
        else:
            yield self._thing(destination, state)

    def _made(self, name: str, match: str) -> State:
        if name not in self._partitions:
            self._create(name, self._partitions_for(match))
            return State.MADE
        if self.retention_s is not None:
            set_retention(self._admin, name, self.retention_s)
        return State.THERE

    def _create(self, name: str, partitions: int) -> None:
        options: dict[str, Any] = {"num_partitions": partitions, "replication_factor": -1}
        if self.retention_s is not None:
            options["configs"] = {TIME: str(int(self.retention_s * 1000))}
        self._admin.create_topics({name: options}, wait_for_metadata=True)
        (topic,) = self._admin.describe_topics([name])
        self._partitions[name] = len(topic["partitions"])

    def _partitions_for(self, match: str) -> int:
        originals = [n for name, n in self._partitions.items() if glob_matches(match, name)]
        return self._wanted or max(originals, default=-1)

    def _thing(self, destination: Destination, state: State) -> Resource:
        number: Any = self._partitions.get(destination.name)
        if number is None:
            return Resource("topic", destination.name, state)
        detail = f"{number} partition{'s' * (number != 1)}"
        kept = self._kept(destination)
        own = kept.get(destination.name)
        warnings = () if own is None else (*own.warnings(self.least_s), *_shorter(own, kept))
        keeps = "" if own is None else str(own)
        return Resource("topic", destination.name, state, detail, keeps, warnings)

    def _kept(self, destination: Destination) -> dict[str, Retention]:
        """Return what the topic keeps, and what those keep where its messages go back to."""
        originals = [name for name in self._partitions if glob_matches(destination.match, name)]
        try:
            return retention_of(self._admin, [destination.name, *originals[:MOST_ASKED]])
        except (KafkaError, ValueError):  # this user may not ask
            return {}


def _shorter(own: Retention, kept: Mapping[str, Retention]) -> Iterator[str]:
    """Yield which originals keep less: there what was set aside for longer is deleted at once."""
    for name, its in kept.items():
        if its.for_s is not None and not its.stamped and its.for_s < (own.for_s or inf):
            yield (
                f"topic {name} keeps messages for {spelled(its.for_s)}: what was set aside for "
                "longer is deleted there as soon as it is back"
            )


def _silence(level: int) -> None:
    """Keep kafka-python's log off the screen, or let it be again."""
    logging.getLogger("kafka").setLevel(level)
