"""What every action promises, as a test class to inherit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from shield.action import Action, Divert, Step
from shield.errors import OverLimitError
from shield.message import Message
from shield.shield import Shield
from shield.testing.clock import ManualClock
from shield.testing.contract import ODD_MESSAGES, AdmitNothing, problems_of
from shield.testing.fake_client import FakeClient
from shield.verdict import OverLimit


class ActionContract:
    """What every action promises. Inherit it in a test class that says what to test.

    Example:
        >>> class TestDropLarge(ActionContract):
        ...     plugins = (drop_large,)
        ...     link = "drop_large 4096"
    """

    plugins: ClassVar[Sequence[object]] = ()
    """Plugin modules or objects to register; none where an entry point names the action's."""
    link: ClassVar[Any]
    """The action as a chain has it: a text, or a table with one key."""

    def make(self, *after: Any) -> tuple[Shield, FakeClient]:
        """Return a Shield that admits nothing, with this action in its chain, and a client."""
        rule = {"match": "*", "admit_nothing": {}, "over_limit": [self.link, *after]}
        plugins = (*self.plugins, AdmitNothing)
        shield = Shield({"rules": [rule]}, plugins=plugins, clock=ManualClock())
        return shield, FakeClient(shield)

    def test_it_takes_a_step_or_declines(self) -> None:
        """Whatever the message, it returns a step or None, and does not raise."""
        shield, _ = self.make()
        for odd in ODD_MESSAGES:
            step = self._action(shield).step(_over_limit(shield, odd()))
            assert step is None or isinstance(step, Step)
            if isinstance(step, Divert):
                step.done()

    def test_it_counts_nothing(self) -> None:
        """After its step the message is still in flight: others count its end."""
        shield, _ = self.make()
        self._action(shield).step(_over_limit(shield, Message("orders", 100)))
        ledger = shield.ledger()
        assert (ledger.offered, ledger.in_flight) == (1, 1)

    def test_every_message_comes_to_one_end(self) -> None:
        """Whether sends are stored or fail, each message ends once, and nothing stays open."""
        for answer in (FakeClient.ack, FakeClient.fail):
            shield, client = self.make()
            for number in range(20):
                try:
                    client.publish("orders", b"%d" % number)
                except OverLimitError:
                    continue
                answer(client)
            client.close()
            ledger = shield.ledger()
            assert ledger.balanced
            assert (ledger.offered, ledger.in_flight) == (20, 0)
            assert shield.plugin_errors == {}

    def test_nothing_may_stand_after_it_if_it_is_final(self) -> None:
        """A final action ends the chain, so that settings refuse what follows it."""
        if self._action(self.make()[0]).final:
            rule = {"match": "*", "admit_nothing": {}, "over_limit": [self.link, "raise"]}
            problems = problems_of({"rules": [rule]}, (*self.plugins, AdmitNothing))
            assert "rules[0].over_limit" in problems[0]
        else:
            self.make("raise")

    def test_a_key_that_it_does_not_know_is_refused(self) -> None:
        """A misspelt key of its table is a SettingsError that names it."""
        name = self._action(self.make()[0]).name
        rule = {"match": "*", "over_limit": [{name: {"no_such_key_": 1}}]}
        problems = problems_of({"rules": [rule]}, self.plugins)
        assert "rules[0].over_limit[0]" in problems[0]
        assert "no_such_key_" in problems[0]

    def _action(self, shield: Shield) -> Action:
        return shield.rules[0].chain[0]


def _over_limit(shield: Shield, message: Message) -> OverLimit:
    verdict = shield.admit(message)
    assert isinstance(verdict, OverLimit)
    return verdict
