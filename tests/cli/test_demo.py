from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections import Counter

import pytest

from shield import Event, Kind, Ledger
from shield.cli.demo.gauge import Reading, fill_gauge, rate_gauge
from shield.cli.demo.observer import Episode, Observer, told
from shield.cli.demo.report import Report
from shield.cli.demo.screen import bar
from shield.cli.demo.script import BURST, QUOTA, script_for
from shield.demo import DemoQueue
from shield_kafka.demo.demo import KafkaDemo

PRODUCERS = {"greedy", "bursty", "modest", "patient"}


def test_json_holds_the_ledger_and_what_the_broker_holds(run):
    result = run("demo", "--json", "--seconds", "1.5", "--messages", "250")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["equal"] is report["balanced"] is report["ledger"]["balanced"] is True
    counts, ledger, producers = report["counts"], report["ledger"], report["producers"]
    assert all(count["ledger"] == count["broker"] for count in counts.values())
    assert sum(count["broker"] for count in counts.values()) == ledger["offered"]
    assert set(producers) == PRODUCERS
    assert all(0 < producer["offered"] <= 250 for producer in producers.values())
    assert producers["greedy"]["overflowed"] == producers["greedy"]["over_limit"] > 0
    assert producers["bursty"]["overflowed"] > 0
    assert producers["modest"]["over_limit"] == 0
    assert producers["patient"]["waited"] == producers["patient"]["over_limit"] > 0
    assert counts["shield-demo.overflow"]["broker"] == ledger["overflowed"] > 0


def test_plain_lines_and_the_proof_where_there_is_no_terminal(run):
    result = run("demo", "--seconds", "1.5")
    assert result.exit_code == 0, result.output
    assert "[[rules]]" in result.stdout
    assert result.stdout.count("✓ equal") == 3
    assert "Every message is accounted for" in result.stdout
    assert "shield demo --bootstrap HOST:PORT" in result.stdout
    assert "\x1b" not in result.stdout
    assert result.stderr == ""


def test_one_message_of_difference_is_found(run, monkeypatch):
    count = KafkaDemo.count
    monkeypatch.setattr(
        KafkaDemo,
        "count",
        lambda demo, place: count(demo, place) - (place == demo.overflow),
    )
    result = run("demo", "--seconds", "0.8", "--messages", "150")
    assert result.exit_code == 1
    assert "✗ differ by 1" in result.stdout
    assert "ledger and broker differ" in result.stdout
    assert "accounted for" not in result.stdout


def test_svg_is_a_picture_of_the_last_screen(run, tmp_path):
    result = run("demo", "--seconds", "0.8", "--messages", "50", "--svg", "demo.svg")
    assert result.exit_code == 0, result.output
    picture = (tmp_path / "demo.svg").read_text()
    assert picture.startswith("<svg")
    assert "greedy" in picture
    assert str(tmp_path) not in picture


def test_a_picture_that_cannot_be_written_is_refused_before_the_run(run):
    result = run("demo", "--svg", "nowhere/demo.svg")
    assert result.exit_code == 2
    assert (
        result.stderr == "--svg: nowhere/demo.svg: cannot be written: No such file or directory\n"
    )


def test_a_broker_that_does_not_answer_is_one_line(run, monkeypatch):
    monkeypatch.setattr("shield_kafka.demo.demo.REACH_S", 0.2)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        result = run("demo", "--bootstrap", address)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert f"no Kafka answers at {address}" in line


def test_an_unknown_broker_is_refused_with_what_is_allowed(run):
    result = run("demo", "--broker", "kafk")
    assert result.exit_code == 2
    assert (
        result.stderr == "--broker: found 'kafk'; did you mean 'kafka'? allowed: kafka, rabbitmq\n"
    )


