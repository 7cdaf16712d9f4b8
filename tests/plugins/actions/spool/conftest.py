from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import shield
from shield import Shield
from shield.testing import FakeClient
from tests.eventually import eventually

SHUT = {"quota": {"rate": "1/d", "burst": 1}}
"""Admits one message, and then nothing for a day."""
WIDE = {"in_flight": {"messages": 1000}}
"""Admits all."""


class Spooling:
    """Makes Shields and clients whose messages over the limit go to one folder's spool."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clients: list[FakeClient] = []

    def client(
        self, policies: dict[str, Any], *after: Any, plugins: Any = (), **settings: Any
    ) -> FakeClient:
        """Return a client of a fresh Shield; its first message has taken what SHUT admits."""
        chain = [{"spool": {"size": "8MiB", **settings}}, *after]
        rules = [{"name": "orders", "match": "*", **policies, "over_limit": chain}]
        own = {"producer": "checkout", "spool_dir": str(self.folder)}
        shield = Shield({"shield": own, "rules": rules}, plugins=plugins)
        client = FakeClient(shield)
        self.clients.append(client)
        if policies is SHUT:
            client.publish("orders", b"admitted")
            client.ack()
        return client

    @property
    def file(self) -> Path:
        """The spool's file."""
        return self.folder / "checkout+orders.spool"

    def close(self) -> None:
        for client in self.clients:
            client.close(5.0)


def spool(client: FakeClient, *bodies: bytes, key: bytes | None = None) -> None:
    """Publish messages; return when all are on disk."""
    futures = [client.publish("orders", body, key) for body in bodies]
    assert [shield.fate(future) for future in futures] == ["spooled"] * len(bodies)
    for future in futures:
        assert future.result(60) is None


def arrived(client: FakeClient, number: int) -> list[bytes]:
    """Let the fake broker store what comes until so many are there; return their bodies."""
    eventually(lambda: client.ack() or len(client.arrived["orders"]) >= number)
    return [record.body for record in client.arrived["orders"]]


@pytest.fixture
def spooling(tmp_path: Path) -> Iterator[Spooling]:
    made = Spooling(tmp_path / "spools")
    yield made
    made.close()
