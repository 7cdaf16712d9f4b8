"""A shielded channel, on pika's own `Channel` without a broker."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any
from unittest.mock import MagicMock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika import BasicProperties, spec
from pika.adapters.blocking_connection import BlockingChannel
from pika.channel import Channel
from pika.exceptions import (
    AMQPError,
    ChannelClosedByBroker,
    ChannelClosedByClient,
    ChannelWrongStateError,
    ConnectionWrongStateError,
    NackError,
    StreamLostError,
    UnroutableError,
)

import shield
from shield import Outcome, SettingsError, Shield, hookimpl
from shield.testing import ManualClock
from shield_rabbitmq import shielded
from tests.adapters.shield_rabbitmq.wire import Wire
from tests.contracts.adapter import counts


@pytest.fixture
def wire() -> Wire:
    return Wire()


def limited(*chain: str, burst: int = 1, **more: Any) -> Shield:
    """A Shield that admits so many messages an hour."""
    quota = {"rate": "1/h", "burst": burst}
    rule = {"match": "*", "quota": quota, "over_limit": list(chain) or ["raise"]}
    return Shield({"rules": [rule]}, clock=ManualClock(), **more)


class Outcomes:
    """A plugin that keeps what each message taught."""

    def __init__(self) -> None:
        self.seen: list[Outcome] = []

    @hookimpl
    def shield_after_publish(self, message: Any, outcome: Outcome) -> None:
        self.seen.append(outcome)


# --- the channel itself ---------------------------------------------------------------------------


def test_the_shielded_channel_is_the_channel(wire):
    """The same object, of its class still; so nothing else can be handed to a callback."""
    channel = wire.channel()
    assert shielded(channel, shield=limited()) is channel
    assert isinstance(channel, Channel)
    assert channel.connection is wire


def test_shielding_twice_counts_once(wire):
    """Again it changes the Shield and the name, where one is given, and nothing else."""
    first, second = limited(), limited()
    channel = shielded(wire.channel(), shield=first)
    kind = type(channel)
    shielded(channel)
    shielded(channel, shield_producer="market").basic_publish("", "a", b"")
    assert list(first.ledger().producers) == ["market"]
    assert shielded(channel, shield=second, shield_producer="shop") is channel
    assert type(channel) is kind
    channel.basic_publish("", "a", b"")
    assert counts(first) == {"offered": 1, "delivered": 1}
    assert counts(second) == {"offered": 1, "delivered": 1}
    assert list(second.ledger().producers) == ["shop"]


def test_a_users_own_channel_class_keeps_what_it_does(wire):
    """Its `basic_publish`, with arguments that only it knows, is called below the Shield."""

    class Mine(Channel):
        def basic_publish(self, *args: Any, note: str = "", **kwargs: Any) -> None:
            notes.append((note, len(args)))
            super().basic_publish(*args, **kwargs)

    notes: list[Any] = []
    channel = shielded(wire.channel(Mine), shield=limited("drop"))
    assert isinstance(channel, Mine)
    channel.basic_publish("", "a", b"", note="first")
    channel.basic_publish("", "b", b"", note="second")
    assert notes == [("first", 5)]
    assert wire.published() == ["a"]


def test_an_instrumented_channel_stays_instrumented_below(wire):
    """What stood in the instance's `basic_publish` sees what is sent, and only that."""
    channel = wire.channel()
    seen: list[str] = []
    bare = channel.basic_publish

    def traced(exchange, routing_key, body, properties=None, mandatory=False):
        seen.append(routing_key)
        bare(exchange, routing_key, body, properties, mandatory)

    channel.basic_publish = traced
    shielded(channel, shield=limited("drop"))
    channel.basic_publish("", "a", b"")
    channel.basic_publish("", "b", b"")
    assert seen == wire.published() == ["a"]


def test_one_instrumented_later_is_above(wire):
    """It sees what its user publishes."""
    channel = shielded(wire.channel(), shield=limited("drop"))
    seen = []
    inner = channel.basic_publish
    channel.basic_publish = lambda *args: (seen.append(args[1]), inner(*args))
    channel.basic_publish("", "a", b"")
    channel.basic_publish("", "b", b"")
    assert (seen, wire.published()) == (["a", "b"], ["a"])