def test_ctrl_c_ends_the_run_with_its_tables():
    command = [sys.executable, "-m", "shield", "demo", "--seconds", "60"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "modest" in line:
                break
        demo.send_signal(signal.SIGINT)
        output, errors = demo.communicate(timeout=150)
    assert demo.returncode == 0, errors
    assert output.count("✓ equal") == 3
    assert errors == ""


def test_a_rabbitmq_that_does_not_answer_is_one_line_that_says_how_to_get_one(run):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        result = run("demo", "--broker", "rabbitmq", "--bootstrap", address)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert f"no RabbitMQ for us at {address}: " in line
    assert "make brokers" in line
    assert "--bootstrap amqp://user:password@host:port/vhost" in line


def test_an_address_that_is_none_is_refused_without_its_password(run):
    result = run("demo", "--broker", "rabbitmq", "--bootstrap", "http://me:secret@here")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("--bootstrap: url: found 'http://here'; allowed is amqp://")


@pytest.mark.parametrize(
    ("value", "gauge", "cells"),
    [
        (0, rate_gauge(QUOTA), 0),
        (QUOTA, rate_gauge(QUOTA), 4),
        (3 * QUOTA, rate_gauge(QUOTA), 12),
        (100 * QUOTA, rate_gauge(QUOTA), 20),
        (250, fill_gauge(1000, int), 5),
        (1000, fill_gauge(1000, int), 20),
    ],
)
def test_a_bar_marks_the_limit_and_never_outgrows_its_column(value, gauge, cells):
    text = bar(value, gauge).plain
    assert text.count("█") == cells
    assert text[gauge.mark] == "│"


def test_a_producer_that_has_sent_nothing_has_an_empty_ledger():
    (part, *_) = parts = script_for(KafkaDemo(None)).parts
    report = Report(0.0, Ledger(), Counter(), {part.name: Reading() for part in parts})
    assert report.of(part).offered == 0


def test_a_queue_is_bounded_to_a_second_of_what_the_broker_takes_and_then_sheds():
    demo = KafkaDemo(None)
    demo.queue = DemoQueue("clicks", 3140.0, int)
    script = script_for(demo)
    (rule,) = (rule for rule in script.settings["rules"] if rule["name"] == "clicks")
    assert rule["client_queue"] == {"messages": 3100}
    assert rule["over_limit"] == ["drop"]
    assert script.parts[-1].gauge.limit == 3100


def test_a_peak_outruns_the_broker_until_the_queue_is_full_and_then_rests():
    demo = KafkaDemo(None)
    demo.queue = DemoQueue("clicks", 1000.0, int)
    due = script_for(demo).parts[-1].due
    assert due(0.4, 0, 0) == 0
    assert due(0.5, 0, 0) == 0
    assert due(0.9, 400, 300) == 300 + 500
    assert due(1.3, 1000, 600) == 600 + 1000
    assert due(3.1, 4000, 2000) == 0
    assert due(6.5, 4000, 3000) == 4000
    assert due(6.9, 4000, 3100) == 4100 + 500


def test_drops_close_together_are_one_time_of_shedding():
    at = iter((1.0, 1.2, 1.4, 3.0))
    observer = Observer(lambda: next(at))
    for kind in (Kind.DROPPED, Kind.DROPPED, Kind.RAISED, Kind.DROPPED, Kind.DROPPED):
        observer.shield_on_event(Event(kind))
    assert observer.episodes == (Episode(1.0, 1.4, 3), Episode(3.0, 3.0, 1))


def test_the_end_of_shedding_is_told_once_it_is_known():
    episodes = (Episode(1.0, 1.4, 1234),)
    start, end = " 1.0s  the queue is over its limit: shedding starts", " 1.4s  shedding ends"
    assert list(told(episodes, 1.5)) == [start]
    assert list(told(episodes, 2.0)) == [start, f"{end}: 1,234 dropped"]


def test_a_producer_that_was_held_up_stays_within_its_quota():
    """It sends half a burst of what it missed, and goes on at its pace."""
    parts = {part.name: part for part in script_for(KafkaDemo(None)).parts}
    due, sent = parts["modest"].due, 150
    assert due(1.0, sent - 10, 0) == sent
    assert due(5.0, sent, 0) == sent + BURST // 2
    assert due(5.1, sent + BURST // 2, 0) == sent + BURST // 2 + 15
