"""Any chain, whatever happens: each message has one end, and every future completes."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

import shield
from shield import Action, End, Envelope, Outcome
from shield.action import Keep
from shield.chain.retained import Retained
from tests.chains import Ways, chains, two_rules
from tests.making import Kinds, shield_with


class SetBy(Action):
    """Keeps messages on a shelf: the test stores them, lets them go on, or has them sent."""

    sets_aside = True
    room = 3

    def __init__(self, settings, rule, name):
        super().__init__(settings, rule, name)
        self.shelf: list[Retained] = []
        self.closed: list[object] = []

    def step(self, over):
        return Keep("spooled", self.keep) if len(self.shelf) < self.room else None

    def keep(self, kept):
        if kept.client in self.closed:
            kept.go_on()
        else:
            self.shelf.append(kept)

    def closing(self, client, timeout_s):
        self.closed.append(client)
        for kept in [kept for kept in self.shelf if kept.client is client]:
            self.shelf.remove(kept)
            kept.go_on()


class Chains(Ways):
    """With an action whose messages the test ends in every way that there is."""

    def __init__(self) -> None:
        super().__init__()
        self.stored: list[Envelope] = []

    @initialize(
        first=chains("set_by"),
        second=chains("set_by"),
        order=st.booleans(),
        seed=st.integers(0, 99),
    )
    def begin(self, first, second, order, seed):
        rules = two_rules(first, second, order, seed)
        self.shield = shield_with(*rules, plugins=[Kinds(actions={"set_by": SetBy})])
        self.clients = [self.client("p"), self.client("q")]

    @rule(do=st.sampled_from(["store", "go_on", "send"]))
    def shelf(self, do):
        for action in self.shelves():
            if action.shelf:
                self.end_of(action.shelf.pop(0), do)

    def end_of(self, kept: Retained, do: str) -> None:
        if do == "send":
            permit = self.shield.engine.ask_once(kept.over)
            kept.go_on() if permit is None else kept.send(permit)
        elif do == "go_on":
            kept.go_on()
        else:
            self.stored.append(kept.envelope())
            kept.stored()

    def shelves(self) -> list[SetBy]:
        return [a for r in self.shield.rules for a in r.chain if isinstance(a, SetBy)]

    @rule()
    def a_stored_message_comes_back(self):
        if not self.stored:
            return
        envelope = self.stored.pop(0)
        message = envelope.message()
        message.aside = True
        verdict = self.shield.engine.readmit(message, End.SPOOLED)
        if not isinstance(verdict, shield.Permit):
            self.stored.append(envelope)
            return

        def done(error):
            if error is None:
                verdict.delivered()
            else:
                self.shield.engine.settle(verdict, Outcome.OVERLOADED, End.SPOOLED)
                self.stored.append(envelope)

        (client,) = (client for client in self.clients if client.producer == envelope.producer)
        client.transport.send(envelope, done)

    @invariant()
    def the_ledger_knows_of_those(self):
        if self.clients:
            ledger = self.shield.ledger()
            assert ledger.spooled >= len(self.stored)
            assert ledger.raised >= len(self.raised)
            assert ledger.failed >= len(self.not_begun)

    def come_to_the_end(self):
        super().come_to_the_end()
        ledger, fates = self.shield.ledger(), self.fates()
        assert ledger.spooled == len(self.stored)
        assert fates.count("dropped") == ledger.dropped
        assert fates.count("overflowed") == ledger.overflowed
        assert fates.count("raised") + len(self.raised) == ledger.raised


TestChains = Chains.TestCase
TestChains.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
