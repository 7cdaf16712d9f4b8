"""`shield setup` on real brokers, and overflow exchanges that a rule lets the publisher declare."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient
from typer.testing import CliRunner

import shield
from integration.brokers import Broker, RabbitMQ
from integration.queues import Queues
from integration.test_transports import amqp_url
from shield.cli import app
from shield_rabbitmq import Publisher

States = dict[tuple[str, str], str]


@pytest.fixture
def queues(rabbitmq: RabbitMQ) -> Iterator[Queues]:
    with Queues(rabbitmq.address) as queues:
        yield queues


@pytest.fixture
def new() -> str:
    """A name that nothing has yet."""
    return f"overflow-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def setup(tmp_path: Path) -> Callable[..., tuple[int, States]]:
    """Run `shield setup` for a chain; return the exit status, and each thing's state."""

    def setup(broker: str, address: str, match: str, chain: list[str], *options: str):
        file = tmp_path / "shield.toml"
        file.write_text(f'[[rules]]\nmatch = "{match}"\nquota = "5/s"\nover_limit = {chain}\n')
        command = ["--config", str(file), "setup", "--broker", broker, "--bootstrap", address]
        result = CliRunner().invoke(app, [*command, "--json", *options])
        things = json.loads(result.stdout)["things"]
        return result.exit_code, {(one["what"], one["name"]): one["state"] for one in things}

    return setup


# --- RabbitMQ -------------------------------------------------------------------------------------


def test_an_exchange_is_made_with_a_queue_that_takes_every_message(setup, rabbitmq, queues, new):
    """A dry run finds it missing, a run makes it, a second one finds it there."""
    ask = ("rabbitmq", rabbitmq.address, "*", [f"overflow {new}"])
    missing = {("exchange", new): "missing", ("queue", new): "missing"}
    assert setup(*ask, "--dry-run") == (0, missing)
    parts = ("exchange", "queue", "binding")
    assert setup(*ask) == (0, {(what, new): "made" for what in parts})
    assert setup(*ask) == (0, {(what, new): "was there" for what in parts})
    queues.channel.confirm_delivery()
    queues.channel.basic_publish(new, "any.key", b"body")
    assert queues.bodies(new) == [b"body"]
    remove(queues, new)


def test_an_exchange_of_another_kind_is_left_alone(setup, rabbitmq, queues):
    """The broker's words say what differs; nothing is made beside it, and the status is 1."""
    exchange = queues.exchange("fanout")
    status, things = setup("rabbitmq", rabbitmq.address, "*", [f"overflow {exchange}/key"])
    assert (status, things) == (1, {("exchange", exchange): "refused"})


def test_a_queue_of_the_default_exchange_is_made(setup, rabbitmq, queues, new):
    """`overflow /QUEUE` needs the queue and nothing else."""
    made = setup("rabbitmq", rabbitmq.address, "*", [f"overflow /{new}"])
    assert made == (0, {("queue", new): "made"})
    assert queues.depth(new) == 0
    queues.channel.queue_delete(new)


def remove(queues: Queues, name: str) -> None:
    queues.channel.queue_delete(name)
    queues.channel.exchange_delete(name)


# --- declare = true -------------------------------------------------------------------------------


def publisher(rabbitmq: RabbitMQ, overflow: dict[str, Any]) -> Publisher:
    chain = [{"overflow": overflow}, "drop"]
    rule = {"match": "*", "quota": {"rate": "1/h", "burst": 1}, "over_limit": chain}
    return Publisher(rabbitmq.address, shield={"rules": [rule]})


def test_a_rule_may_let_the_publisher_declare_what_is_missing(rabbitmq, queues, new):
    """Exchange, queue and binding are there before the first diverted message; all arrive."""
    queue = queues.queue()
    with publisher(rabbitmq, {"destination": new, "declare": True}) as one:
        futures = [one.publish("", queue, b"%d" % number) for number in range(20)]
        for future in futures:
            future.result(60)
        ledger = one.shield.ledger()
    assert [shield.fate(future) for future in futures] == ["sent"] + ["overflowed"] * 19
    assert sorted(queues.bodies(new)) == sorted(b"%d" % number for number in range(1, 20))
    assert ledger.balanced
    assert ledger.overflowed == 19
    remove(queues, new)


