"""The code blocks of docs/rabbitmq.md run on a real RabbitMQ."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pika
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser

PAGE = Path(__file__).parents[1] / "docs" / "rabbitmq.md"


def blocks() -> str:
    """The page's Python, as one program of its own: it keeps a connection until it ends."""
    document = Sybil([CodeBlockParser("python", lambda example: None)]).parse(PAGE)
    return "\n".join(example.parsed for example in document.examples())


def test_the_rabbitmq_page_runs(rabbitmq, tmp_path):
    """What the page shows is what a reader with an exchange and a queue can paste."""
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq.address))
    channel = connection.channel()
    channel.exchange_declare("orders", "topic", durable=True)
    channel.queue_declare("documented")
    channel.queue_purge("documented")  # of an earlier run, on a broker that stays
    channel.queue_bind("documented", "orders", "created.*")
    script = tmp_path / "page.py"
    script.write_text(blocks().replace("amqp://localhost", rabbitmq.address))
    subprocess.run([sys.executable, script], check=True, timeout=60)
    assert channel.queue_declare("documented", passive=True).method.message_count == 104
    connection.close()
