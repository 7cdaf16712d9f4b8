"""The code blocks of docs/rabbitmq.md and other pages' for RabbitMQ run on a real one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pika
import pytest
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser

ROOT = Path(__file__).parents[1]
PAGE, README = ROOT / "docs" / "rabbitmq.md", ROOT / "README.md"
CONSUMING = ROOT / "docs" / "consuming.md"


def blocks(page: Path) -> list[str]:
    """The page's Python."""
    document = Sybil([CodeBlockParser("python", lambda example: None)]).parse(page)
    return [example.parsed for example in document.examples()]


def run(text: str, url: str, tmp_path: Path) -> None:
    """Run it as a program of its own, which keeps a connection until it ends."""
    script = tmp_path / "page.py"
    script.write_text(text.replace("amqp://localhost", url))
    subprocess.run([sys.executable, script], check=True, timeout=150)


@pytest.fixture
def documented(rabbitmq) -> Iterator[Callable[..., int]]:
    """What a reader has already, an exchange and queues; how many messages one holds."""
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq.address))
    channel = connection.channel()
    channel.exchange_declare("orders", "topic", durable=True)
    for queue in ("documented", "emails"):
        channel.queue_declare(queue)
        channel.queue_purge(queue)  # of an earlier run, on a broker that stays
    channel.queue_bind("documented", "orders", "created.#")

    def depth(queue: str = "documented") -> int:
        return int(channel.queue_declare(queue, passive=True).method.message_count)

    yield depth
    connection.close()


def test_the_rabbitmq_page_runs(rabbitmq, documented, tmp_path):
    """What the page shows is what a reader with an exchange and a queue can paste."""
    run("\n".join(blocks(PAGE)), rabbitmq.address, tmp_path)
    assert documented() == 104


def test_the_readmes_rabbitmq_example_runs(rabbitmq, documented, tmp_path):
    """Its blocks that need a RabbitMQ publish what they say."""
    publishes, consumes = [text for text in blocks(README) if "amqp://localhost" in text]
    run(publishes, rabbitmq.address, tmp_path)
    assert documented() == 2
    run(consumes, rabbitmq.address, tmp_path)


def test_the_consuming_page_runs(rabbitmq, documented, tmp_path):
    """Its blocks for RabbitMQ take what they say out of a queue."""
    examples = [text for text in blocks(CONSUMING) if "amqp://localhost" in text]
    run("\n".join(examples), rabbitmq.address, tmp_path)
    assert documented("emails") == 0
