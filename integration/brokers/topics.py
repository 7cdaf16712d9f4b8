"""Topics that no other test uses."""

import uuid

from kafka import KafkaAdminClient


def create_topic(address: str, partitions: int = 4) -> str:
    """Create a topic with a name of its own on the Kafka at `address`; every partition is led."""
    name = f"shield-test-{uuid.uuid4().hex[:12]}"
    with KafkaAdminClient(bootstrap_servers=address) as admin:
        options = {"num_partitions": partitions, "replication_factor": 1}
        admin.create_topics({name: options}, wait_for_metadata=True)
    return name
