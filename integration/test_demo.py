"""`shield demo --broker rabbitmq` on a real broker; Kafka's is in tests/cli, on an embedded one."""

from __future__ import annotations

import json

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker
from typer.testing import CliRunner

from shield.cli import app
from shield_rabbitmq.demo.demo import EXCHANGE, OVERFLOW, RabbitMQDemo


@pytest.fixture
def demo(rabbitmq, tmp_path, monkeypatch):
    """Run it on the shared RabbitMQ, where there is no settings file."""
    monkeypatch.chdir(tmp_path)

    def demo(*arguments: str):
        options = ("demo", "--broker", "rabbitmq", "--bootstrap", rabbitmq.address)
        return CliRunner().invoke(app, [*options, *arguments], prog_name="shield")

    return demo


def test_json_has_the_queue_filled_to_its_bound_and_every_message_accounted_for(demo):
    """The queue sheds what is over its bound; what it took is on the broker, to the message."""
    result = demo("--json", "--seconds", "3")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["equal"] is report["balanced"] is True
    counts, ledger, producers = report["counts"], report["ledger"], report["producers"]
    assert all(count["ledger"] == count["broker"] > 0 for count in counts.values())
    held = sum(count["broker"] for count in counts.values())
    assert held + ledger["dropped"] == ledger["offered"]
    peaks = producers["peaks"]
    assert 0.5 * peaks["queue_bound"] < peaks["peak"] <= peaks["queue_bound"]
    assert peaks["dropped"] == peaks["over_limit"] == ledger["dropped"] > 0
    assert sum(episode["dropped"] for episode in report["shedding"]) == ledger["dropped"]
    assert producers["greedy"]["overflowed"] == producers["greedy"]["over_limit"] > 0
    assert producers["patient"]["waited"] > 0
    assert counts[OVERFLOW]["broker"] == ledger["overflowed"]


def test_plain_lines_tell_when_shedding_starts_and_ends(demo):
    """Where there is no terminal; the proof follows, and what to try next."""
    result = demo("--seconds", "3")
    assert result.exit_code == 0, result.output
    assert "client_queue = { messages = " in result.stdout
    assert "the queue is over its limit: shedding starts" in result.stdout
    assert "shedding ends: " in result.stdout
    assert result.stdout.count("✓ equal") == 4
    assert "shield setup --broker rabbitmq --dry-run" in result.stdout
    assert "guest" not in result.stdout
    assert "\x1b" not in result.stdout
    assert result.stderr == ""


def test_nothing_of_a_run_stays_on_the_broker(demo, rabbitmq):
    """Its exchanges and queues end with it."""
    assert demo("--json", "--seconds", "0.5", "--messages", "20").exit_code == 0
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq.address))
    for exchange in (EXCHANGE, OVERFLOW):
        with pytest.raises(ChannelClosedByBroker, match="404"):
            connection.channel().exchange_declare(exchange, passive=True)
    connection.close()


def test_one_message_of_difference_is_found(demo, monkeypatch):
    """A message that the broker does not hold ends the demo with 1."""
    count = RabbitMQDemo.count
    monkeypatch.setattr(
        RabbitMQDemo,
        "count",
        lambda demo, place: count(demo, place) - (place == demo.clicks),
    )
    result = demo("--seconds", "0.5", "--messages", "50")
    assert result.exit_code == 1
    assert "✗ differ by 1" in result.stdout
    assert "accounted for" not in result.stdout
