"""The cases that every client adapter passes, whatever its client and broker.

An adapter's test class inherits `AdapterContract` and overrides the fixture `adapter` with its
own `Adapter`: a handful of methods that say how this client is made, called and read back.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

import shield
from shield import Event, Kind, Message, Policy, Shield, hookimpl
from shield.capabilities import Paces
from shield.testing import HeldClock, ManualClock

Publisher = Any
Future = Any
Arrived = tuple[bytes, dict[str, str]]
ONE_AN_HOUR = {"rate": "1/h", "burst": 1}
ID = "6b1f7a0e-0000-4000-8000-000000000001"


class Adapter(ABC):
    """How to use one client in the cases below."""

    over_limit_error: ClassVar[type[Exception]] = shield.OverLimitError
    """What this client's users catch already, where an `OverLimitError` is a subclass of it."""

    refusals: ClassVar[tuple[type[Exception], ...]] = (
        TypeError,
        ValueError,
        AttributeError,
        AssertionError,
    )
    """What the client raises for arguments that it refuses."""
    remembers: ClassVar[Mapping[str, str]] = {}
    """Which further headers of a message that is elsewhere say where it was going."""

    @abstractmethod
    def publisher(self, chosen: Shield, name: str) -> Publisher:
        """Return a publisher of that name, connected."""

    @abstractmethod
    def destination(self) -> str:
        """Return a destination of this test's own, which exists or is made on first use."""

    @abstractmethod
    def publish(
        self, publisher: Publisher, destination: str, body: bytes, headers: dict[str, str]
    ) -> Future:
        """Publish through the client's own method; return or raise what that does."""

    @abstractmethod
    def result(self, publisher: Publisher, future: Future) -> object:
        """Wait for a future, a few seconds at the most; return its result or raise its error."""

    @abstractmethod
    def arrived(self, publisher: Publisher, destination: str) -> Sequence[Arrived]:
        """Return bodies and headers, as text, of what the broker holds, in order of arrival."""

    @abstractmethod
    def close(self, publisher: Publisher) -> None:
        """Close the publisher as its users do."""

    @abstractmethod
    def wrong_calls(self, publisher: Publisher, destination: str) -> Sequence[Callable[[], object]]:
        """Return calls whose arguments the client refuses: wrong types, what will not serialize."""

    def unreachable(self) -> str | None:
        """Return a destination to which sends fail or cannot begin; None where there is none."""
        return None


