from __future__ import annotations

import json
import socket

import pytest

from shield import ShieldError, Transport, hookimpl
from shield.config import registry
from shield.provisioning import Provisioner, Resource, State

RULES = """
[[rules]]
name = "orders"
match = "orders.*"
quota = "5/s"
over_limit = ["wait 1s", "overflow set-aside", "overflow file:///tmp/orders", "raise"]

[[rules]]
match = "audit"
quota = "5/s"
over_limit = [{ overflow = { destination = "set-aside" } }, { overflow = "refused" }]
"""


class Memory(Provisioner):
    """A broker that holds names."""

    title = "memory"

    def __init__(self, address, partitions):
        self.asked = (address, partitions)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def look(self, destination):
        yield Resource("topic", destination.name, State.MISSING)

    def make(self, destination):
        if destination.name == "refused":
            yield Resource("topic", destination.name, State.REFUSED, "no [luck]")
        else:
            yield Resource("topic", destination.name, State.MADE, f"for {destination.match}")


class Down(Memory):
    """One that does not answer."""

    title = "down"

    def __enter__(self):
        raise ShieldError("nobody is there")


class Elsewhere(Transport):
    """`memory://up/NAME` and `memory://down/NAME`."""

    scheme = "memory"
    asked = []

    @classmethod
    def to(cls, url):
        return cls()

    @classmethod
    def setup(cls, url, partitions):
        cls.asked.append((url.password, partitions))
        return (Down if url.hosts == "down" else Memory)(None, partitions), url.path

    def send(self, envelope, done):
        done(None)

    def close(self, timeout_s):
        pass


class Plugin:
    """Lets `--broker memory` be one that a plugin contributes, and `memory://`."""

    name = "memory"
    dist = None

    @classmethod
    def load(cls):
        return cls

    @staticmethod
    @hookimpl
    def shield_setups():
        return {"memory": Memory}

    @staticmethod
    @hookimpl
    def shield_transports():
        return {"memory": Elsewhere}


@pytest.fixture(autouse=True)
def _memory(monkeypatch):
    points = (*registry._entry_points(), Plugin)
    monkeypatch.setattr(registry, "_entry_points", lambda: points)


def things(result):
    return [(thing["name"], thing["state"]) for thing in json.loads(result.stdout)["things"]]


def test_every_destination_is_made_once_and_a_refusal_ends_with_1(run, write):
    write(RULES)
    result = run("setup", "--broker", "memory", "--json")
    assert result.exit_code == 1
    assert things(result) == [("set-aside", "made"), ("refused", "refused")]
    assert json.loads(result.stdout)["things"][0]["detail"] == "for orders.*"


def test_a_dry_run_looks_only(run, write):
    write(RULES)
    result = run("setup", "--broker", "memory", "--json", "--dry-run")
    assert result.exit_code == 0
    assert things(result) == [("set-aside", "missing"), ("refused", "missing")]


def test_a_table_says_what_was_made_and_what_the_broker_said(run, write):
    write(RULES)
    result = run("setup", "--broker", "memory")
    assert "set-aside" in result.stdout
    assert "made" in result.stdout
    assert "no [luck]" in result.stdout


ELSEWHERE = """
[credentials.up]
url = "memory://up"
username = "u"
password = "secret"

[[rules]]
match = "orders.*"
quota = "5/s"
over_limit = ["overflow memory://down/a", "overflow memory://up/b", "overflow own"]
"""


def test_destinations_on_other_brokers_are_made_there(run, write):
    """With the credentials of the settings; one that does not answer keeps none from the others."""
    write(ELSEWHERE)
    result = run("setup", "--broker", "memory", "--partitions", "7", "--json")
    assert result.exit_code == 1
    assert Elsewhere.asked == [(None, 7), ("secret", 7)]
    assert "secret" not in result.stdout
    rows = {one["destination"]: one for one in json.loads(result.stdout)["things"]}
    assert set(rows) == {"own", "memory://down/a", "memory://up/b"}
    up, down = rows["memory://up/b"], rows["memory://down/a"]
    assert (up["broker"], up["name"], up["state"]) == ("memory", "b", "made")
    assert (down["what"], down["state"], down["detail"]) == (
        "broker",
        "refused",
        "nobody is there",
    )


def test_rules_without_overflow_need_nothing(run, write):
    write('[[rules]]\nmatch = "*"\nquota = "5/s"\nover_limit = "drop"')
    result = run("setup", "--broker", "memory")
    assert result.exit_code == 0
    assert "nothing to set up" in result.stdout


def test_an_unknown_broker_is_refused_with_what_is_allowed(run):
    result = run("setup", "--broker", "memry")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line == (
        "--broker: found 'memry'; did you mean 'memory'? allowed: kafka, memory, rabbitmq"
    )


def test_the_broker_must_be_named(run):
    result = run("setup")
    assert result.exit_code == 2
    assert "--broker" in result.stderr


def test_partitions_are_refused_where_the_broker_has_none(run):
    result = run("setup", "--broker", "rabbitmq", "--partitions", "3")
    assert result.exit_code == 2
    assert result.stderr == ("--partitions: found 3; RabbitMQ's exchanges and queues have none\n")


@pytest.mark.parametrize(
    ("broker", "named"), [("rabbitmq", "no RabbitMQ for us"), ("kafka", "no Kafka for us")]
)
def test_a_broker_that_does_not_answer_is_one_line(run, broker, named, monkeypatch):
    monkeypatch.setattr("shield_kafka.operations.provisioning.REACH_MS", 200)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        result = run("setup", "--broker", broker, "--bootstrap", address)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert f"{named} at {address}: " in line
    assert "--bootstrap" in line
