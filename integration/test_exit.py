"""How programs end, and children of `multiprocessing`: within one limit of time, with a word."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from integration.reading import read

CHILD = """
import multiprocessing, sys
import shield
from shield_kafka import KafkaProducer

def work(address, topic):
    rule = {"match": topic, "quota": {"rate": "50/s", "burst": 1}, "over_limit": ["buffer", "drop"]}
    producer = KafkaProducer(bootstrap_servers=address, shield={"rules": [rule]})
    for number in range(20):
        producer.send(topic, b"%d" % number)

if __name__ == "__main__":
    address, topic, method = sys.argv[1:]
    child = multiprocessing.get_context(method).Process(target=work, args=(address, topic))
    child.start()
    child.join(60)
    assert child.exitcode == 0, child.exitcode
"""

SILENT = """
import socket, threading
import shield
from shield_rabbitmq import Publisher

server = socket.create_server(("127.0.0.1", 0))
url = "amqp://guest:guest@127.0.0.1:%d/" % server.getsockname()[1]
publishers = [Publisher(url, shield={}) for _ in range(5)]
for publisher in publishers:
    publisher.publish("", "q", b"1")
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_that_ends_without_close_sends_what_it_has_buffered(
    kafka, new_topic, method, tmp_path
):
    """As a program does: nothing calls `atexit` there."""
    topic, program = new_topic(1), tmp_path / "program.py"
    program.write_text(CHILD)
    command = [sys.executable, str(program), kafka.address, topic, method]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert ran.returncode == 0, ran.stderr
    assert [int(r.value) for r in read(kafka.address, topic)] == list(range(20))


def test_many_publishers_on_a_silent_server_end_within_one_limit():
    """Not one after another; and one line says how many messages are lost."""
    begun = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-c", SILENT], capture_output=True, text=True, timeout=100, check=True
    )
    assert time.monotonic() - begun < 30  # each alone waits ten
    assert "5 messages could not be sent before the program ended: 5 failed" in ran.stderr
