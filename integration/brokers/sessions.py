"""How short the sessions of a consumer group may be, for tests that end a member by SIGKILL."""

from __future__ import annotations

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from integration.brokers.broker import BrokerError

SETTING = "group.min.session.timeout.ms"


def require_sessions_of(session_ms: int, address: str) -> None:
    """Raise `BrokerError` where the Kafka at `address` lets no session be so short."""
    with KafkaAdminClient(bootstrap_servers=address) as admin:
        node = str(admin.describe_cluster()["brokers"][0]["broker_id"])
        resource = ConfigResource(ConfigResourceType.BROKER, node)
        told = admin.describe_configs([resource], config_filter="all")
    least_ms = int(told["broker"][node][SETTING]["value"])
    if least_ms > session_ms:
        raise BrokerError(
            f"the Kafka at {address} has {SETTING}={least_ms}, and this test needs sessions of"
            f" {session_ms} ms: start that broker with {SETTING}={session_ms} or less,"
            " or unset SHIELD_TEST_KAFKA"
        )
