"""Kills, stops, cuts and restarts at random moments, through overflow, spool and redrive."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.brokers import KAFKA, Broker, private
from integration.moments import Account, Chain, KafkaChain, RabbitMQChain, Story, schedule
from integration.proxy import Proxy

MOMENTS = 34 if os.environ.get("SHIELD_SOAK") else 5
"""On each of three ways: a hundred in all."""
SEED = int(os.environ.get("SHIELD_TEST_SEED") or random.randrange(2**32))
"""SHIELD_TEST_SEED=… repeats a schedule; what happens in between is the machine's own."""
QUORUM = {"x_queue_type": "quorum", "x_delivery_limit": 2}

Chains = Callable[[Path], Chain]


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with Proxy() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def own_kafka(proxy: Proxy) -> Iterator[Broker]:
    """One that sends its clients through the proxy."""
    kafka = private(KAFKA, advertised_listeners=f"PLAINTEXT://127.0.0.1:{proxy.port}")
    proxy.lead_to(f"kafka://{kafka.address}")
    with kafka:
        yield kafka


@pytest.fixture
def through_kafka(own_kafka: Broker, proxy: Proxy) -> Chains:
    return lambda folder: KafkaChain(own_kafka, proxy, folder)


@pytest.fixture(scope="module")
def own_rabbitmq(private_rabbitmq: Any) -> Any:
    return private_rabbitmq()


@pytest.fixture
def through_queues(own_rabbitmq: Any, proxy_to: Any) -> Chains:
    return lambda folder: RabbitMQChain(own_rabbitmq, proxy_to(own_rabbitmq.address), folder)


@pytest.fixture
def through_quorum_queues(own_rabbitmq: Any, proxy_to: Any) -> Chains:
    proxy = proxy_to(own_rabbitmq.address)
    return lambda folder: RabbitMQChain(own_rabbitmq, proxy, folder, **QUORUM)


@pytest.mark.soak
@pytest.mark.timeout(240 + MOMENTS * 20)
@pytest.mark.parametrize("way", ["through_kafka", "through_queues", "through_quorum_queues"])
def test_what_was_accepted_arrives_whatever_happens(
    request: pytest.FixtureRequest, tmp_path: Path, way: str
) -> None:
    """Each once, or under one id; what its caller was told nothing of may be there or not."""
    make: Chains = request.getfixturevalue(way)
    story = Story(make(tmp_path))
    story.live(schedule(SEED, MOMENTS))
    ends = story.bring_back()
    account = Account.of(story.chain)
    print(f"\n{way}, seed {SEED}: {dict(sorted(story.counts.items()))}\n{account}")
    assert all(end["complete"] for end in ends.values()), ends
    assert account.lost == []
    assert account.anonymous_copies == []
    assert story.chain.left() == 0
    assert {"sent", "spooled", "overflowed"} <= set(account.accepted.values())
