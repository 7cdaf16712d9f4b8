"""`nacks`: shed load while the broker refuses too many messages."""

from __future__ import annotations

from collections.abc import Mapping

from shield import Policy, hookimpl
from shield.plugins.policies.broker_signals.answer_share import AnswerShare


class Nacks(AnswerShare):
    """Refuses while too many of the connection's messages of the last ten seconds were nacked.

    RabbitMQ nacks what a queue refuses: one that is full with `x-overflow = "reject-publish"`, or
    one that has failed. The share is that of the whole connection, whatever its destinations;
    where one queue's refusals should not hold up the others, give it a publisher of its own.

        over the limit iff answers >= minimum and nacks / answers > above, over 10 s

    Example:
        nacks = { above = "20%", minimum = 20 }
    """

    kind = "nacks"
    goes_by = frozenset({"nacks"})
    reason = "nacked by the broker"


@hookimpl
def shield_policies() -> Mapping[str, type[Policy]]:
    """Contribute `nacks`."""
    return {"nacks": Nacks}
