"""What every action promises, as a test class to inherit."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, ClassVar

from shield.action import Action, Divert
from shield.errors import OverLimitError
from shield.message import Message
from shield.plugin_results import step_in
from shield.shield import Shield
from shield.testing.clock import ManualClock
from shield.testing.contract import (
    ODD_MESSAGES,
    AdmitNothing,
    eventually,
    expect,
    expect_kind,
    expect_readable,
    problems_of,
    shield_of,
)
from shield.testing.fake_client import FakeClient
from shield.testing.watching import (
    expect_no_growth,
    expect_nothing_left,
    expect_quick,
    in_threads,
)
from shield.verdict import OverLimit

MANY = 160
"""How many messages show what does not end, or grows."""


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
        shield = shield_of(rule, (*self.plugins, AdmitNothing), ManualClock())
        return shield, FakeClient(shield)

    def test_it_takes_a_step_or_declines(self) -> None:
        """Whatever the message, it returns a step that can be carried out, or None."""
        shield, _ = self.make()
        for odd in ODD_MESSAGES:
            said = self._action(shield).step(_over_limit(shield, odd()))
            step = expect_readable(lambda said=said: step_in(said, "publish"))  # type: ignore[misc]
            if isinstance(step, Divert):
                step.done()

    def test_it_counts_nothing(self) -> None:
        """After its step the message is still in flight: others count its end."""
        shield, _ = self.make()
        self._action(shield).step(_over_limit(shield, Message("orders", 100)))
        ledger = shield.ledger()
        expect(ledger.offered == 1, "1 message that is offered", ledger.offered)
        expect(ledger.in_flight == 1, "1 message in flight", ledger.in_flight)

    def test_every_message_comes_to_one_end(self) -> None:
        """Whether sends are stored or fail, each message ends once, and nothing stays open."""
        for answer in (FakeClient.ack, FakeClient.fail):
            shield, client = self.make()
            for number in range(20):
                self._publish(client, number)
                answer(client)
            client.close()
            self._expect_all_ended(shield, 20)

    def test_every_message_of_every_thread_comes_to_one_end(self) -> None:
        """Eight threads at once; the last answer comes when they are done."""
        shield, client = self.make()

        def publish(_thread: int) -> None:
            for number in range(MANY // 8):
                self._publish(client, number)
                client.ack()

        in_threads(8, publish)
        client.close()
        self._expect_all_ended(shield, MANY // 8 * 8)

    def test_it_is_quick(self) -> None:
        """It does no I/O, and waits for nothing: its client does, where it may."""
        shield, _ = self.make()
        overs = [_over_limit(shield, Message("orders", 100)) for _ in range(100)]
        action = self._action(shield)
        expect_quick(lambda: _end(action.step(overs.pop())), 100, "a step")

    def test_it_keeps_nothing_of_what_has_ended(self) -> None:
        """However many messages it has dealt with: what has ended is released."""
        shield, _ = self.make()

        def deal() -> None:
            client = FakeClient(shield)
            for number in range(MANY):
                self._publish(client, number)
                client.ack()
            client.close()

        expect_no_growth(deal, 64 * MANY, f"{MANY} messages that have ended")

    def test_it_lets_go_of_its_clients(self) -> None:
        """When they close, no thread and no file stays behind for each of them."""

        def live() -> None:
            _, client = self.make()
            for number in range(10):
                self._publish(client, number)
                client.ack()
            client.close()

        expect_nothing_left(live, "clients that are closed")

    def test_nothing_may_stand_after_it_if_it_is_final(self) -> None:
        """A final action ends the chain, so that settings refuse what follows it."""
        if self._action(self.make()[0]).final:
            rule = {"match": "*", "admit_nothing": {}, "over_limit": [self.link, "raise"]}
            problems = problems_of(rule, (*self.plugins, AdmitNothing))
            assert "rules[0].over_limit" in problems[0]
        else:
            self.make("raise")

    def test_a_key_that_it_does_not_know_is_refused(self) -> None:
        """A misspelt key of its table is a SettingsError that names it."""
        name = self._action(self.make()[0]).name
        rule = {"match": "*", "over_limit": [{name: {"no_such_key_": 1}}]}
        problems = problems_of(rule, self.plugins)
        assert "rules[0].over_limit[0]" in problems[0]
        assert "no_such_key_" in problems[0]

    def _action(self, shield: Shield) -> Action:
        return shield.rules[0].chain[0]

    def _publish(self, client: FakeClient, number: int) -> None:
        with suppress(OverLimitError):
            client.publish("orders", b"%d" % number)

    def _expect_all_ended(self, shield: Shield, offered: int) -> None:
        """Wait for those that end on other threads; each is counted once, and none is open."""
        __tracebackhide__ = True
        ended = eventually(lambda: shield.ledger().in_flight + shield.ledger().buffered == 0)
        ledger = shield.ledger()
        expect(ended, "no message in flight, nor buffered", ledger)
        expect(ledger.offered == offered, f"{offered} messages that are offered", ledger)
        expect(ledger.balanced, "each message to have one end", ledger)
        expect(shield.plugin_errors == {}, "no plugin errors", shield.plugin_errors)


def _over_limit(shield: Shield, message: Message) -> OverLimit:
    return expect_kind(shield.admit(message), OverLimit)


def _end(step: object) -> None:
    if isinstance(step, Divert):
        step.done()
