"""What a queue keeps, as the arguments say that it was declared with.

Policies are not told over AMQP: where one of them bounds a queue, `rabbitmqctl list_policies` says.
"""

from __future__ import annotations

from pika import BlockingConnection
from pika.connection import Parameters
from pika.exceptions import AMQPError

from shield.retention import Retention
from shield_rabbitmq.client.queue_type import QueueType, queue_type

TIME, MESSAGES, SIZE, UNUSED = "x-message-ttl", "x-max-length", "x-max-length-bytes", "x-expires"


def keeps(parameters: Parameters, queue: str) -> Retention | None:
    """Ask a broker what a queue keeps; None where it does not tell."""
    try:
        connection = BlockingConnection(parameters)
    except (AMQPError, OSError):
        return None
    try:
        return retention_of(queue_type(connection, queue))
    except AMQPError:
        return None
    finally:
        if connection.is_open:
            connection.close()


def retention_of(found: QueueType) -> Retention | None:
    """Return what a queue keeps; None where the broker does not tell."""
    if found.name is None:
        return None
    told = found.arguments
    return Retention(
        for_s=_seconds(told.get(TIME)),
        messages=told.get(MESSAGES),
        size=told.get(SIZE),
        unused_s=_seconds(told.get(UNUSED)),
    )


def _seconds(milliseconds: object) -> float | None:
    return milliseconds / 1000 if isinstance(milliseconds, int) else None
