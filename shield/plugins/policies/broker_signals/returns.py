"""`returns`: shed load while too many messages find no queue."""

from __future__ import annotations

from collections.abc import Mapping

from shield import Policy, hookimpl
from shield.plugins.policies.broker_signals.answer_share import AnswerShare


class Returns(AnswerShare):
    """Refuses while too many of the connection's messages of the last ten seconds came back.

    RabbitMQ returns a mandatory message that no queue is bound for: it costs the broker work and
    reaches nobody, and that many of them mean a binding is gone. The share is that of the whole
    connection, whatever its destinations.

        over the limit iff answers >= minimum and returns / answers > above, over 10 s

    Example:
        returns = { above = "50%", minimum = 20 }
    """

    kind = "returns"
    goes_by = frozenset({"returns"})
    reason = "returned by the broker"


@hookimpl
def shield_policies() -> Mapping[str, type[Policy]]:
    """Contribute `returns`."""
    return {"returns": Returns}
