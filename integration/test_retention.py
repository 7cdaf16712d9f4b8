"""What places keep: `shield setup` shows and sets it, and redrive loses nothing to it."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from typer.testing import CliRunner

from integration.brokers import create_topic
from integration.queues import Queues
from integration.reading import count
from integration.redriving import fill_topic, run
from shield.cli import app


@pytest.fixture
def new() -> str:
    """A name that nothing has yet."""
    return f"retention-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def things(tmp_path: Path) -> Any:
    """Run `shield setup` for a chain; return what it says of each thing, by name."""

    def run(broker: str, address: str, chain: list[str], *options: str, match: str = "none") -> Any:
        file = tmp_path / "shield.toml"
        file.write_text(f'[[rules]]\nmatch = "{match}"\nquota = "5/s"\nover_limit = {chain}\n')
        command = ["--config", str(file), "setup", "--broker", broker, "--bootstrap", address]
        result = CliRunner().invoke(app, [*command, "--json", *options])
        return {one["name"]: one for one in json.loads(result.stdout)["things"]}

    return run


def make_topic(address: str, name: str, **configs: str) -> None:
    """Make a topic with these settings."""
    dotted = {key.replace("_", "."): value for key, value in configs.items()}
    with KafkaAdminClient(bootstrap_servers=address) as admin:
        admin.create_topics(
            {name: {"num_partitions": 1, "replication_factor": -1, "configs": dotted}},
            wait_for_metadata=True,
        )


def retention_ms(address: str, topic: str) -> str:
    """What the cluster says."""
    with KafkaAdminClient(bootstrap_servers=address) as admin:
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        told = admin.describe_configs([resource], config_filter="all")
    return str(told["topic"][topic]["retention.ms"]["value"])


def test_a_new_topic_keeps_messages_for_as_long_as_is_asked(things, kafka, new):
    """Also one that is there; it says so."""
    ask = ("kafka", kafka.address, [f"overflow {new}"])
    assert things(*ask, "--retention", "9d")[new]["keeps"] == "for 9d"
    assert retention_ms(kafka.address, new) == str(9 * 86_400_000)
    assert things(*ask)[new]["keeps"] == "for 9d"
    assert things(*ask, "--retention", "10d")[new]["state"] == "was there"
    assert retention_ms(kafka.address, new) == str(10 * 86_400_000)


def test_a_topic_that_loses_what_is_set_aside_is_warned_of(things, kafka, new):
    """Kept for a minute, compacted, or bounded in size; a dry run says it, too."""
    make_topic(kafka.address, new, retention_ms="60000", cleanup_policy="compact,delete")
    make_topic(kafka.address, f"{new}-2", retention_bytes="1000")
    chain = [f"overflow {new}", f"overflow {new}-2"]
    found = things("kafka", kafka.address, chain, "--dry-run")
    short, compacted = found[new]["warnings"]
    assert "for 1m" in short
    assert "compacted" in compacted
    assert any("1000 bytes" in warning for warning in found[f"{new}-2"]["warnings"])


def test_originals_that_keep_less_are_warned_of(things, kafka, new):
    """What was set aside for longer would be deleted there as soon as it is back."""
    make_topic(kafka.address, f"{new}.original", retention_ms="60000")
    found = things("kafka", kafka.address, [f"overflow {new}"], match=f"{new}.original")
    (warning,) = found[new]["warnings"]
    assert f"{new}.original keeps messages for 1m" in warning


def test_a_queue_says_what_it_keeps_and_what_may_go(things, rabbitmq, new):
    """By its arguments, without the management API."""
    arguments = {"x-message-ttl": 60_000, "x-max-length": 10, "x-expires": 3_600_000}
    with Queues(rabbitmq.address) as queues:
        queues.channel.queue_declare(new, durable=True, arguments=arguments)
        found = things("rabbitmq", rabbitmq.address, [f"overflow /{new}"])[new]
        queues.channel.queue_delete(new)
    assert found["state"] == "was there"
    assert found["keeps"] == "for 1m, 10 messages, while used every 1h"
    assert len(found["warnings"]) == 3


def test_a_new_queue_keeps_messages_for_as_long_as_is_asked(things, rabbitmq, new):
    """One that is there and does not is refused, with the policy that changes it."""
    ask = ("rabbitmq", rabbitmq.address, [f"overflow /{new}"])
    assert things(*ask, "--retention", "9d")[new]["keeps"] == "for 9d"
    assert things(*ask, "--retention", "9d")[new]["state"] == "was there"
    refused = things(*ask, "--retention", "10d")[new]
    assert refused["state"] == "refused"
    assert "rabbitmqctl set_policy" in refused["detail"]
    with Queues(rabbitmq.address) as queues:
        queues.channel.queue_delete(new)


def late_redrive(kafka: Any, new: str, *options: str, status: int = 0) -> tuple[Any, int]:
    """Redrive messages of an hour ago into a topic that keeps a minute."""
    overflow = create_topic(kafka.address, 1)
    make_topic(kafka.address, new, retention_ms="60000")
    fill_topic(kafka.address, overflow, new, range(50))
    done = run(f"kafka://{kafka.address}/{overflow}", "--to", "original", *options, status=status)
    return done, count(kafka.address, new)


def test_a_redrive_refuses_what_its_target_would_delete_at_once(kafka, new):
    """It says what the topic keeps; nothing is written, and all stays where it was."""
    done, there = late_redrive(kafka, new, status=1)
    assert (done["sent"], done["refused"], there) == (0, 50, 0)
    assert "keeps messages for 1m" in done["listed"][0]["why"]


def test_so_does_a_dry_run(kafka, new):
    """Before anything is sent."""
    done, _ = late_redrive(kafka, new, "--dry-run", status=1)
    assert (done["refused"], done["messages"]) == (50, [])


def test_who_confirms_it_writes_it_all_the_same(kafka, new):
    """What becomes of it is the topic's affair."""
    done, _ = late_redrive(kafka, new, "--yes")
    assert (done["sent"], done["refused"]) == (50, 0)