def test_no_confirms_and_no_return_callback_are_added(wire):
    """Both would change what the user sees."""
    channel = shielded(wire.channel(), shield=limited())
    channel.basic_publish("", "a", b"")
    assert [type(method) for method in wire.sent] == [spec.Basic.Publish]
    assert not channel.callbacks.pending(1, "_on_return")
    assert not channel.callbacks.pending(1, spec.Basic.Ack)


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ["", b"", "é", b"body"])
def test_text_and_empty_bodies_go_through(wire, body):
    """They count with the bytes that they have on the wire."""
    sizes = []

    class Watch:
        @hookimpl
        def shield_on_event(self, event):
            sizes.append(event.message.size)

    channel = shielded(wire.channel(), shield=limited(plugins=[Watch()]))
    channel.basic_publish(exchange="", routing_key="a", body=body)
    assert sizes[0] == len(body.encode() if isinstance(body, str) else body)


@pytest.mark.parametrize(
    ("exchange", "routing_key", "destination"),
    [("", "queue", "queue"), ("e", "k", "e/k"), (b"e", b"k", "e/k"), ("e", "", "e/")],
)
def test_rules_match_exchange_and_routing_key(wire, exchange, routing_key, destination):
    """As bytes, too, which pika takes."""
    rule = {"match": destination, "quota": "1/h", "over_limit": "drop", "name": "it"}
    own = Shield({"rules": [rule]})
    shielded(wire.channel(), shield=own).basic_publish(exchange, routing_key, b"")
    assert own.ledger().rules["it"].delivered == 1


def test_properties_are_left_alone(wire):
    """Not even a message over the limit changes its caller's."""
    properties = BasicProperties(headers={"a": 1}, expiration="5")
    channel = shielded(wire.channel(), shield=limited("drop"))
    for _ in range(2):
        channel.basic_publish("", "a", b"", properties)
    assert properties == BasicProperties(headers={"a": 1}, expiration="5")


@pytest.mark.parametrize(
    "call",
    [(None, "a", b""), ("", 1, b""), ("", "a", None), ("", "a", 1), ("", "a", "\ud800"), ()],
    ids=repr,
)
def test_what_pika_refuses_is_pikas_to_refuse(wire, call):
    """The same error as without Shield, and no quota is charged."""
    bare, channel = wire.channel(), shielded(Wire().channel(), shield=limited())
    channel.connection.raises = bare.connection.raises = AssertionError("what encoding raises")
    with pytest.raises(Exception) as expected:  # noqa: PT011 - whatever pika raises
        bare.basic_publish(*call)
    with pytest.raises(type(expected.value)):
        channel.basic_publish(*call)
    channel.connection.raises = None
    channel.basic_publish("", "a", b"")
    assert channel._shield_state.shield.ledger().delivered == 1


def test_a_closed_channel_raises_what_pika_raises(wire):
    """Within the limit and over it; nothing is charged, and it counts as failed."""
    own = limited("drop")
    channel = shielded(wire.channel(), shield=own)
    wire.answer(spec.Channel.Close(406, "no"))
    with pytest.raises(ChannelWrongStateError):
        channel.basic_publish("", "a", b"")
    other = shielded(Wire().channel(), shield=own)
    other.basic_publish("", "a", b"")
    with pytest.raises(ChannelWrongStateError):
        channel.basic_publish("", "a", b"")
    assert counts(own) == {"offered": 3, "delivered": 1, "failed": 2}


# --- over the limit -------------------------------------------------------------------------------


def test_a_dropped_publish_looks_like_any_other(wire):
    """It returns None; `shield.fate(channel)` tells what became of the last message."""
    channel = shielded(wire.channel(), shield=limited("drop"))
    assert channel.basic_publish("", "a", b"") is None
    assert shield.fate(channel) == "sent"
    assert channel.basic_publish("", "a", b"") is None
    assert shield.fate(channel) == "dropped"


def test_what_is_raised_is_an_amqp_error(wire):
    """Whoever catches pika's errors catches it."""
    channel = shielded(wire.channel(), shield=limited("raise"))
    channel.basic_publish("", "a", b"")
    with pytest.raises(AMQPError) as caught:
        channel.basic_publish("", "a", b"")
    assert isinstance(caught.value, shield.OverLimitError)
    assert shield.fate(channel) == "raised"


