"""Messages a second that a RabbitMQ consumer takes and acknowledges, shielded, beside bare pika.

`basic_consume` on a BlockingConnection with a prefetch of 300, one acknowledgement for each
message, as pika's own documentation has it. The shielded side has one quota for consuming, which
admits everything, and the ledger must say so; "no rule" is the shielded connection where no rule is
about the queue. The queue is filled before the clock starts, which stops when the broker has
answered a question that was asked behind the last acknowledgement.
"""

from __future__ import annotations

import gc
import time
from typing import Any

import pika

import shield_rabbitmq
from benchmarks.measure import (
    Effort,
    Noise,
    Report,
    interleave,
    median_of_pairs,
    result_of,
    versions_of,
)
from integration.brokers import RABBITMQ, shared
from integration.queues import Queues
from shield import Shield

SHIELDED, NO_RULE, BARE = "one quota", "no rule", "bare pika"
TARGET = 0.95
PREFETCH = 300
BODY = bytes(1024)


def run(effort: Effort) -> Report:
    """Measure on the shared RabbitMQ."""
    noise = Noise()
    with shared(RABBITMQ) as broker, Queues(broker.address) as queues:
        queue = queues.queue()
        try:
            rates = _measure(broker.address, queues, queue, effort, noise)
        finally:
            queues.channel.queue_delete(queue)
    results = {side: result_of(side, values, "messages/s") for side, values in rates.items()}
    for side in (SHIELDED, NO_RULE):
        results[side].ratio = median_of_pairs(rates[side], rates[BARE])
        results[side].ratio_to = "over bare pika"
    ratio = results[SHIELDED].ratio
    assert ratio is not None
    results[SHIELDED].aims(ratio, at_least=TARGET)
    return Report(
        name="rabbitmq_consumer",
        results=list(results.values()),
        ratio=ratio,
        ratio_of=f"messages a second of {SHIELDED!r} over {BARE!r}",
        target=f"at least {TARGET}x of {BARE}",
        noise=noise.relative,
        versions=versions_of("pika"),
        notes=[
            f"broker: {broker.way}; ratios are medians over pairs of neighbouring runs",
            f"a durable classic queue, {len(BODY)} bytes, prefetch {PREFETCH}, acked one by one",
        ],
    )


def _measure(
    url: str, queues: Queues, queue: str, effort: Effort, noise: Noise
) -> dict[str, list[float]]:
    messages = effort.of(20_000, 400)
    shield, other = Shield({"rules": [rule(queue)]}), Shield({"rules": []})
    parameters = pika.URLParameters(url)
    with (
        shield_rabbitmq.BlockingConnection(parameters, shield=shield) as shielded,
        shield_rabbitmq.BlockingConnection(parameters, shield=other) as no_rule,
        pika.BlockingConnection(parameters) as bare,
    ):
        sides = {SHIELDED: shielded, NO_RULE: no_rule, BARE: bare}
        timed = {
            name: lambda connection=connection: _rate(queues, connection, queue, messages)
            for name, connection in sides.items()
        }
        runs = effort.runs_of(9, 1)
        rates = interleave(timed, runs, noise, "rabbitmq_consumer")
    prove_all_consumed(shield, runs * messages)
    return rates


def rule(queue: str) -> dict[str, object]:
    """Return a rule with a quota that admits all that is consumed from a queue."""
    return {"match": queue, "direction": "consume", "quota": {"rate": "1000000000/s"}}


def prove_all_consumed(shield: Shield, messages: int) -> None:
    """Raise where the ledger does not say that so many were received and acknowledged."""
    ledger = shield.ledger()
    if not (ledger.balanced and ledger.offered == ledger.delivered == messages):
        raise AssertionError(f"{messages} were consumed; the ledger: {ledger.as_dict()}")


def _rate(queues: Queues, connection: pika.BlockingConnection, queue: str, messages: int) -> float:
    """Fill the queue, consume it; return messages a second."""
    for _ in range(messages):
        queues.channel.basic_publish("", queue, BODY)
    while queues.depth(queue) < messages:
        time.sleep(0.01)
    gc.collect()
    channel = connection.channel()
    channel.basic_qos(prefetch_count=PREFETCH)
    left = messages

    def handle(channel: Any, method: Any, *_: Any) -> None:
        nonlocal left
        channel.basic_ack(method.delivery_tag)
        left -= 1
        if not left:
            channel.stop_consuming()

    begun = time.perf_counter()
    channel.basic_consume(queue, handle)
    channel.start_consuming()
    channel.queue_declare(queue, passive=True)
    seconds = time.perf_counter() - begun
    channel.close()
    return messages / seconds
