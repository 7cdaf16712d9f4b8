"""What the Shield of the producers is told."""

from __future__ import annotations

from typing import Any

LIMITS = {"kafka": 90, "rabbitmq": 50}
"""Messages that may wait: 25 ms of the consumer's work, and on Kafka what it has not committed."""
EVERY = "100ms"
ABOVE = 0.6
"""From this part of the limit on the least critical are shed: a burst at low load is not."""


def settings(broker: str, destination: str) -> dict[str, Any]:
    """Return the settings: as much as is consumed, and of that the most critical."""
    backlog: dict[str, Any] = {"limit": LIMITS[broker], "every": EVERY, "unknown": "refuse"}
    per = "header:user"
    if broker == "kafka":
        backlog["group"] = destination
        per = "key"
    rule = {
        "name": "overload",
        "match": destination,
        "backlog": backlog,
        "shed": {"by": "priority", "per": per, "above": ABOVE},
        "over_limit": "drop",
    }
    return {"shield": {"producer": "bench"}, "rules": [rule]}