def test_an_event_loop_is_never_blocked(wire):
    """`wait` declines on a Channel, and the chain goes on."""
    own = limited("wait 2h", "drop")
    channel = shielded(wire.channel(), shield=own)
    for _ in range(2):
        channel.basic_publish("", "a", b"")
    assert own.clock.waits == 0
    assert counts(own) == {"offered": 2, "delivered": 1, "dropped": 1}


class Slow:
    """A plugin whose policy `slow` wants each message to wait five seconds."""

    @hookimpl
    def shield_policies(self):
        class Delay(shield.Policy, shield.capabilities.Paces):
            def check(self, message, now):
                return None

            def delay_s(self, message, now):
                return 5.0

        return {"slow": Delay}


def slowed() -> Shield:
    return Shield({"rules": [{"match": "*", "slow": {}}]}, plugins=[Slow()], clock=ManualClock())


def test_an_event_loop_is_not_delayed_either(wire):
    """What is admitted with a delay is published at once."""
    own = slowed()
    channel = shielded(wire.channel(), shield=own)
    channel.basic_publish("", "a", b"")
    assert own.clock.waits == 0
    assert counts(own) == {"offered": 1, "delivered": 1}


@pytest.mark.parametrize(
    ("error", "outcome", "charged"),
    [
        (NackError([]), Outcome.OVERLOADED, True),
        (UnroutableError([]), Outcome.FAILED, True),
        (ChannelClosedByBroker(404, "no exchange"), Outcome.FAILED, True),
        (StreamLostError("cut"), Outcome.OVERLOADED, True),
        (ConnectionWrongStateError("closed"), Outcome.FAILED, False),
        (TypeError("cannot be encoded"), Outcome.FAILED, False),
        (KeyboardInterrupt(), Outcome.FAILED, True),
    ],
    ids=repr,
)
def test_what_a_publish_raises_says_what_it_teaches(wire, error, outcome, charged):
    """Overload, or not; what was never written gets its charge back."""
    outcomes = Outcomes()
    own = limited("raise", plugins=[outcomes])
    channel = shielded(wire.channel(), shield=own)
    wire.raises = error
    with pytest.raises(type(error)):
        channel.basic_publish("", "a", b"")
    wire.raises = None
    assert outcomes.seen == [outcome]
    assert counts(own) == {"offered": 1, "failed": 1}
    if charged:
        with pytest.raises(shield.OverLimitError):
            channel.basic_publish("", "a", b"")
    else:
        channel.basic_publish("", "a", b"")


# --- confirms of a Channel ------------------------------------------------------------------------


def confirming(wire: Wire, own: Shield) -> tuple[Channel, list[Any]]:
    """A shielded channel whose user has turned confirms on, and what the user's callback got."""
    channel = shielded(wire.channel(), shield=own)
    confirms: list[Any] = []
    channel.confirm_delivery(lambda frame: confirms.append(frame.method))
    return channel, confirms


def test_with_confirms_a_message_is_delivered_when_it_is_acked(wire):
    """In flight until then; `multiple` is honoured, and the user's callback gets each confirm."""
    own = Shield({})
    channel, confirms = confirming(wire, own)
    for number in range(5):
        channel.basic_publish("", str(number), b"")
    assert counts(own) == {"offered": 5, "in_flight": 5}
    wire.answer(spec.Basic.Ack(2, multiple=False))
    assert counts(own) == {"offered": 5, "in_flight": 4, "delivered": 1}
    wire.answer(spec.Basic.Nack(3, multiple=True))
    assert counts(own) == {"offered": 5, "in_flight": 2, "delivered": 1, "failed": 2}
    wire.answer(spec.Basic.Ack(0, multiple=True))
    assert counts(own) == {"offered": 5, "delivered": 3, "failed": 2}
    assert [confirm.delivery_tag for confirm in confirms] == [2, 3, 0]


