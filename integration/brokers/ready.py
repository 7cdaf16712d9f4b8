"""Whether a broker answers: each probe asks it for something only a working one can give."""

import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import pika
import pika.exceptions
import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from integration.brokers.broker import BrokerError

_ATTEMPT_S = 2.0
_BETWEEN_ATTEMPTS_S = 0.1


def accepts(host: str, port: int) -> bool:
    """Something listens on the port."""
    try:
        socket.create_connection((host, port), _ATTEMPT_S).close()
    except OSError:
        return False
    return True


def kafka_answers(address: str) -> bool:
    """Metadata can be read, a broker is in it and every partition has a leader."""
    # librdkafka says nothing and raises; kafka-python would log each attempt.
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    try:
        metadata = admin.list_topics(timeout=_ATTEMPT_S)
    except KafkaException:
        return False
    partitions = [p for topic in metadata.topics.values() for p in topic.partitions.values()]
    return bool(metadata.brokers) and all(p.leader >= 0 for p in partitions)


def amqp_answers(url: str) -> bool:
    """A connection opens, login and virtual host included."""
    parts = urlsplit(url)
    if not accepts(parts.hostname or "localhost", parts.port or 5672):
        return False  # pika would log an error for each refused attempt
    parameters = pika.URLParameters(url)
    parameters.socket_timeout = parameters.stack_timeout = _ATTEMPT_S
    parameters.blocked_connection_timeout = _ATTEMPT_S
    try:
        pika.BlockingConnection(parameters).close()
    except (pika.exceptions.AMQPError, OSError):
        return False
    return True


def redis_answers(url: str) -> bool:
    """It answers PING."""
    with redis.Redis.from_url(url, socket_timeout=_ATTEMPT_S) as client:
        try:
            return bool(client.ping())
        except (redis.RedisError, OSError):
            return False


def wait_until(
    answers: Callable[[], bool],
    *,
    name: str,
    within_s: float,
    is_alive: Callable[[], bool] = lambda: True,
) -> None:
    """Return when it answers; raise `BrokerError` when it died, or did not answer in time."""
    deadline = time.monotonic() + within_s
    while not answers():
        if not is_alive():
            raise BrokerError(f"{name} ended before it answered")
        if time.monotonic() > deadline:
            raise BrokerError(f"{name} did not answer within {within_s:.0f} s")
        time.sleep(_BETWEEN_ATTEMPTS_S)
