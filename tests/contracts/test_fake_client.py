"""The fake client is a client like any other: it passes what every adapter passes."""

from __future__ import annotations

import contextlib
import itertools

import pytest

from shield.testing import FakeClient
from tests.contracts.adapter import Adapter, FutureContract

NOWHERE = "nowhere"


class FakeAdapter(Adapter):
    def __init__(self):
        self._numbers = itertools.count()

    def publisher(self, chosen, name):
        client = FakeClient(chosen, name)
        client.missing.add(NOWHERE)
        return client

    def destination(self):
        return f"orders-{next(self._numbers)}"

    def publish(self, publisher, destination, body, headers):
        return publisher.publish(destination, body, headers=headers)

    def result(self, publisher, future):
        for _ in range(1000):  # what is buffered is sent later
            publisher.ack()
            with contextlib.suppress(TimeoutError):
                return future.result(0.01)
        return future.result(0)

    def arrived(self, publisher, destination):
        return [(record.body, dict(record.headers)) for record in publisher.arrived[destination]]

    def close(self, publisher):
        publisher.close()

    def wrong_calls(self, publisher, destination):
        return [lambda: publisher.publish(destination, "text"), lambda: publisher.publish()]

    def unreachable(self):
        return NOWHERE


class TestFakeClient(FutureContract):
    @pytest.fixture
    def adapter(self):
        return FakeAdapter()