def test_the_ledger_knows_before_the_users_callback(wire):
    """Who publishes the next message from there finds room."""
    own = Shield({})
    channel = shielded(wire.channel(), shield=own)
    seen = []
    channel.confirm_delivery(lambda frame: seen.append(own.ledger().delivered))
    channel.basic_publish("", "a", b"")
    wire.answer(spec.Basic.Ack(1))
    assert seen == [1]


def test_a_publish_that_raised_has_no_delivery_tag(wire):
    """It never reached the broker, so that the next one's tag is the first."""
    own = Shield({})
    channel, _ = confirming(wire, own)
    wire.raises = TypeError("cannot be encoded")
    with pytest.raises(TypeError):
        channel.basic_publish("", "a", b"")
    wire.raises = None
    channel.basic_publish("", "a", b"")
    wire.answer(spec.Basic.Ack(1))
    assert counts(own) == {"offered": 2, "delivered": 1, "failed": 1}


def test_what_goes_out_before_the_request_for_confirms_is_not_counted(wire):
    """The request waits behind another one, publishes do not; the broker counts from there."""
    own = Shield({})
    channel = shielded(wire.channel(), shield=own)
    channel.queue_declare("q", callback=lambda frame: None)
    channel.confirm_delivery(lambda frame: None)
    channel.basic_publish("", "before", b"")
    assert counts(own) == {"offered": 1, "delivered": 1}
    wire.answer(spec.Queue.DeclareOk("q", 0, 0))
    channel.basic_publish("", "after", b"")
    assert counts(own) == {"offered": 2, "delivered": 1, "in_flight": 1}
    wire.answer(spec.Basic.Ack(1))
    assert counts(own) == {"offered": 2, "delivered": 2}


def test_confirms_that_were_on_before_are_not_guessed(wire):
    """Nobody knows the next tag: a message is delivered when pika has taken it."""
    channel = wire.channel()
    confirms = []
    channel.confirm_delivery(confirms.append)
    channel.basic_publish("", "a", b"")
    own = Shield({})
    shielded(channel, shield=own)
    channel.basic_publish("", "b", b"")
    assert counts(own) == {"offered": 1, "delivered": 1}
    wire.answer(spec.Basic.Ack(1))
    assert len(confirms) == 1


def test_a_wrong_confirm_callback_is_pikas_to_refuse(wire):
    """With its error; and nothing is counted as confirmed later."""
    own = Shield({})
    channel = shielded(wire.channel(), shield=own)
    with pytest.raises(ValueError, match="requires a callback"):
        channel.confirm_delivery(None)
    channel.basic_publish("", "a", b"")
    assert counts(own) == {"offered": 1, "delivered": 1}


@pytest.mark.parametrize(
    ("close", "outcome"),
    [
        (lambda wire, channel: wire.answer(spec.Channel.Close(404, "no")), Outcome.FAILED),
        (lambda wire, channel: channel.close(), Outcome.OVERLOADED),
        (lambda wire, channel: channel._on_close_meta(StreamLostError("")), Outcome.OVERLOADED),
    ],
    ids=["by the broker", "by its user", "cut"],
)
def test_what_is_not_confirmed_when_the_channel_closes_is_counted(wire, close, outcome):
    """Its fate is unknown: failed; to those who learn that is overload, unless it was an error."""
    outcomes = Outcomes()
    own = Shield({}, plugins=[outcomes])
    channel, _ = confirming(wire, own)
    for _ in range(3):
        channel.basic_publish("", "a", b"")
    close(wire, channel)
    wire.answer(spec.Channel.CloseOk())
    assert outcomes.seen == [outcome] * 3
    assert counts(own) == {"offered": 3, "failed": 3}


def test_close_callbacks_of_the_user_find_the_books_closed(wire):
    """And they are handed the channel that they hold."""
    own = Shield({})
    channel, _ = confirming(wire, own)
    seen = []
    channel.add_on_close_callback(lambda it, reason: seen.append((it, own.ledger().in_flight)))
    channel.basic_publish("", "a", b"")
    wire.answer(spec.Channel.Close(404, "no"))
    assert seen == [(channel, 0)]
    assert isinstance(channel._closing_reason, ChannelClosedByBroker)
    assert not isinstance(channel._closing_reason, ChannelClosedByClient)


