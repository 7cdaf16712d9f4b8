"""A web service that says 429 while its messages could not be sent, instead of piling them up.

Plain ASGI, for any server: `uvicorn --factory examples.asgi_orders:main`, with a `shield.toml`
that has a rule named "orders".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import ceil, isfinite
from typing import Any

from shield import OverLimitError, Shield

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Orders:
    """Publishes the body of each request.

    Args:
        publish: takes a body; a shielded client's send.
        own: the Shield whose rule "orders" covers it.
    """

    def __init__(self, publish: Callable[[bytes], object], own: Shield) -> None:
        self._publish = publish
        self._own = own

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer 202, or 429 with the time to come back."""
        if scope["type"] != "http":
            raise RuntimeError(f"this service speaks HTTP, not {scope['type']}")
        if self._own.pressure("orders") >= 1.0:  # before the body is read
            await _answer(send, 429, retry_after_s=1.0)
            return
        body = await _body(receive)
        try:
            await asyncio.to_thread(self._publish, body)  # its rule may let it wait
        except OverLimitError as error:
            await _answer(send, 429, retry_after_s=error.retry_after or 1.0)
        else:
            await _answer(send, 202)


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    return body


async def _answer(send: Send, status: int, retry_after_s: float | None = None) -> None:
    headers = []
    if retry_after_s is not None and isfinite(retry_after_s):
        headers.append((b"retry-after", b"%d" % ceil(retry_after_s)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def main() -> Orders:
    """Return the service on Kafka."""
    from shield_kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers="localhost:9092")
    return Orders(lambda body: producer.send("orders.created", body), producer.shield)
