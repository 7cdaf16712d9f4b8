"""What a topic keeps, as its settings on the cluster say."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError

from shield.retention import Retention
from shield_kafka.client.address import KafkaAddress

log = logging.getLogger("shield.kafka")
ASK_MS = 5000

TIME, SIZE = "retention.ms", "retention.bytes"
POLICY, STAMP = "cleanup.policy", "message.timestamp.type"
BY_BROKER = "LogAppendTime"


class TopicRetention:
    """Tells what single topics keep, over a connection of its own for each time it is asked."""

    def __init__(self, address: KafkaAddress) -> None:
        self._address = address

    def of(self, topic: str) -> Retention | None:
        """Return what a topic keeps; None where the cluster does not tell this user in time."""
        try:
            admin = KafkaAdminClient(**self._address.connect_configs, bootstrap_timeout_ms=ASK_MS)
            try:
                return retention_of(admin, [topic]).get(topic)
            finally:
                admin.close()
        except (KafkaError, ValueError) as error:
            log.info("what topic %s keeps is not known: %r", topic, error)
            return None


def retention_of(admin: Any, topics: Sequence[str]) -> dict[str, Retention]:
    """Ask for the retention of topics; those of which the cluster tells nothing are left out."""
    wanted = dict.fromkeys((TIME, SIZE, POLICY, STAMP))
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic, wanted) for topic in topics]
    if not resources:
        return {}
    answers = admin.describe_configs(resources, config_filter="all")
    found: Mapping[str, Any] = answers.get("topic", {})
    return {name: _retention(its) for name, its in found.items() if isinstance(its, dict) and its}


def set_retention(admin: Any, topic: str, seconds: float) -> None:
    """Let a topic keep what is younger."""
    configs = {TIME: str(int(seconds * 1000))}
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs)])


def _retention(configs: Mapping[str, Any]) -> Retention:
    values = {name: each["value"] for name, each in configs.items() if isinstance(each, dict)}
    policies = str(values.get(POLICY, "delete")).replace(" ", "").split(",")
    deletes = "delete" in policies
    time_ms, size = _bound(values.get(TIME)), _bound(values.get(SIZE))
    return Retention(
        for_s=None if time_ms is None or not deletes else time_ms / 1000,
        size=size if deletes else None,
        latest_only="compact" in policies,
        stamped=values.get(STAMP) == BY_BROKER,
    )


def _bound(value: object) -> int | None:
    """Return a number; None for -1, which is none."""
    try:
        number = int(str(value))
    except ValueError:
        return None
    return None if number < 0 else number