@settings(deadline=None)
@given(st.data())
def test_the_books_agree_with_any_broker(data):
    """Whatever is published, by the Shield or past it, and however it is confirmed."""
    wire, own = Wire(), Shield({})
    channel, _ = confirming(wire, own)

    @shielded(shield=own)
    def publish(it: Channel) -> None:
        it.basic_publish("", "a", b"")

    acked, nacked, open_tags = 0, 0, []
    for tag in range(1, data.draw(st.integers(1, 20)) + 1):
        publish(channel)
        open_tags.append(tag)
        while open_tags and data.draw(st.booleans()):
            answered = data.draw(st.sampled_from(open_tags))
            multiple = data.draw(st.booleans())
            done = [t for t in open_tags if t == answered or (multiple and t < answered)]
            ack = data.draw(st.booleans())
            wire.answer((spec.Basic.Ack if ack else spec.Basic.Nack)(answered, multiple))
            open_tags = [t for t in open_tags if t not in done]
            acked, nacked = acked + len(done) * ack, nacked + len(done) * (not ack)
            ledger = own.ledger()
            assert (ledger.delivered, ledger.failed) == (acked, nacked)
            assert ledger.in_flight == len(open_tags)


# --- @shielded ------------------------------------------------------------------------------------


def test_a_function_shields_its_channels_while_it_runs(wire):
    """By position and by name; before and after nothing is decided."""
    own = limited("drop", burst=3)

    @shielded(shield=own)
    def publish(channel, key, *, other):
        channel.basic_publish("", key, b"")
        other.basic_publish("", key, b"")

    first, second = wire.channel(), Wire().channel()
    first.basic_publish("", "before", b"")
    for _ in range(2):
        publish(first, "a", other=second)
    first.basic_publish("", "after", b"")
    assert wire.published() == ["before", "a", "a", "after"]
    assert second.connection.published() == ["a"]
    assert counts(own) == {"offered": 4, "delivered": 3, "dropped": 1}


def test_methods_and_coroutines_are_decorated_as_they_are(wire):
    """They keep name, signature and binding; a coroutine function stays one."""
    own = limited("drop", burst=10)

    class Shop:
        """It publishes."""

        @shielded(shield=own)
        def publish(self, channel: Channel) -> str:
            """Publish."""
            channel.basic_publish("", "a", b"")
            return "done"

        @staticmethod
        @shielded(shield=own)
        def static(channel: Channel) -> None:
            channel.basic_publish("", "b", b"")

    @shielded(shield=own)
    async def later(channel):
        await asyncio.sleep(0)
        channel.basic_publish("", "c", b"")
        return 3

    channel = wire.channel()
    assert Shop().publish(channel) == "done"
    Shop.static(channel)
    assert asyncio.run(later(channel)) == 3
    assert inspect.iscoroutinefunction(later)
    assert (Shop.publish.__name__, Shop.publish.__doc__) == ("publish", "Publish.")
    assert list(inspect.signature(Shop.publish).parameters) == ["self", "channel"]
    assert own.ledger().delivered == 3


def test_coroutines_that_share_a_channel_do_not_unshield_each_other(wire):
    """It stays shielded until the last of them is done."""
    own = limited("drop", burst=10)

    @shielded(shield=own)
    async def publish(channel, turns):
        for _ in range(turns):
            await asyncio.sleep(0)
        channel.basic_publish("", str(turns), b"")

    async def both(channel):
        await asyncio.gather(publish(channel, 1), publish(channel, 5))

    channel = wire.channel()
    asyncio.run(both(channel))
    assert counts(own) == {"offered": 2, "delivered": 2}
    channel.basic_publish("", "after", b"")
    assert own.ledger().offered == 2


def test_an_error_ends_the_shielding_too(wire):
    """The function's own error comes through."""
    own = limited("drop", burst=10)

    @shielded(shield=own)
    def publish(channel):
        raise KeyError("mine")

    channel = wire.channel()
    with pytest.raises(KeyError, match="mine"):
        publish(channel)
    channel.basic_publish("", "after", b"")
    assert own.ledger().offered == 0