class Watch:
    """A plugin that keeps all events, and notes what hooks saw."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    @hookimpl
    def shield_on_event(self, event: Event) -> None:
        self.events.append(event)

    def sizes(self) -> list[int]:
        return [e.message.size for e in self.events if e.message and e.kind is Kind.ADMITTED]


class HoldBack(Policy, Paces):
    """The policy and plugin `hold_back`: every message is delayed by so many seconds."""

    class Settings(shield.StrictModel):
        """How long."""

        seconds: float

    def check(self, message: Message, now: float) -> None:
        return None

    def delay_s(self, message: Message, now: float) -> float:
        return float(self.settings.seconds)

    @staticmethod
    @hookimpl
    def shield_policies() -> dict[str, type[Policy]]:
        return {"hold_back": HoldBack}


class Use:
    """One Shield and one publisher of the adapter under test."""

    def __init__(self, adapter: Adapter, chosen: Shield, name: str = "contract") -> None:
        self.adapter = adapter
        self.shield = chosen
        self.publisher = adapter.publisher(chosen, name)

    def publish(self, destination: str, body: bytes, **headers: str) -> Future:
        return self.adapter.publish(self.publisher, destination, body, headers)

    def publish_now(self, destination: str, body: bytes, **headers: str) -> object:
        return self.result(self.publish(destination, body, **headers))

    def result(self, future: Future) -> object:
        return self.adapter.result(self.publisher, future)

    def arrived(self, destination: str) -> Sequence[Arrived]:
        return self.adapter.arrived(self.publisher, destination)

    def bodies(self, destination: str) -> list[bytes]:
        return [body for body, _ in self.arrived(destination)]

    def close(self) -> None:
        self.adapter.close(self.publisher)


class AdapterContract:
    """The cases; a subclass overrides `adapter`."""

    @pytest.fixture
    def adapter(self) -> Adapter:
        raise NotImplementedError("return this client's Adapter")

    @pytest.fixture
    def destination(self, adapter: Adapter) -> str:
        return adapter.destination()

    @pytest.fixture
    def use(self, adapter: Adapter) -> Iterator[Callable[..., Use]]:
        """Make publishers that are closed at the end of the test, whatever happened."""
        made: list[Use] = []

        def use(*rules: dict[str, Any], name: str = "contract", **more: Any) -> Use:
            more = {"clock": ManualClock()} | more
            chosen = more.pop("shared", None) or Shield({"rules": [*rules]}, **more)
            made.append(Use(adapter, chosen, name))
            return made[-1]

        yield use
        for each in made:
            each.close()

    # --- within the quota ---------------------------------------------------------------------

    def test_within_its_quota_a_message_goes_through_as_it_is(self, use, destination):
        """Body and headers arrive unchanged, the fate is `sent`, the ledger has it delivered."""
        one = use(rule(destination))
        future = one.publish(destination, b"body", tenant="a")
        one.result(future)
        assert shield.fate(future) == "sent"
        ((body, headers),) = one.arrived(destination)
        assert (body, headers) == (b"body", {"tenant": "a"})
        assert counts(one.shield) == {"offered": 1, "delivered": 1}

    def test_what_no_rule_covers_passes_and_is_counted(self, use, destination):
        """A destination without a rule is not limited, and is in the ledger."""
        one = use(rule("something-else"))
        for _ in range(3):
            one.publish_now(destination, b"body")
        assert counts(one.shield) == {"offered": 3, "delivered": 3}
        assert one.shield.ledger().rules == {}

    def test_its_size_is_that_of_the_body(self, use, destination):
        """A byte quota sees what goes on the wire."""
        watch = Watch()
        one = use(plugins=[watch])
        one.publish_now(destination, b"x" * 1000)
        assert watch.sizes() == [1000]

    def test_publishers_of_one_name_share_a_quota(self, use, destination):
        """The quota is the name's, not the object's."""
        first = use(rule(destination, "raise"), name="shop")
        second = use(shared=first.shield, name="shop")
        first.publish_now(destination, b"1")
        with pytest.raises(shield.OverLimitError):
            second.publish(destination, b"2")

    def test_publishers_of_two_names_do_not(self, use, destination):
        """Each name has its own quota, and its own ledger."""
        first = use(rule(destination, "raise"), name="shop")
        second = use(shared=first.shield, name="billing")
        first.publish_now(destination, b"1")
        second.publish_now(destination, b"2")
        producers = first.shield.ledger().producers
        assert {name: part.delivered for name, part in producers.items()} == {
            "shop": 1,
            "billing": 1,
        }

    # --- over the limit -----------------------------------------------------------------------

    def test_drop_looks_like_success_and_says_so(self, use, destination):
        """The result is there at once, marked as dropped; nothing arrives."""
        one = use(rule(destination, "drop"))
        one.publish_now(destination, b"1")
        future = one.publish(destination, b"2")
        one.result(future)
        assert shield.fate(future) == "dropped"
        assert one.bodies(destination) == [b"1"]
        assert counts(one.shield) == {"offered": 2, "delivered": 1, "dropped": 1}
        assert sum(one.shield.ledger().drops.values()) == 1

    def test_raise_gives_the_message_back_to_its_caller(self, use, destination, adapter):
        """The error names rule, policy, reason and time, and is one that users catch already."""
        one = use(rule(destination, "raise", name="orders"))
        one.publish_now(destination, b"1")
        with pytest.raises(shield.OverLimitError) as caught:
            one.publish(destination, b"2")
        error = caught.value
        assert isinstance(error, adapter.over_limit_error)
        assert (error.rule, error.policy, error.reason) == ("orders", "quota", "1/h per producer")
        assert error.retry_after == pytest.approx(3600)
        assert counts(one.shield) == {"offered": 2, "delivered": 1, "raised": 1}

    def test_a_chain_that_runs_out_raises(self, use, destination):
        """No chain at all is `raise`."""
        one = use(rule(destination))
        one.publish_now(destination, b"1")
        with pytest.raises(shield.OverLimitError):
            one.publish(destination, b"2")
        assert one.shield.ledger().raised == 1

    def test_wait_sends_it_when_its_time_has_come(self, use, destination):
        """The caller is kept until the quota admits the message; then it is sent."""
        clock = ManualClock()
        one = use(rule(destination, "wait 2h"), clock=clock)
        one.publish_now(destination, b"1")
        before = clock.now()
        future = one.publish(destination, b"2")
        one.result(future)
        assert clock.now() - before == pytest.approx(3600)
        assert shield.fate(future) == "sent"
        assert one.bodies(destination) == [b"1", b"2"]
        assert counts(one.shield) == {"offered": 2, "delivered": 2}

    def test_a_wait_that_cannot_end_in_time_declines_at_once(self, use, destination):
        """No time passes; the next action of the chain acts."""
        clock = ManualClock()
        one = use(rule(destination, "wait 1s", "drop"), clock=clock)
        one.publish_now(destination, b"1")
        future = one.publish(destination, b"2")
        assert shield.fate(future) == "dropped"
        assert clock.waits == 0

    def test_a_wait_for_room_ends_with_an_answer(self, use, destination):
        """A message that waits for a place in flight is sent when the broker has answered."""
        bound = {"match": destination, "in_flight": {"messages": 1}, "over_limit": ["wait 1h"]}
        one = use(bound, clock=HeldClock())
        first = one.publish(destination, b"1")
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(one.publish, destination, b"2")
            one.result(first)
            one.result(second.result(60))
        assert sorted(one.bodies(destination)) == [b"1", b"2"]
        assert counts(one.shield) == {"offered": 2, "delivered": 2}

    def test_a_delay_that_a_policy_asks_for_is_waited_before_the_send(self, use, destination):
        """By the Shield's clock; then the message goes, admitted at once or after a wait."""
        one = use(
            rule(destination, "wait 2h") | {"hold_back": {"seconds": 0.25}}, plugins=[HoldBack]
        )
        begun = one.shield.clock.now()
        one.publish_now(destination, b"1")
        assert one.shield.clock.now() - begun == pytest.approx(0.25)
        one.publish_now(destination, b"2")
        assert one.shield.clock.now() - begun == pytest.approx(3600.25, abs=0.01)
        assert one.bodies(destination) == [b"1", b"2"]
        assert counts(one.shield) == {"offered": 2, "delivered": 2}

    def test_overflow_sends_it_elsewhere_with_its_history(self, use, destination, adapter):
        """Body and headers survive; ours say where it was going, who refused it, and why."""
        elsewhere = adapter.destination()
        one = use(rule(destination, f"overflow {elsewhere}", name="orders"), name="shop")
        one.publish_now(destination, b"1")
        future = one.publish(destination, b"2", tenant="a")
        one.result(future)
        assert shield.fate(future) == "overflowed"
        assert one.bodies(destination) == [b"1"]
        ((body, headers),) = one.arrived(elsewhere)
        assert (body, headers.pop("tenant")) == (b"2", "a")
        assert headers.pop("shield-diverted-at")[10] == "T"
        assert len(headers.pop("shield-message-id")) == len(ID)
        headers = {name: text for name, text in headers.items() if name.startswith("shield-")}
        headers.pop("shield-original-routing-key", None)
        headers.pop("shield-original-mandatory", None)  # pika's channels, where it is not
        assert headers == {
            "shield-original-destination": destination,
            "shield-reason": "1/h per producer",
            "shield-rule": "orders",
            "shield-policy": "quota",
            "shield-producer": "shop",
            "shield-attempt": "1",
            **adapter.remembers,
        }
        assert counts(one.shield) == {"offered": 2, "delivered": 1, "overflowed": 1}

    def test_a_message_diverted_again_keeps_its_id(self, use, destination, adapter):
        """The id is for life, the attempt is one more each time; each header is there once."""
        elsewhere = adapter.destination()
        one = use(rule(destination, f"overflow {elsewhere}"))
        one.publish_now(destination, b"1")
        before = {"shield-message-id": ID, "shield-attempt": "3", "shield-rule": "an older one"}
        one.publish_now(destination, b"2", **before)
        ((_, headers),) = one.arrived(elsewhere)
        assert headers["shield-message-id"] == ID
        assert headers["shield-attempt"] == "4"
        assert headers["shield-rule"] == "rule-1"

    def test_what_is_at_the_overflow_destination_is_not_diverted_to_it(self, use, adapter):
        """A message over the limit there goes on in the chain."""
        elsewhere = adapter.destination()
        one = use(rule(elsewhere + "*", f"overflow {elsewhere}", "drop"))
        one.publish_now(elsewhere, b"1")
        assert shield.fate(one.publish(elsewhere, b"2")) == "dropped"

    def test_an_overflow_that_fails_hands_on(self, use, destination, adapter):
        """The chain goes on behind it, and the message has one end."""
        nowhere = adapter.unreachable()
        if nowhere is None:
            pytest.skip("this client has no destination to which sends fail")
        one = use(rule(destination, f"overflow {nowhere}", "drop"))
        one.publish_now(destination, b"1")
        future = one.publish(destination, b"2")
        one.result(future)
        assert shield.fate(future) == "dropped"
        assert counts(one.shield) == {"offered": 2, "delivered": 1, "dropped": 1}

    def test_an_overflow_that_fails_with_nothing_behind_it_raises(self, use, destination, adapter):
        """From the call or from its future, but never lost."""
        nowhere = adapter.unreachable()
        if nowhere is None:
            pytest.skip("this client has no destination to which sends fail")
        one = use(rule(destination, f"overflow {nowhere}"))
        one.publish_now(destination, b"1")
        with pytest.raises(shield.OverLimitError):
            one.publish_now(destination, b"2")
        assert counts(one.shield) == {"offered": 2, "delivered": 1, "raised": 1}

    def test_retry_asks_again_until_it_is_admitted(self, use, destination):
        """The caller is kept until the quota says so; then the message is sent."""
        clock = ManualClock()
        one = use(rule(destination, "retry 2", "drop"), clock=clock)
        one.publish_now(destination, b"1")
        before = clock.now()
        future = one.publish(destination, b"2")
        one.result(future)
        assert clock.now() - before == pytest.approx(3600)
        assert shield.fate(future) == "sent"
        assert one.bodies(destination) == [b"1", b"2"]
        assert counts(one.shield) == {"offered": 2, "delivered": 2}

    def test_a_full_buffer_hands_on(self, use, destination):
        """The chain goes on as if there were none."""
        one = use(rule(destination, "buffer 1", "drop"), clock=HeldClock())
        one.publish_now(destination, b"1")
        fates = [shield.fate(one.publish(destination, b"x")) for _ in range(3)]
        assert fates == ["buffered", "dropped", "dropped"]
        assert counts(one.shield)["buffered"] == 1

    def test_the_chain_is_run_in_its_order(self, use, destination, adapter):
        """The first action that does not decline acts, and none behind it."""
        elsewhere = adapter.destination()
        one = use(rule(destination, "wait 1ms", f"overflow {elsewhere}", "drop"))
        one.publish_now(destination, b"1")
        one.publish_now(destination, b"2")
        assert counts(one.shield) == {"offered": 2, "delivered": 1, "overflowed": 1}

    def test_the_first_rule_that_refuses_acts(self, use, destination):
        """Of two rules that are exceeded, the chain of the one first in the file is run."""
        one = use(
            rule("*", "drop", name="process"),
            rule(destination, "raise", name="topic"),
        )
        one.publish_now(destination, b"1")
        assert shield.fate(one.publish(destination, b"2")) == "dropped"
        assert set(one.shield.ledger().drops) == {("process", "quota", "1/h per producer")}

    def test_in_shadow_every_message_passes(self, use, destination):
        """Refusals are counted and acted on by nobody."""
        one = use(rule(destination, "raise") | {"mode": "shadow"})
        for _ in range(3):
            one.publish_now(destination, b"body")
        assert counts(one.shield) == {"offered": 3, "delivered": 3}
        assert sum(one.shield.ledger().over_limit.values()) == 2

    # --- what the client refuses, and its end -------------------------------------------------

    def test_arguments_that_the_client_refuses_charge_nothing(self, use, destination, adapter):
        """The client's own error is raised, and the quota is as full as before."""
        one = use(rule(destination, "raise"))
        for call in adapter.wrong_calls(one.publisher, destination):
            with pytest.raises(adapter.refusals):
                call()
        one.publish_now(destination, b"1")
        ledger = one.shield.ledger()
        assert ledger.delivered == 1
        assert ledger.offered == 1 + ledger.failed
        assert ledger.balanced

    @pytest.mark.parametrize("chain", ["drop", "raise", "buffer", "wait 1ms", "retry 1"])
    def test_arguments_that_the_client_refuses_are_refused_over_the_limit(
        self, use, destination, adapter, chain
    ):
        """By the client's own error, whatever would become of the message otherwise."""
        then = [] if chain in ("drop", "raise") else ["drop"]
        one = use(rule(destination, chain, *then))
        one.publish_now(destination, b"1")
        for call in adapter.wrong_calls(one.publisher, destination):
            with pytest.raises(adapter.refusals):
                call()
        ledger = one.shield.ledger()
        assert ledger.offered == 1 + ledger.failed
        assert ledger.balanced

    def test_a_rejected_message_is_its_callers(self, use, destination):
        """A plugin's `Reject` reaches the caller; nothing arrives, and it counts as raised."""

        class NoSecrets:
            @hookimpl
            def shield_before_publish(self, message: Message) -> None:
                if message.header("secret"):
                    raise shield.Reject("no secrets")

        one = use(plugins=[NoSecrets()])
        one.publish_now(destination, b"1")
        with pytest.raises(shield.Reject, match="no secrets"):
            one.publish(destination, b"2", secret="yes")
        assert one.bodies(destination) == [b"1"]
        assert counts(one.shield) == {"offered": 2, "delivered": 1, "raised": 1}

    def test_a_rejected_message_is_an_error_that_the_clients_users_catch(
        self, use, destination, adapter
    ):
        """Also one of a class of the plugin's own, which stays what it is."""

        class NotToday(shield.Reject):
            pass

        class Refuses:
            @hookimpl
            def shield_before_publish(self, message):
                raise NotToday("not today")

        one = use(plugins=[Refuses()])
        known = shield.ShieldError
        if adapter.over_limit_error is not shield.OverLimitError:
            known = adapter.over_limit_error
        with pytest.raises(known, match="not today") as caught:
            one.publish(destination, b"1")
        assert isinstance(caught.value, NotToday)
        assert counts(one.shield) == {"offered": 1, "raised": 1}

    @pytest.mark.parametrize("headers", [{}, {"tenant": "a"}], ids=["none", "one"])
    def test_a_plugin_adds_headers(self, use, destination, headers):
        """With and without headers of the caller's; sent, seen by those behind it, and no more."""
        seen = []

        class Adds:
            @hookimpl
            def shield_before_publish(self, message):
                message.add_header("trace", "\N{SNOWMAN}1")

        class Sees:
            @hookimpl
            def shield_before_publish(self, message):
                seen.append((message.header("trace"), message.header("tenant")))

        one = use(plugins=[Adds(), Sees()])
        one.publish_now(destination, b"1", **headers)
        ((_, came),) = one.arrived(destination)
        assert came == headers | {"trace": "\N{SNOWMAN}1"}
        assert seen == [("\N{SNOWMAN}1", headers.get("tenant"))]

    def test_headers_that_a_plugin_adds_go_every_way(self, use, destination, adapter):
        """Also to an overflow destination."""

        class Adds:
            @hookimpl
            def shield_before_publish(self, message):
                message.add_header("trace", "1")

        overflow = adapter.destination()
        one = use(rule(destination, f"overflow {overflow}"), plugins=[Adds()])
        one.publish_now(destination, b"1")
        one.publish_now(destination, b"2")
        ((_, headers),) = one.arrived(overflow)
        assert headers["trace"] == "1"
        assert headers["shield-original-destination"] == destination

    def test_what_plugins_see_as_headers_cannot_be_written_to(self, use, destination):
        """The caller's own are never changed: who tries has failed, and is counted."""

        class Writes:
            @hookimpl
            def shield_before_publish(self, message):
                if isinstance(message.headers, dict):
                    message.headers["trace"] = "1"
                message.headers.append(("trace", b"1"))

        one = use(plugins=[Writes()])
        one.publish_now(destination, b"1", tenant="a")
        ((_, headers),) = one.arrived(destination)
        assert headers == {"tenant": "a"}
        assert sum(one.shield.plugin_errors.values()) == 1

    def test_a_policy_that_raises_stops_nobody(self, use, destination):
        """The message goes through, and the plugin's error is counted."""

        class Broken(Policy):
            def check(self, message: Message, now: float) -> None:
                raise RuntimeError("broken")

        class Plugin:
            @hookimpl
            def shield_policies(self):
                return {"broken": Broken}

        one = use({"match": destination, "name": "r", "broken": {}}, plugins=[Plugin()])
        one.publish_now(destination, b"1")
        assert one.shield.plugin_errors == {"r.broken": 1}

    def test_after_close_nothing_is_in_flight(self, use, destination, adapter):
        """Whatever was under way has its end when the publisher is closed."""
        elsewhere = adapter.destination()
        quota = {"rate": "1/h", "burst": 10}
        one = use({"match": destination, "quota": quota, "over_limit": f"overflow {elsewhere}"})
        for number in range(20):
            one.publish(destination, b"%d" % number)
        one.close()
        ledger = one.shield.ledger()
        assert ledger.balanced
        assert (ledger.offered, ledger.in_flight) == (20, 0)

    def test_threads_that_publish_at_once_are_all_accounted_for(self, use, destination, adapter):
        """At every look the ledger balances; at the end it matches what the broker holds."""
        elsewhere = adapter.destination()
        quota = {"rate": "1/h", "burst": 150}
        one = use({"match": destination, "quota": quota, "over_limit": f"overflow {elsewhere}"})
        unbalanced = []
        done = threading.Event()

        def publish(thread: int) -> None:
            for number in range(100):
                one.publish_now(destination, b"%d-%d" % (thread, number))

        def look() -> None:
            while not done.is_set():
                ledger = one.shield.ledger()
                if not ledger.balanced:
                    unbalanced.append(ledger)

        with ThreadPoolExecutor(5) as pool:
            looking = pool.submit(look)
            publishing = [pool.submit(publish, thread) for thread in range(4)]
            try:
                for each in publishing:
                    each.result(60)
            finally:
                done.set()
            looking.result(60)
        assert unbalanced == []
        assert counts(one.shield) == {"offered": 400, "delivered": 150, "overflowed": 250}
        assert len(one.bodies(destination)) == 150
        assert len(one.bodies(elsewhere)) == 250


