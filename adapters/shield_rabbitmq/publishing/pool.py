"""The publishers that decorated functions share: one for each broker and Shield in a process."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import shield as core
from shield import Shield
from shield.process_hooks import ForkStage, after_fork
from shield_rabbitmq.publishing.publisher import Publisher

ShieldChoice = Shield | str | Path | Mapping[str, Any] | None
"""What `shield=` may be."""

_lock = threading.Lock()
_publishers: dict[tuple[Any, ...], Publisher] = {}
_shields: dict[Path, Shield] = {}


def shield_for(choice: ShieldChoice) -> Shield:
    """Return the Shield that is meant; functions that name the same file share one."""
    if not isinstance(choice, str | Path):
        return core.shield_of(choice)
    path = Path(choice).absolute()
    with _lock:
        if path not in _shields:
            _shields[path] = core.shield_of(choice)
        return _shields[path]


def publisher_for(
    url: str, chosen: Shield, shield_producer: str | None, window: int, resend_unconfirmed: bool
) -> Publisher:
    """Return the publisher of these settings; a new one where it was closed."""
    key = (url, chosen, shield_producer, window, resend_unconfirmed)
    with _lock:
        found = _publishers.get(key)
        if found is None or found.closed:
            found = _publishers[key] = Publisher(
                url,
                shield=chosen,
                shield_producer=shield_producer,
                window=window,
                resend_unconfirmed=resend_unconfirmed,
            )
        return found


def _forget() -> None:
    """In a forked child: the parent's publishers write for the parent only."""
    global _lock
    _lock = threading.Lock()
    _publishers.clear()


after_fork(_forget, ForkStage.RESOURCES)