def test_a_channel_that_is_shielded_already_stays_as_it_is(wire):
    """Its own Shield decides, once, within the function and after it."""
    inner, outer = limited(burst=10), limited(burst=10)

    @shielded(shield=outer)
    def publish(channel):
        channel.basic_publish("", "a", b"")

    channel = shielded(wire.channel(), shield=inner)
    publish(channel)
    channel.basic_publish("", "a", b"")
    assert (inner.ledger().offered, outer.ledger().offered) == (2, 0)


def test_a_method_kept_from_within_is_bare_afterwards(wire):
    """It goes on working, and is not shielded any more."""
    own = limited(burst=10)

    @shielded(shield=own)
    def keep(channel):
        return channel.basic_publish

    publish = keep(wire.channel())
    publish("", "later", b"")
    assert (wire.published(), own.ledger().offered) == (["later"], 0)


def test_without_arguments_the_shared_shield_decides(wire, monkeypatch):
    """It is looked up when the function is called, not when it is decorated."""

    @shielded
    def publish(channel):
        channel.basic_publish("", "a", b"")

    own = limited(burst=10)
    monkeypatch.setattr("shield.shield._default", own)
    publish(wire.channel())
    assert own.ledger().delivered == 1


def test_a_stand_in_for_a_channel_is_left_alone():
    """Users' tests hand mocks to their functions."""
    stand_in = MagicMock(spec=BlockingChannel)
    shielded(lambda channel: channel.basic_publish("", "a", b""))(stand_in)
    stand_in.basic_publish.assert_called_once_with("", "a", b"")


def generates():
    yield


async def generates_too():
    yield


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (None, "found None; allowed is a BlockingChannel"),
        ("text", "found 'text'"),
        (int, "found <class 'int'>"),
        (staticmethod(generates), "below @staticmethod"),
        (generates, "is a generator"),
        (generates_too, "is a generator"),
    ],
)
def test_what_cannot_be_shielded_is_refused(wrong, said):
    """The error says what was found, and what is allowed."""
    with pytest.raises(SettingsError, match=said):
        shielded(wrong)


def test_wrong_settings_leave_a_channel_as_it_was(wire):
    """Nothing is half-done."""
    channel = wire.channel()
    with pytest.raises(SettingsError, match="rules"):
        shielded(channel, shield={"rules": [{}]})
    assert type(channel) is Channel


# --- what the broker tells ------------------------------------------------------------------------


def ruled(**policies: Any) -> Shield:
    rule = {"name": "r", "match": "*", "over_limit": "drop", **policies}
    return Shield({"rules": [rule]}, clock=ManualClock())


def test_a_blocked_connections_channels_take_the_chain_until_it_is_not(wire):
    """All channels of it, each by its own Shield; one that is shielded meanwhile knows at once."""
    first, second = ruled(blocked="over_limit"), ruled(blocked="over_limit")
    channel = shielded(wire.channel(), shield=first)
    other = shielded(wire.channel(), shield=second)
    wire.say(spec.Connection.Blocked("memory"))
    channel.basic_publish("", "a", b"")
    other.basic_publish("", "b", b"")
    third = shielded(wire.channel(), shield=second)
    third.basic_publish("", "c", b"")
    assert wire.published() == []
    wire.say(spec.Connection.Unblocked())
    channel.basic_publish("", "d", b"")
    assert wire.published() == ["d"]
    assert counts(first) == {"offered": 2, "dropped": 1, "delivered": 1}
    assert counts(second) == {"offered": 2, "dropped": 2}


def test_a_channels_signals_are_of_the_shield_that_decides(wire):
    """None before one has; a decorated function's stay for its next call."""
    own, channel = ruled(), wire.channel()

    @shielded(shield=own)
    def publish(channel: Any) -> Any:
        channel.basic_publish("", "a", b"")
        return channel.shield_signals

    signals = publish(channel)
    assert signals.blocked is False
    assert publish(channel) is signals
    shielded(channel, shield=ruled())
    assert channel.shield_signals is not signals