def test_what_differs_is_left_alone_and_the_chain_goes_on(rabbitmq, queues, caplog):
    """An exchange of another kind is not declared anew; other messages are not disturbed."""
    queue, exchange = queues.queue(), queues.exchange("fanout")
    with publisher(rabbitmq, {"destination": exchange, "declare": True}) as one:
        futures = [one.publish("", queue, b"%d" % number) for number in range(5)]
        for future in futures:
            future.result(60)
        assert one.shield.ledger().dropped == 4
        assert one.shield.ledger().balanced
    assert queues.bodies(queue) == [b"0"]
    (line,) = (r.getMessage() for r in caplog.records if r.name == "shield.rabbitmq")
    assert f"overflow exchange '{exchange}' cannot be declared" in line
    assert "inequivalent arg 'type'" in line


def test_without_it_nothing_is_declared(rabbitmq, queues, new):
    """A missing exchange is a failed action: the chain goes on, and the publisher with it."""
    queue = queues.queue()
    with publisher(rabbitmq, {"destination": new}) as one:
        for number in range(3):
            one.publish("", queue, b"%d" % number).result(60)
        assert one.shield.ledger().dropped == 2
    assert queues.bodies(queue) == [b"0"]
    with Queues(rabbitmq.address) as other, pytest.raises(Exception, match="404"):
        other.channel.exchange_declare(new, passive=True)


# --- Kafka ----------------------------------------------------------------------------------------


def test_a_topic_is_made_with_as_many_partitions_as_the_original(
    setup, kafka: Broker, new_topic, new
):
    """Unless the command line says how many; a second run finds it there."""
    original = new_topic(3)
    ask = ("kafka", kafka.address, original, [f"overflow {new}", f"overflow {new}-2"])
    missing = {("topic", new): "missing", ("topic", f"{new}-2"): "missing"}
    assert setup(*ask, "--dry-run") == (0, missing)
    assert setup(*ask[:3], [f"overflow {new}"]) == (0, {("topic", new): "made"})
    made = {("topic", new): "was there", ("topic", f"{new}-2"): "made"}
    assert setup(*ask, "--partitions", "2") == (0, made)
    with KafkaAdminClient(bootstrap_servers=kafka.address) as admin:
        described = admin.describe_topics([new, f"{new}-2"])
    partitions = {topic["name"]: len(topic["partitions"]) for topic in described}
    assert partitions == {new: 3, f"{new}-2": 2}


def test_destinations_of_other_brokers_are_made_there(setup, kafka: Broker, rabbitmq, queues, new):
    """A Kafka service that overflows to another topic by URL, to an exchange, to a queue."""
    chain = [
        f"overflow kafka://{kafka.address}/{new}",
        f"overflow {amqp_url(rabbitmq.address, new)}",
        f"overflow {amqp_url(rabbitmq.address, '', f'{new}-2')}",
        "overflow file:///nowhere/at-all",
    ]
    status, things = setup("kafka", kafka.address, "*", chain, "--partitions", "2")
    assert (status, set(things.values())) == (0, {"made"})
    names = {("topic", new), ("exchange", new), ("queue", new), ("binding", new)}
    assert set(things) == names | {("queue", f"{new}-2")}
    with KafkaAdminClient(bootstrap_servers=kafka.address) as admin:
        (topic,) = admin.describe_topics([new])
    assert len(topic["partitions"]) == 2
    assert queues.depth(f"{new}-2") == 0
    queues.channel.queue_delete(f"{new}-2")
    remove(queues, new)


def test_a_topic_that_cannot_be_made_is_refused_in_the_broker_s_words(setup, kafka: Broker):
    """Such as one whose name is too long."""
    name = "n" * 250
    made = setup("kafka", kafka.address, "*", [f"overflow {name}"])
    assert made == (1, {("topic", name): "refused"})
