"""What the entry point names: the hooks through which Shield finds all three."""

from __future__ import annotations

from collections.abc import Mapping

import shield
from acme_shield.action import DropWithout
from acme_shield.policy import Slots
from acme_shield.transport import SqliteTransport


@shield.hookimpl
def shield_policies() -> Mapping[str, type[shield.Policy]]:
    """Contribute `slots`."""
    return {"slots": Slots}


@shield.hookimpl
def shield_actions() -> Mapping[str, type[shield.Action]]:
    """Contribute `drop_without`."""
    return {"drop_without": DropWithout}


@shield.hookimpl
def shield_transports() -> Mapping[str, type[shield.Transport]]:
    """Contribute `sqlite://`."""
    return {SqliteTransport.scheme: SqliteTransport}