class FutureContract(AdapterContract):
    """More cases, for clients whose publish returns a future that can be pending."""

    def test_buffer_sends_it_when_it_is_admitted(self, use, destination):
        """Futures are pending and end with the real send's result; the order is kept."""
        one = use(quick(destination, "buffer"), clock=None)
        first = one.publish_now(destination, b"0")
        futures = [one.publish(destination, b"%d" % number) for number in range(1, 9)]
        assert [shield.fate(future) for future in futures[1:]] == 7 * ["buffered"]
        assert counts(one.shield)["buffered"] >= 6
        results = [one.result(future) for future in futures]
        assert type(results[-1]) is type(first)
        assert one.bodies(destination) == [b"%d" % number for number in range(9)]
        assert shield.fate(futures[-1]) == "buffered"
        assert counts(one.shield) == {"offered": 9, "delivered": 9}

    def test_what_is_buffered_when_its_publisher_closes_goes_on(self, use, destination):
        """What cannot be sent in time is not lost: the next action has it, its future ends."""
        one = use(rule(destination, "buffer", "drop"), clock=HeldClock())
        one.publish_now(destination, b"1")
        futures = [one.publish(destination, b"2") for _ in range(3)]
        one.close()
        assert [shield.fate(future) for future in futures] == ["dropped"] * 3
        for future in futures:
            one.result(future)
        assert counts(one.shield) == {"offered": 4, "delivered": 1, "dropped": 3}


def rule(match: str, *chain: str, name: str = "") -> dict[str, Any]:
    """One rule that admits one message an hour and sends the others down the chain."""
    return {
        "name": name,
        "match": match,
        "quota": ONE_AN_HOUR,
        "over_limit": list(chain) or ["raise"],
    }


def quick(match: str, *chain: str) -> dict[str, Any]:
    """One rule that admits twenty messages a second, one at a time."""
    return {
        "match": match,
        "quota": {"rate": "20/s", "burst": 1},
        "over_limit": list(chain) or ["raise"],
    }


def counts(chosen: Shield) -> dict[str, object]:
    """Return what a ledger counts, without its zeros; it must balance."""
    ledger = chosen.ledger()
    assert ledger.balanced
    names = ("offered", "in_flight", *map(str, shield.End))
    return {name: getattr(ledger, name) for name in names if getattr(ledger, name)}