def test_confirms_tell_how_messages_ended_and_how_long_that_took(wire):
    """What is in flight, the share of nacks, the latency; a cancelled channel has nothing left."""
    own = ruled()
    channel = shielded(wire.channel(), shield=own)
    channel.confirm_delivery(lambda frame: None)
    signals = channel.shield_signals
    for _ in range(4):
        channel.basic_publish("", "a", b"")
    assert signals.in_flight == 4
    own.clock.advance(0.25)
    wire.answer(spec.Basic.Ack(2, multiple=True))
    wire.answer(spec.Basic.Nack(3))
    assert signals.in_flight == 1
    assert signals.answers.share("nacks", own.clock.now()) == pytest.approx(1 / 3)
    assert signals.latency.recent == pytest.approx(0.25)
    channel._on_close_meta(StreamLostError("cut"))
    assert signals.in_flight == 0


def test_what_was_published_under_no_shield_has_no_latency(wire):
    """Its confirm comes when one decides: counted as an answer, as one of unknown time."""
    own, channel = ruled(), wire.channel()
    publish = shielded(lambda channel: None, shield=ruled())
    publish(channel)  # shielded, and nothing decides any more
    channel._shield_state.signals = None
    channel.confirm_delivery(lambda frame: None)
    channel.basic_publish("", "a", b"")
    shielded(channel, shield=own)
    own.clock.advance(100.0)
    wire.answer(spec.Basic.Ack(1))
    assert channel.shield_signals.latency.recent is None
    assert channel.shield_signals.answers.share("nacks", own.clock.now()) == 0.0


NEEDY = [
    ({"nacks": "20%"}, "nacks"),
    ({"returns": "20%"}, "returns"),
    ({"confirm_latency": {}}, "in_flight and latency"),
    ({"confirm_window": {}}, "window_used"),
    ({"client_queue": {"messages": 5}}, "queue_messages"),
    ({"backlog": {"limit": 5}}, "backlogs"),
    ({"broker_throttle": "1s"}, "throttled_until"),
    ({"client_queue_age": "1s"}, "waits_since"),
    ({"requests_in_flight": 5}, "requests"),
]


@pytest.mark.parametrize(("policy", "signal"), NEEDY, ids=str)
def test_a_rule_that_a_channel_cannot_keep_to_is_an_error(wire, policy, signal):
    """At the first publish that it covers: what is missing, and what to do; nothing is offered."""
    own = ruled(**policy)
    channel = shielded(wire.channel(), shield=own)
    with pytest.raises(SettingsError) as caught:
        channel.basic_publish("", "a", b"")
    text = str(caught.value)
    assert f"rule 'r': {next(iter(policy))} goes by {signal}, which this channel does not" in text
    assert "shield_rabbitmq.Publisher" in text
    assert ("confirm_delivery()" in text) == (signal in {"nacks", "in_flight and latency"})
    with pytest.raises(SettingsError):
        channel.basic_publish(b"", "a", "text")
    assert (own.ledger().offered, wire.published()) == (0, [])


@pytest.mark.parametrize(("policy", "signal"), NEEDY, ids=str)
def test_confirms_that_are_counted_let_a_channel_keep_to_what_they_tell(wire, policy, signal):
    """An event loop's channel: nacks and the latency. What was not shielded in time counts none."""
    late = Wire().channel()
    late.confirm_delivery(lambda frame: None)
    channel = shielded(wire.channel(), shield=ruled(**policy))
    channel.confirm_delivery(lambda frame: None)
    if signal in {"nacks", "in_flight and latency"}:
        channel.basic_publish("", "a", b"")
        advice = "shield it before its confirms are turned on"
    else:
        with pytest.raises(SettingsError):
            channel.basic_publish("", "a", b"")
        advice = "does not tell; publish through"
    with pytest.raises(SettingsError, match=advice):
        shielded(late, shield=ruled(**policy)).basic_publish("", "a", b"")


@pytest.mark.parametrize(
    "more",
    [{"mode": "shadow"}, {"match": "b"}, {"except": "a"}, {"producers": "other"}],
    ids=str,
)
def test_a_rule_that_does_not_act_on_a_channel_is_no_error(wire, more):
    """One in shadow, or about other messages, as for a Publisher in the same program."""
    channel = shielded(wire.channel(), shield=ruled(nacks="20%", **more))
    channel.basic_publish("", "a", b"")
    assert wire.published() == ["a"]
