"""The benchmarks work: a tiny run of each. What they find is not tested, for that is noise."""

import io
import json
import os
import sys
import threading

import confluent_kafka
import kafka
import psutil
import pytest
from typer.testing import CliRunner

from benchmarks import (
    blocked_publisher,
    buffer,
    buffered_sender,
    consumer,
    decide,
    kafka_producer,
    rabbitmq_consumer,
    rabbitmq_memory,
    rabbitmq_publish,
    spool,
    stalled_sender,
)
from benchmarks.__main__ import NAMES, app
from benchmarks.measure import Effort, Noise, Report, Result, interleave, result_of, spread_of
from benchmarks.overload.clients import KafkaOffers, KafkaTakes
from benchmarks.overload.load import body, read
from benchmarks.watched import Child, Watch
from shield import Shield

runner = CliRunner()


def test_decide_prints_json_with_all_that_tools_read():
    """One object with the results, their ratio and target, the noise and the versions."""
    ran = runner.invoke(app, ["decide", "--json", "--quick", "--runs", "1"])
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    assert {"name", "results", "ratio", "target", "reached", "noise", "versions"} <= set(found)
    assert {decide.THREE, decide.ALONE, decide.PEER} <= {line["name"] for line in found["results"]}


def test_decide_prints_a_table():
    """Without --json it is for people, and says which targets were reached."""
    ran = runner.invoke(app, ["decide", "--quick", "--runs", "1"])
    assert ran.exit_code == 0, ran.output
    assert "three policies" in ran.stdout
    assert "noise" in ran.stdout


def test_the_help_names_every_benchmark():
    """Nobody finds a name that is not in the help."""
    shown = runner.invoke(app, ["--help"]).stdout
    assert all(name in shown for name in NAMES)


def test_an_unknown_name_is_refused():
    """Exit status 2, as for any wrong argument."""
    assert runner.invoke(app, ["nothing"]).exit_code == 2


def test_sides_take_turns_in_changing_order():
    """A B, then B A, so that a drift of the machine falls on both."""
    order = []
    runs = interleave(
        {side: lambda side=side: order.append(side) or 1.0 for side in "AB"}, 3, Noise(), "turns"
    )
    assert order == ["A", "B", "B", "A", "A", "B"]
    assert runs == {"A": [1.0] * 3, "B": [1.0] * 3}


def test_the_spread_is_the_interquartile_range_over_the_median():
    """One wild run does not make it large."""
    assert spread_of([10, 10, 11, 12, 1000]) == pytest.approx(2 / 11)
    assert spread_of([10]) == 0


def test_a_report_has_reached_its_target_when_every_line_with_one_has():
    """Lines without a target do not count."""
    fast, slow = result_of("fast", [1.0], "us"), result_of("slow", [9.0], "us")
    fast.aims(fast.value, below=2.0)
    assert _report(fast, slow).reached
    slow.aims(slow.value, below=2.0)
    assert not _report(fast, slow).reached


def test_a_target_of_at_least_is_reached_by_the_value_itself():
    """0.95 reaches 0.95."""
    assert not result_of("rate", [0.94], "x").aims(0.94, at_least=0.95).reached
    assert result_of("rate", [0.95], "x").aims(0.95, at_least=0.95).reached


@pytest.fixture(scope="module")
def address():
    cluster = confluent_kafka.Producer(
        {"bootstrap.servers": "mock:1", "test.mock.num.brokers": 1, "log_level": 0}
    )
    broker = next(iter(cluster.list_topics(timeout=10).brokers.values()))
    yield f"{broker.host}:{broker.port}"
    cluster.flush(0)


@pytest.fixture
def old_protocol(monkeypatch):
    """What kafka-python needs to be told about the mock cluster."""
    monkeypatch.setitem(kafka.KafkaProducer.DEFAULT_CONFIG, "api_version", (2, 3))


def test_kafka_producer_measures_both_sides_and_proves_that_all_arrived(address, old_protocol):
    """Against the mock cluster; the real broker is for real numbers."""
    lines = kafka_producer._compare(address, "bench", 100, Effort(1, quick=True), Noise())
    by_name = {line.name: line for line in lines}
    assert by_name["100 B, shielded"].ratio_to == kafka_producer.BARE
    assert all(line.value > 0 for line in lines)


def test_what_a_bare_producer_offers_its_consumer_takes(address, old_protocol, monkeypatch):
    """Through the mock cluster: each once, and what was taken is committed."""
    monkeypatch.setitem(kafka.KafkaConsumer.DEFAULT_CONFIG, "api_version", (2, 3))
    offers = KafkaOffers(address, "overloaded", None)
    for number in range(25):
        assert not offers.offer(body(float(number), "critical"), "critical", b"user")
    offers.close()
    takes, stop, taken = KafkaTakes(address, "overloaded"), threading.Event(), []
    for raw in takes.take(stop):
        taken += [] if raw is None else [read(raw)[0]]
        if len(taken) == 25:
            stop.set()
    takes.close()
    assert sorted(taken) == list(range(25))


