"""Overload protection for Kafka and RabbitMQ: quotas, load shedding, backpressure.

A tour: a `Message` is what Shield sees of one publish. A `Rule` says which messages it covers,
its `Policy`s (each admits, or refuses) and a chain of `Action`s for what is over the limit. A
`Shield` holds all rules of a process: `Shield.admit(message)` returns a `Permit`, to be settled
once with an `Outcome`, or `OverLimit`, whose chain `shield.chain.runner.run_chain` runs on an
adapter's port. `Signals` are what a broker tells a client, for policies. The `Ledger` says what
became of every message, `pressure` how near messages are to being refused. Policies, actions and
keys come from plugins, the built-in ones too: `shield/hookspecs.py` is the list of what a plugin
can do. The drop-in clients are in `shield_kafka` and `shield_rabbitmq`. Settings are a
`shield.toml` and `SHIELD_*` variables; `shield config check` tells what is wrong with them.
"""

from shield import action, capabilities
from shield.accounts import End, Ledger
from shield.action import Action
from shield.backlog import BacklogReader, Backlogs, BacklogTarget, Watch
from shield.clients.fate import fate
from shield.deduplicator import Deduplicator
from shield.delivery import Delivery
from shield.engine.process import ledger, pressure, ready, wait_ready
from shield.envelope import Envelope
from shield.errors import (
    DeliveryUnknownError,
    ExpiredError,
    OverLimitError,
    PluginError,
    Reject,
    SettingsError,
    ShieldError,
    UnavailableError,
)
from shield.events import Event, Kind
from shield.hookspecs import Labels, hookimpl
from shield.message import Message
from shield.operations.redrive_job import Redriven, redrive
from shield.policy import KeyOf, Policy, Traits
from shield.rule import Rule
from shield.settings_model import StrictModel
from shield.shield import Shield, default, shield_of
from shield.signals import Signals
from shield.transport import Source, Taken, Transport
from shield.url import URL
from shield.verdict import Engine, Outcome, OverLimit, Permit, Refusal, Verdict

__all__ = [
    "URL",
    "Action",
    "BacklogReader",
    "BacklogTarget",
    "Backlogs",
    "Deduplicator",
    "Delivery",
    "DeliveryUnknownError",
    "End",
    "Engine",
    "Envelope",
    "Event",
    "ExpiredError",
    "KeyOf",
    "Kind",
    "Labels",
    "Ledger",
    "Message",
    "Outcome",
    "OverLimit",
    "OverLimitError",
    "Permit",
    "PluginError",
    "Policy",
    "Redriven",
    "Refusal",
    "Reject",
    "Rule",
    "SettingsError",
    "Shield",
    "ShieldError",
    "Signals",
    "Source",
    "StrictModel",
    "Taken",
    "Traits",
    "Transport",
    "UnavailableError",
    "Verdict",
    "Watch",
    "action",
    "capabilities",
    "default",
    "fate",
    "hookimpl",
    "ledger",
    "pressure",
    "ready",
    "redrive",
    "shield_of",
    "wait_ready",
]
