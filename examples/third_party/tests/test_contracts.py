"""What Shield promises its users of any policy, action and transport, asked of these."""

from __future__ import annotations

import tempfile
from itertools import count
from pathlib import Path

import shield
from shield.testing import ActionContract, PolicyContract, TransportContract

_numbers = count()


class TestSlots(PolicyContract):
    """Two of one customer at once."""

    name = "slots"
    settings = {"most": 2}

    def message(self) -> shield.Message:
        """Return one of a customer's."""
        return shield.Message("orders", 100, "checkout", headers=[("customer", b"acme")])


class TestDropWithout(ActionContract):
    """The messages of the contract have no such header."""

    link = "drop_without customer"


class TestSqlite(TransportContract):
    """Each case has files of its own."""

    def setup_method(self) -> None:
        """Make a folder."""
        self._folder = tempfile.TemporaryDirectory()

    def teardown_method(self) -> None:
        """Remove it."""
        self._folder.cleanup()

    def place(self) -> str:
        """Return the URL of a file that is not there yet."""
        return f"sqlite://{Path(self._folder.name, f'{next(_numbers)}.db')}"


def test_customers_have_slots_of_their_own() -> None:
    """One that has none left does not hold up another."""
    own = shield.Shield({"rules": [{"match": "*", "slots": 1}]})

    def offer(customer: bytes) -> shield.Verdict:
        return own.admit(shield.Message("orders", 10, headers=[("customer", customer)]))

    first = offer(b"acme")
    assert first.admits
    assert not offer(b"acme").admits
    assert offer(b"other").admits
    first.delivered()
    assert offer(b"acme").admits
