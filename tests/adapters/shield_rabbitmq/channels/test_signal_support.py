"""Which rules a publisher refuses to work under: those that would never act."""

from __future__ import annotations

import pytest

from shield import SettingsError
from shield_rabbitmq import Publisher

NEVER_TOLD = {
    "broker_throttle": "throttled_until",
    "requests_in_flight": "requests",
    "client_queue_age": "waits_since",
}


@pytest.mark.parametrize("policy", NEVER_TOLD)
def test_a_rule_that_goes_by_what_rabbitmq_never_tells_is_an_error(policy):
    """At the first message it covers, before anything is connected."""
    settings = {"requests_in_flight": 5, "client_queue_age": "1s"}.get(policy, {})
    rule = {"name": "kept", "match": "orders", policy: settings}
    with (
        Publisher("amqp://127.0.0.1:1", shield={"rules": [rule]}) as publisher,
        pytest.raises(SettingsError, match=f"'kept': {policy} goes by {NEVER_TOLD[policy]}, which"),
    ):
        publisher.publish("", "orders", b"body")
    assert publisher.shield.ledger().offered == 0
