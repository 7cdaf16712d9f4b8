"""The example web service, called as an ASGI server calls it."""

from __future__ import annotations

import asyncio

import pytest

from examples.asgi_orders import Orders
from shield import Shield
from shield.testing import FakeClient, ManualClock


def request(service, *parts):
    """Send one request; return the status and the headers of its answer, and what was read."""
    parts = parts or (b"an order",)
    events = [
        {"type": "http.request", "body": part, "more_body": n + 1 < len(parts)}
        for n, part in enumerate(parts)
    ]
    answers = []

    async def receive():
        return events.pop(0)

    async def send(event):
        answers.append(event)

    asyncio.run(service({"type": "http"}, receive, send))
    start, body = answers
    assert (start["type"], body["type"]) == ("http.response.start", "http.response.body")
    return start["status"], dict(start["headers"]), len(parts) - len(events)


def service_with(**rule):
    rules = [{"name": "orders", "match": "*", **rule}]
    client = FakeClient(Shield({"rules": rules}, clock=ManualClock()))
    return Orders(lambda body: client.publish("orders.created", body), client.shield), client


def test_a_request_is_accepted_and_published():
    """202, and the whole body, however it came."""
    service, client = service_with(in_flight={"messages": 5})
    assert request(service, b"an ", b"order") == (202, {}, 2)
    assert [record.body for record in client.unanswered] == [b"an order"]


def test_under_full_pressure_a_request_is_turned_away_unread():
    """429 with the time to come back; accepted again when there is room."""
    service, client = service_with(in_flight={"messages": 2})
    assert [request(service)[0] for _ in range(2)] == [202, 202]
    assert request(service) == (429, {b"retry-after": b"1"}, 0)
    client.ack()
    assert request(service)[0] == 202
    assert client.shield.ledger().raised == 0


def test_a_message_that_is_over_the_limit_all_the_same_says_when_to_come_back():
    """As the policy does: it is larger than the one before, by which the pressure was judged."""
    service, _ = service_with(quota={"rate": "100B/m", "burst": "100B"})
    assert request(service, b"x" * 30)[0] == 202
    status, headers, read = request(service, b"x" * 80)
    assert (status, read) == (429, 1)
    assert headers == {b"retry-after": b"6"}


def test_other_protocols_are_refused():
    """A websocket is no request."""
    service, _ = service_with(in_flight={"messages": 1})
    with pytest.raises(RuntimeError, match="HTTP, not websocket"):
        asyncio.run(service({"type": "websocket"}, None, None))
