"""Policies that go by what a broker tells its client: refuse while a measure is over its limit."""

from __future__ import annotations

from collections.abc import Mapping

from shield import Policy, hookimpl
from shield.plugins.policies.broker_signals.answers import Nacks, Returns
from shield.plugins.policies.broker_signals.broker import Blocked, BrokerThrottle
from shield.plugins.policies.broker_signals.client import (
    ClientQueue,
    ClientQueueAge,
    RequestsInFlight,
)
from shield.plugins.policies.broker_signals.confirms import ConfirmLatency, ConfirmWindow


@hookimpl
def shield_policies() -> Mapping[str, type[Policy]]:
    """Contribute all of them."""
    return {
        "blocked": Blocked,
        "broker_throttle": BrokerThrottle,
        "client_queue": ClientQueue,
        "client_queue_age": ClientQueueAge,
        "confirm_latency": ConfirmLatency,
        "confirm_window": ConfirmWindow,
        "nacks": Nacks,
        "requests_in_flight": RequestsInFlight,
        "returns": Returns,
    }
