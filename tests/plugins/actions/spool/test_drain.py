"""The thread that brings back what is spooled goes on, whatever goes wrong in it."""

from __future__ import annotations

import logging

from shield import Source, Transport
from shield.plugins.actions.spool import sender as drains
from shield.plugins.actions.spool.sender import SpoolSender
from tests.eventually import eventually
from tests.making import shield_with


class FailsAtFirst(Source):
    """Raises at each of the first three questions; then there is nothing."""

    asked = 0

    def take(self, most, timeout_s):
        self.asked += 1
        if self.asked <= 3:
            raise RuntimeError("nobody foresaw it")
        return []

    def forget(self, taken): ...
    def failed(self, taken): ...
    def close(self): ...
    def wake(self): ...


class Open(Transport):
    """A client that is open, and is sent nothing."""

    scheme = "open"
    origin = "open://here"

    def send(self, envelope, done): ...
    def close(self, timeout_s): ...


def test_an_error_that_nobody_foresaw_is_not_its_end(monkeypatch, caplog):
    """It is said once, though it comes three times, and the source is asked again."""
    monkeypatch.setattr(drains, "TRY_AGAIN_S", 0.01)
    chosen, source, ended = shield_with(), FailsAtFirst(), []
    client = Open()
    one = SpoolSender(
        source, client.origin, chosen.engine, lambda _: None, None, 10, ended.append, None
    )
    with caplog.at_level(logging.ERROR, "shield.spool"):
        one.start(client)
        eventually(lambda: source.asked > 4)
    assert not one.stopped
    one.stop()
    one.join(60)
    assert ended == [one]
    assert len(caplog.records) == 1
