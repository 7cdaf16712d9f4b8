"""Fixtures that give tests their brokers; a shared one starts when a test first asks for it."""

import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from integration.alone import last, turn_of
from integration.brokers import (
    KAFKA,
    RABBITMQ,
    REDIS,
    Broker,
    RabbitMQ,
    create_topic,
    private,
    shared,
)
from integration.proxy import Proxy

_HERE = Path(__file__).parent
_TIMEOUT_S = 180


def pytest_configure() -> None:
    """Let SIGTERM tear the fixtures down as Ctrl-C does, so that no container stays behind."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Time the tests only: the first start of a broker may fetch an image or install packages."""
    for item in items:
        if item.path.is_relative_to(_HERE) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_TIMEOUT_S, func_only=True))
    last(items)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outermost: no time limit counts the wait
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Wait for the test's turn."""
    with turn_of(item):
        return (yield)


@pytest.fixture(scope="session")
def kafka() -> Iterator[Broker]:
    """The Kafka that all tests share: take a fresh `topic`, break nothing."""
    with shared(KAFKA) as broker:
        yield broker


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    """The RabbitMQ that all tests share: take fresh queues, break nothing."""
    with shared(RABBITMQ) as broker:
        yield broker


@pytest.fixture(scope="session")
def redis() -> Iterator[Broker]:
    """The Redis that all tests share: take fresh keys, break nothing."""
    with shared(REDIS) as broker:
        yield broker


@pytest.fixture(scope="module")
def private_kafka() -> Iterator[Callable[..., Broker]]:
    """Start a Kafka of the module's own, to be broken; settings have `_` for each dot."""
    with ExitStack() as running:
        yield lambda **settings: running.enter_context(private(KAFKA, **settings))


@pytest.fixture(scope="module")
def private_rabbitmq() -> Iterator[Callable[[], RabbitMQ]]:
    """Start a RabbitMQ of the module's own, to be broken."""
    with ExitStack() as running:
        yield lambda: running.enter_context(private(RABBITMQ))


@pytest.fixture(scope="module")
def private_redis() -> Iterator[Callable[[], Broker]]:
    """Start a Redis of the module's own, to be broken."""
    with ExitStack() as running:
        yield lambda: running.enter_context(private(REDIS))


@pytest.fixture
def new_topic(kafka: Broker) -> Callable[[int], str]:
    """Create a topic with so many partitions on the shared Kafka; its name is fresh."""
    return lambda partitions: create_topic(kafka.address, partitions)


@pytest.fixture
def topic(kafka: Broker) -> str:
    """A fresh topic with four partitions on the shared Kafka."""
    return create_topic(kafka.address)


@pytest.fixture
def proxy_to() -> Iterator[Callable[[str], Proxy]]:
    """Put a proxy before the port of a broker's address; it is closed at the end of the test."""
    with ExitStack() as running:
        yield lambda url: running.enter_context(Proxy(url))