def test_consumer_measures_both_ways_and_proves_that_all_was_handed_over(address, monkeypatch):
    """The same."""
    for client in (kafka.KafkaProducer, kafka.KafkaConsumer):
        monkeypatch.setitem(client.DEFAULT_CONFIG, "api_version", (2, 3))
    lines = consumer._compare(address, "consumed", 100, Effort(1, quick=True), Noise())
    assert [line.name for line in lines if line.target] == [
        f"{way}, 100 B, shielded" for way in ("poll", "iteration")
    ]
    assert all(line.value > 0 for line in lines)


def test_the_spool_is_measured_both_ways(address, old_protocol):
    """Into it by the system and by fsync; out of it into the mock cluster."""
    into = spool._into(Effort(1, quick=True), Noise())
    assert [line.name for line in into] == [spool.BY_OS, spool.GROUP, spool.ONE_BY_ONE]
    assert all(line.value > 0 for line in into)
    assert spool._rate_drained(address, "spooled", 3_000) > 0
    assert spool._rate_bare(address, "spooled", 50) > 0


def test_a_message_that_is_not_accounted_for_fails_the_benchmark():
    """A wrong count is no result."""
    with pytest.raises(AssertionError, match="5 were sent"):
        kafka_producer._prove_all_delivered(kafka_producer.wide_shield("bench"), 5)


def test_the_stalled_sender_tells_its_ledger(address, old_protocol, monkeypatch, capsys):
    """The process that kafka_memory watches: warm, frozen, after."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("go on\n" * 3))
    monkeypatch.setattr(stalled_sender, "WARM_UP", 10)
    stalled_sender.main("shielded", address, "stalled", 50, 100, 20)
    warm, frozen, after = map(json.loads, capsys.readouterr().out.splitlines())
    assert warm == {"warm": True}
    assert frozen["frozen"]["offered"] == after["offered"] == 60
    assert after["in_flight"] == 0
    assert after["balanced"]


def test_the_buffered_sender_tells_what_it_kept_and_how_fast_it_drained(
    address, old_protocol, monkeypatch, capsys
):
    """The process of `buffer`: all is kept, and arrives. Its memory means nothing in here."""
    monkeypatch.setattr(buffered_sender, "WARM_UP", 10)
    buffered_sender.main(address, "buffered", 3000, 100)
    told = json.loads(capsys.readouterr().out)
    assert min(told["bare_per_s"], told["fill_per_s"], told["drain_per_s"]) > 0
    buffer.prove(told, 3000, 3000)


def test_a_buffered_message_that_did_not_arrive_fails_the_benchmark():
    """A wrong count is no result."""
    told = {"kept": 5, "delivered": 5, "balanced": True}
    with pytest.raises(AssertionError, match="4 arrived"):
        buffer.prove(told, 5, 4)


def test_the_watch_sees_memory_grow():
    """Resident memory, from outside, in MB."""
    with Watch(os.getpid()) as watch:
        held = b"x" * 30_000_000
    assert watch.peak_mb > 20
    assert len(held) == 30_000_000


def test_a_child_answers_line_by_line_and_is_gone_at_the_end():
    """What it does not say in time, because it has ended, is an error."""
    with Child("tests.echo") as child:
        child.say("go on")
        assert child.hear() == {"heard": "go on"}
        child.say("end")
        with pytest.raises(RuntimeError, match="ended before its time"):
            child.hear()
    assert not psutil.pid_exists(child.pid)


def _alarm_run(**changed):
    """What a publisher tells that went through an alarm, and what then was in the queue."""
    warm_up = blocked_publisher.WARM_UP
    middle = {"balanced": True, "offered": 500 + warm_up, "in_flight": 500}
    end = {"balanced": True, "offered": 500 + 2 * warm_up, "in_flight": 0, "failed": 0}
    end["delivered"] = 500 + 2 * warm_up
    during = {"blocked": True, "held": 500, "ledger": middle}
    recovered = {"recovered": 500, "failed": changed.pop("failed", 0)}
    after = {"blocked": False, "ledger": end}
    return 500, during, recovered, after, changed.pop("stored", end["delivered"])


def test_an_alarm_that_lost_no_message_is_a_result():
    """All that was held arrived, and all that was published afterwards."""
    rabbitmq_memory._prove_accounted(*_alarm_run())


@pytest.mark.parametrize("changed", [{"failed": 1}, {"stored": 4499}])
def test_an_alarm_that_lost_a_message_fails_the_benchmark(changed):
    """One that failed, or one that the queue does not hold."""
    with pytest.raises(AssertionError, match="500 were offered"):
        rabbitmq_memory._prove_accounted(*_alarm_run(**changed))


def test_both_sides_of_rabbitmq_publish_must_account_for_every_message():
    """A wrong count is no result."""
    with pytest.raises(AssertionError, match="5 were published"):
        rabbitmq_publish._prove_all_delivered(rabbitmq_publish.wide_shield("bench"), 5)


def test_the_rabbitmq_consumer_must_account_for_every_message():
    """A wrong count is no result."""
    shield = Shield({"rules": [rabbitmq_consumer.rule("bench")]})
    with pytest.raises(AssertionError, match="5 were consumed"):
        rabbitmq_consumer.prove_all_consumed(shield, 5)


def _report(*results: Result) -> Report:
    return Report("some", list(results), 1.0, "a over b", "fast", 0.0, {})
