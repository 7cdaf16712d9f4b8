"""Tools for the tests of those who use Shield or write plugins for it; no broker, no sleeping.

`ManualClock` is time that a test moves, `HeldClock` the same for tests of several threads.
`FakeClient` is a client under Shield whose sends a test answers by hand. `PolicyContract` and
`ActionContract` are what every policy and action promises, `TransportContract` what a transport
and its source do, `SourceContract` what a source does alone: test classes to inherit. Under
pytest their assertions show what they compared, as those of a test file do.
"""

import sys

if "pytest" in sys.modules:  # before any of them is imported: afterwards it would do nothing
    for kind in ("action", "policy", "source", "transport"):
        sys.modules["pytest"].register_assert_rewrite(f"{__name__}.{kind}_contract")

from shield.testing.action_contract import ActionContract
from shield.testing.clock import HeldClock, ManualClock
from shield.testing.contract import ODD_MESSAGES, AdmitNothing
from shield.testing.fake_client import FakeClient, FakeRecord
from shield.testing.policy_contract import PolicyContract
from shield.testing.source_contract import SourceContract
from shield.testing.transport_contract import TransportContract

__all__ = [
    "ODD_MESSAGES",
    "ActionContract",
    "AdmitNothing",
    "FakeClient",
    "FakeRecord",
    "HeldClock",
    "ManualClock",
    "PolicyContract",
    "SourceContract",
    "TransportContract",
]
