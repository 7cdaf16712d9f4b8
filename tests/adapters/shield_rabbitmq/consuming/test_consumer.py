"""Consuming within rules, on pika's own channels without a broker."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pika.exceptions import ChannelWrongStateError, StreamLostError

from shield import Outcome, Shield, Transport, hookimpl
from shield.errors import Reject
from shield.testing import ManualClock
from shield_rabbitmq import shielded
from shield_rabbitmq.consuming.delivery_tags import DeliveryTags
from shield_rabbitmq.consuming.prefetch import AHEAD, prefetch_for
from tests.adapters.shield_rabbitmq.broker import QUEUE, Blocking, Broker, shielded_channel
from tests.contracts.adapter import counts
from tests.eventually import eventually

KINDS = ("blocking", "select")
QUOTA = {"rate": "10/s", "burst": 2}


def shield_with(*rules: dict[str, Any], plugins: Any = (), **others: Any) -> Shield:
    """A Shield with rules for consuming, on a manual clock."""
    made = [{"match": "*", "direction": "consume", **rule} for rule in rules]
    return Shield({"shield": others, "rules": made}, plugins=plugins, clock=ManualClock())


class Worker:
    """A consumer with a callback that keeps what it is handed, and may acknowledge it."""

    def __init__(self, kind: str, shield: Shield, *, ack: bool = True, **consume: Any) -> None:
        self.kind = kind
        self.shield = shield
        self.broker = Broker(shield.clock)
        self.channel = shielded_channel(kind, self.broker, shield)
        self.got: list[bytes] = []
        self.tags: list[int] = []
        self.ack = ack and not consume.get("auto_ack")
        self.consumer_tag = self.channel.basic_consume(QUEUE, self.handle, **consume)
        self.run()

    def handle(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        assert channel is self.channel
        self.got.append(body)
        self.tags.append(method.delivery_tag)
        if self.ack:
            channel.basic_ack(method.delivery_tag)

    def run(self, seconds: float = 0.0) -> None:
        """Let the connection's loop run so long."""
        if self.kind == "select":
            self.broker.run(seconds)
            return
        end = self.broker.clock.now() + seconds
        for _ in range(1000):
            self.channel.connection.process_data_events(max(0.0, end - self.broker.clock.now()))
            if self.broker.clock.now() >= end and not self.channel.connection._ready_events:
                return

    def counts(self) -> dict[str, int]:
        return counts(self.shield)


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


def bodies(*numbers: int) -> list[bytes]:
    return [str(number).encode() for number in numbers]


# --- handing over ---------------------------------------------------------------------------------


def test_a_quota_bounds_what_the_callback_is_handed(kind):
    """What is over the limit comes later, in order, and no thread is blocked for it."""
    worker = Worker(kind, shield_with({"quota": QUOTA}))
    worker.broker.publish(*bodies(*range(5)))
    worker.run()
    assert worker.got == bodies(0, 1)
    worker.run(0.15)
    assert worker.got == bodies(0, 1, 2)
    worker.run(1.0)
    assert worker.got == bodies(*range(5))
    assert worker.broker.acked == [1, 2, 3, 4, 5]
    assert worker.counts() == {"offered": 5, "delivered": 5}


def test_what_comes_while_others_wait_comes_behind_them(kind):
    """Nothing overtakes, and it is not offered yet."""
    worker = Worker(kind, shield_with({"quota": QUOTA}))
    worker.broker.publish(*bodies(0, 1, 2))
    worker.run()
    worker.broker.publish(*bodies(3, 4))
    worker.run()
    assert worker.counts() == {"offered": 3, "delivered": 2, "in_flight": 1}
    worker.run(1.0)
    assert worker.got == bodies(*range(5))


def test_a_bound_counts_what_is_handed_out_and_not_acknowledged(kind):
    """The next comes as soon as the user acknowledges."""
    worker = Worker(kind, shield_with({"in_flight": {"messages": 2}}), ack=False)
    worker.broker.publish(*bodies(*range(5)))
    worker.run()
    assert worker.got == bodies(0, 1)
    worker.channel.basic_ack(worker.tags[0])
    worker.run(0.001)
    assert worker.got == bodies(0, 1, 2)
    assert worker.counts() == {"offered": 4, "delivered": 1, "in_flight": 3}


def test_what_another_consumer_frees_is_found_by_looking(kind):
    """A bound may be shared with other channels, whose acknowledgements nobody tells of here."""
    shield = shield_with({"in_flight": {"messages": 1}})
    one, other = Worker(kind, shield, ack=False), Worker(kind, shield)
    one.broker.publish(b"a")
    one.run()
    other.broker.publish(b"b")
    other.run()
    assert other.got == []
    one.channel.basic_ack(1)
    other.run(0.2)
    assert other.got == [b"b"]


def test_without_acknowledgements_done_is_when_the_callback_has_returned(kind):
    """One that raises has failed."""
    shield = shield_with({"in_flight": {"messages": 1}})
    worker = Worker(kind, shield, auto_ack=True)
    worker.broker.publish(*bodies(0, 1))
    worker.run()
    assert worker.got == bodies(0, 1)
    assert worker.counts() == {"offered": 2, "delivered": 2}
    worker.handle = None
    worker.channel.basic_consume(QUEUE, raises, auto_ack=True, consumer_tag="raises")
    worker.run()
    worker.broker.consumers.pop(worker.consumer_tag)
    worker.broker.publish(b"2")
    with pytest.raises(ZeroDivisionError):
        worker.run()
    assert worker.counts() == {"offered": 3, "delivered": 2, "failed": 1}


def raises(*_: Any) -> None:
    raise ZeroDivisionError


def test_a_callback_that_raises_loses_nothing(kind):
    """The error comes out where pika lets it, and what waited behind is handed over later."""
    worker = Worker(kind, shield_with({"quota": QUOTA}))
    worker.broker.publish(*bodies(*range(4)))
    worker.run()
    handle, worker.channel._shield_session.by_tag[worker.consumer_tag]._callback = (
        worker.handle,
        raises,
    )
    with pytest.raises(ZeroDivisionError):
        worker.run(0.15)
    worker.channel._shield_session.by_tag[worker.consumer_tag]._callback = handle
    worker.run(1.0)
    assert worker.got == bodies(0, 1, 3)
    assert worker.counts() == {"offered": 4, "delivered": 3, "in_flight": 1}


# --- whose rules ----------------------------------------------------------------------------------


def test_without_a_rule_for_consuming_nothing_is_ours(kind):
    """The callback that pika holds is the user's own, and nothing is counted."""
    shield = Shield({"rules": [{"match": "*", "quota": "1/h"}]}, clock=ManualClock())
    worker = Worker(kind, shield)
    worker.broker.publish(*bodies(0, 1, 2))
    worker.run()
    assert worker.got == bodies(0, 1, 2)
    assert worker.channel._shield_session is None
    assert worker.broker.prefetch == []
    assert worker.counts() == {}


def test_a_queue_without_a_rule_is_not_counted(kind):
    """A rule is looked up by the queue's name."""
    worker = Worker(kind, shield_with({"match": "other", "quota": QUOTA}))
    worker.broker.publish(*bodies(*range(5)))
    worker.run()
    assert worker.got == bodies(*range(5))
    assert worker.broker.acked == [1, 2, 3, 4, 5]
    assert worker.counts() == {}


def test_rules_see_a_delivery_whole():
    """Queue, consumer, size, headers, routing key, when it was written and by when it is of use."""
    seen = []

    class Sees:
        @hookimpl
        def shield_before_consume(self, message: Any) -> None:
            seen.append(message)

    worker = Worker("select", shield_with({"quota": QUOTA}, plugins=[Sees()]))
    now = int(time.time())
    worker.broker.publish(b"body", headers={"a": 1}, timestamp=now, expiration="5000")
    worker.broker.publish(b"", timestamp=now, expiration="what")
    worker.run()
    first, second = seen
    assert (first.destination, first.producer, first.size) == (QUEUE, "worker", 4)
    assert (first.headers, first.routing_key, first.written_s) == ({"a": 1}, "key", now)
    assert first.deadline - worker.broker.clock.now() == pytest.approx(5.0, abs=2.0)
    assert (second.headers, second.deadline) == (None, None)


def test_a_hooks_rejection_goes_to_the_dead_letters(kind):
    """It is rejected without requeue, and counted as dropped."""

    class Picky:
        @hookimpl
        def shield_before_consume(self, message: Any) -> None:
            if message.size > 1:
                raise Reject("too large")

    worker = Worker(kind, shield_with({"quota": QUOTA}, plugins=[Picky()]))
    worker.broker.publish(b"large", b"s", b"s", b"s", b"large", b"s")
    worker.run(1.0)
    assert worker.got == [b"s"] * 4
    assert worker.broker.rejected == [(1, False), (5, False)]
    assert worker.counts() == {"offered": 6, "delivered": 4, "dropped": 2}


def test_who_receives_may_have_another_name_than_who_publishes(kind):
    """To quotas per producer, and in the ledger."""
    shield = shield_with({"producers": "reader", "quota": QUOTA})
    broker = Broker(shield.clock)
    channel = Blocking(broker).channel() if kind == "blocking" else broker.channel()
    shielded(channel, shield=shield, shield_producer="writer", shield_consumer="reader")
    channel.basic_publish("", "a", b"")
    channel.basic_consume(QUEUE, lambda *_: None, auto_ack=True)
    broker.publish(b"0")
    broker.run()
    if kind == "blocking":
        channel.connection.process_data_events(0)
    ledger = shield.ledger()
    assert {name: part.offered for name, part in ledger.producers.items()} == {
        "writer": 1,
        "reader": 1,
    }


def test_a_consumer_begun_in_a_shielded_function_stays_within_the_rules(kind):
    """Though the function has returned when its messages come."""
    shield = shield_with({"quota": QUOTA})
    broker = Broker(shield.clock)
    channel = Blocking(broker).channel() if kind == "blocking" else broker.channel()
    got: list[bytes] = []

    @shielded(shield=shield)
    def begin(channel: Any) -> None:
        channel.basic_consume(QUEUE, lambda c, m, p, body: got.append(body))

    begin(channel)
    broker.publish(*bodies(*range(4)))
    broker.run()
    if kind == "blocking":
        channel.connection.process_data_events(0)
    assert got == bodies(0, 1)


def test_an_instrumented_channel_stays_instrumented_below(kind):
    """What stood in the instance's `basic_consume` is called with the callback that pika gets."""
    shield = shield_with({"quota": QUOTA})
    broker = Broker(shield.clock)
    channel = Blocking(broker).channel() if kind == "blocking" else broker.channel()
    bare, traced, got = channel.basic_consume, [], []

    def consume(queue, on_message_callback, *more, **named):
        def callback(channel, method, properties, body):
            traced.append(body)
            on_message_callback(channel, method, properties, body)

        return bare(queue, callback, *more, **named)

    channel.basic_consume = consume
    shielded(channel, shield=shield)
    channel.basic_consume(QUEUE, lambda c, m, p, body: got.append(body))
    broker.publish(*bodies(*range(4)))
    broker.run()
    if kind == "blocking":
        channel.connection.process_data_events(0)
    assert (traced, got) == (bodies(*range(4)), bodies(0, 1))


# --- acknowledgements -----------------------------------------------------------------------------


def three_of_five(kind: str) -> Worker:
    """A consumer with three messages in hand and two that wait."""
    worker = Worker(kind, shield_with({"in_flight": {"messages": 3}}), ack=False)
    worker.broker.publish(*bodies(*range(5)))
    worker.run()
    assert worker.tags == [1, 2, 3]
    return worker


@pytest.mark.parametrize("upto", [0, 3])
def test_all_up_to_here_is_what_was_handed_over(kind, upto):
    """Tag 0 stands for all; to the broker that would be what waits as well."""
    worker = three_of_five(kind)
    worker.ack = True
    worker.channel.basic_ack(upto, multiple=True)
    assert worker.broker.acked == [1, 2, 3]
    worker.run(0.1)
    assert worker.got == bodies(*range(5))
    assert worker.counts() == {"offered": 5, "delivered": 5}


def test_refusals_settle_as_failed(kind):
    """With and without requeue, one and many: the message is the broker's again, or gone."""
    worker = three_of_five(kind)
    worker.channel.basic_reject(1, requeue=False)
    worker.channel.basic_nack(3, multiple=True, requeue=True)
    assert worker.broker.rejected == [(1, False), (2, True), (3, True)]
    worker.run(0.1)
    assert worker.counts() == {"offered": 5, "failed": 3, "in_flight": 2}


def test_nothing_in_hand_means_nothing_to_acknowledge(kind):
    """Then "all" must not reach what the user has never seen."""
    worker = Worker(kind, shield_with({"quota": {"rate": "1/h", "burst": 1}}), ack=True)
    worker.broker.publish(*bodies(0, 1, 2))
    worker.run()
    worker.channel.basic_ack(0, multiple=True)
    assert worker.broker.acked == [1]
    assert sorted(worker.broker.unacked) == [2, 3]


def test_another_consumer_on_the_channel_does_not_acknowledge_what_waits(kind):
    """Its messages, which no rule is about, are acknowledged one by one where ours lie between."""
    worker = Worker(kind, shield_with({"match": QUEUE, "quota": {"rate": "1/h", "burst": 1}}))
    worker.broker.publish(*bodies(0, 1, 2))
    worker.run()
    free: list[int] = []
    worker.broker.consumers.clear()
    worker.channel.basic_consume("free", lambda c, m, p, b: free.append(m.delivery_tag))
    worker.broker.publish(*bodies(3, 4))
    worker.run()
    assert free == [4, 5]
    worker.channel.basic_ack(5, multiple=True)
    assert worker.broker.acked == [1, 4, 5]
    assert sorted(worker.broker.unacked) == [2, 3]


tags = st.integers(1, 30)


@settings(deadline=None)
@given(st.sets(tags), st.sets(tags), st.one_of(st.just(0), tags), st.integers(1, 31))
def test_pieces_mean_exactly_what_was_handed_over(handed, others, upto, undispatched):
    """Whatever lies between, nothing else is acknowledged and nothing is forgotten."""
    table = DeliveryTags()
    table.withheld = {tag for tag in others - handed if tag < undispatched}
    table.handed = dict.fromkeys(handed)
    outstanding = handed | table.withheld | set(range(undispatched, 31)) - others
    pieces = table.pieces(upto, min(set(range(undispatched, 31)) - others - handed, default=99))
    acked = set()
    for tag, multiple in [(upto, True)] if pieces is None else pieces:
        acked |= {each for each in outstanding if each == tag or (multiple and each <= tag)}
    wanted = {tag for tag in handed if tag <= upto or not upto}
    assert acked - wanted <= ({upto} - handed)
    assert wanted <= acked
    assert set(table.up_to(upto)) == wanted


# --- an end ---------------------------------------------------------------------------------------


def test_a_consumer_that_is_cancelled_gives_back_what_it_holds(kind):
    """What was handed over stays with its user, who may acknowledge it yet."""
    worker = three_of_five(kind)
    assert worker.channel.basic_cancel(worker.consumer_tag) in ([], None)
    worker.run()
    assert worker.broker.rejected == [(4, True), (5, True)]
    worker.channel.basic_ack(1)
    assert worker.counts() == {"offered": 4, "delivered": 1, "failed": 1, "in_flight": 2}
    worker.run(1.0)
    assert worker.got == bodies(0, 1, 2)


def test_what_needs_no_acknowledgement_comes_back_from_the_cancel():
    """As from pika's own; a broker knows of it no more."""
    worker = Worker("blocking", shield_with({"quota": QUOTA}), auto_ack=True)
    worker.broker.publish(*bodies(*range(5)))
    worker.run()
    assert worker.got == bodies(0, 1)
    returned = worker.channel.basic_cancel(worker.consumer_tag)
    assert [body for _, _, body in returned] == bodies(2, 3, 4)
    assert worker.counts() == {"offered": 3, "delivered": 3}


def test_a_channel_that_closes_hands_all_back(kind):
    """Whoever closed it: nothing is handed over or acknowledged any more."""
    worker = three_of_five(kind)
    worker.broker.lose_channel(StreamLostError("gone"))
    assert worker.counts() == {"offered": 4, "failed": 4}
    sent = len(worker.broker.sent)
    worker.broker.run(5.0)
    assert worker.got == bodies(0, 1, 2)
    assert len(worker.broker.sent) == sent


def test_recovered_messages_come_anew(kind):
    """With new tags; nobody acknowledges the old ones."""
    worker = three_of_five(kind)
    worker.channel.basic_recover(requeue=True)
    worker.run()
    assert worker.got == bodies(0, 1, 2, 0, 1, 2)
    assert worker.tags[3:] == [6, 7, 8]
    assert worker.counts() == {"offered": 8, "failed": 4, "in_flight": 4}


def test_a_closed_channel_raises_as_pikas(kind):
    """And counts nothing twice."""
    worker = three_of_five(kind)
    worker.broker.lose_channel(StreamLostError("gone"))
    with pytest.raises(Exception, match="Channel is closed"):
        worker.channel.basic_ack(1)
    assert worker.counts() == {"offered": 4, "failed": 4}


# --- prefetch -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "user", "expected"),
    [
        ({"in_flight": {"messages": 50}}, 0, 50),
        ({"in_flight": {"messages": 50}}, 20, 20),
        ({"in_flight": {"messages": 50}}, 80, 50),
        ({"in_flight": {"messages": 100_000}}, 0, 65_535),
        ({"in_flight": {"bytes": "1MiB"}}, 0, AHEAD),
        ({"quota": "500/s"}, 0, AHEAD),
        ({"quota": "5/s"}, 0, 1500),
        ({"quota": "5/s"}, 7, 7),
        ({"quota": "5/s"}, 7000, 7000),
        ({"quota": "1/h"}, 0, 1000),
        ({"quota": "1MiB/s"}, 0, 4800),
        ({"quota": ["500/s", "5/s"]}, 0, 1500),
        ({"in_flight": {"messages": 50}, "mode": "shadow"}, 0, AHEAD),
        ({"in_flight": {"messages": 50}, "match": "other"}, 0, 0),
        ({"in_flight": {"messages": 50}, "match": "other"}, 9, 9),
    ],
)
def test_no_more_is_pushed_than_the_rules_let_be_unacknowledged(rule, user, expected):
    """A smaller wish of the user's own stays."""
    assert prefetch_for(shield_with(rule), "worker", QUEUE, user) == expected


def test_the_users_prefetch_keeps_its_meaning(kind):
    """Ours is for consumers under the rule; the next without one gets the user's again."""
    shield = shield_with({"match": QUEUE, "in_flight": {"messages": 5}})
    worker = Worker(kind, shield)
    worker.channel.basic_qos(prefetch_count=20)
    worker.run()
    worker.channel.basic_consume(QUEUE, worker.handle)
    worker.channel.basic_consume("free", worker.handle)
    worker.channel.basic_consume(QUEUE, worker.handle, auto_ack=True)
    worker.run()
    assert worker.broker.prefetch == [5, 20, 5, 20]


def test_a_channel_that_was_open_before_keeps_its_prefetch(kind):
    """Its user may have set one that nobody can ask for."""
    shield = shield_with({"in_flight": {"messages": 5}})
    broker = Broker(shield.clock)
    channel = Blocking(broker).channel() if kind == "blocking" else broker.channel()
    shielded(channel, shield=shield)
    channel.basic_consume(QUEUE, raises)
    broker.run()
    assert broker.prefetch == []
    channel.basic_qos(prefetch_count=9)
    channel.basic_consume(QUEUE, raises)
    broker.run()
    assert broker.prefetch == [9, 5]


# --- elsewhere ------------------------------------------------------------------------------------


class Memory(Transport):
    """A place elsewhere that answers when the test says so."""

    scheme = "memory"

    def __init__(self) -> None:
        self.sent: list[tuple[Any, Any]] = []

    def send(self, envelope, done):
        self.sent.append((envelope, done))

    def outcome_of(self, error):
        return Outcome.FAILED

    def close(self, timeout_s):
        pass


class Memories:
    """Contributes one."""

    def __init__(self) -> None:
        memory = self.memory = Memory()

        class To(Memory):
            @classmethod
            def to(cls, url: Any) -> Transport:
                return memory

        self.kind = To

    @hookimpl
    def shield_transports(self) -> dict[str, type[Transport]]:
        return {"memory": self.kind}


def stale(kind: str, *chain: str, **consume: Any) -> tuple[Worker, Memory]:
    """A consumer that was given two messages that are too old, and one that is not."""
    plugin = Memories()
    rule = {"max_age": "30s", "over_limit": ["overflow memory://there/late", *chain]}
    worker = Worker(kind, shield_with(rule, plugins=[plugin]), **consume)
    worker.broker.publish(*bodies(0, 1), timestamp=int(time.time()) - 100)
    worker.broker.publish(b"2", timestamp=int(time.time()))
    worker.run()
    return worker, plugin.memory


def test_what_is_diverted_is_acknowledged_once_that_is_confirmed(kind):
    """What follows goes on meanwhile, and "all up to here" does not mean it."""
    worker, memory = stale(kind, ack=False)
    assert worker.got == [b"2"]
    worker.channel.basic_ack(3, multiple=True)
    assert worker.broker.acked == [3]
    assert worker.counts() == {"offered": 3, "delivered": 1, "in_flight": 2}
    for _, done in memory.sent:
        done(None)
    worker.run()
    assert worker.broker.acked == [3, 1, 2]
    assert worker.counts() == {"offered": 3, "delivered": 1, "overflowed": 2}


def test_what_is_diverted_can_go_back_to_its_queue(kind):
    """Its headers name the queue, as RabbitMQ's default exchange knows it, and why it left."""
    _, memory = stale(kind)
    envelope, _ = memory.sent[0]
    marks = dict(envelope.marks)
    assert (marks["shield-policy"], marks["shield-reason"]) == ("max_age", "older than 30 s")
    assert marks["shield-original-broker"] == "amqp://localhost:1/"
    home = envelope.restored()
    assert (home.destination, home.exchange, home.routing_key) == (QUEUE, "", QUEUE)
    assert home.body == b"0"


def test_where_it_cannot_be_diverted_the_chain_goes_on(kind):
    """Here it drops: then it is acknowledged and counted."""
    worker, memory = stale(kind, "drop")
    for _, done in memory.sent:
        done(ConnectionError("not there"))
    worker.run(0.1)
    assert sorted(worker.broker.acked) == [1, 2, 3]
    assert worker.counts() == {"offered": 3, "delivered": 1, "dropped": 2}


def test_a_transport_that_never_answers_has_a_limit_of_time(kind):
    """Then the chain goes on; an answer that comes after that changes nothing."""
    plugin = Memories()
    rule = {"max_age": "30s", "over_limit": ["overflow memory://there/late", "drop"]}
    worker = Worker(kind, shield_with(rule, plugins=[plugin], answer_within=0.05))
    worker.broker.publish(b"0", timestamp=1)

    def answered() -> bool:
        worker.run(0.01)
        return worker.broker.acked == [1]

    worker.run()
    assert worker.counts() == {"offered": 1, "in_flight": 1}
    eventually(answered)
    plugin.memory.sent[0][1](None)
    worker.run()
    assert worker.counts() == {"offered": 1, "dropped": 1}


def test_a_transport_that_cannot_tell_whose_fault_it_is_has_failed(kind):
    """What it says is taken for no: the message is tried again."""
    worker, memory = stale(kind, "drop")
    memory.is_hopeless = lambda error: 1 / 0
    for _, done in memory.sent:
        done("stored")
    worker.run(0.1)
    assert worker.counts() == {"offered": 3, "delivered": 1, "dropped": 2}


def test_a_chain_that_runs_out_begins_anew(kind):
    """The message stays with the broker, unacknowledged, until it is somewhere."""
    worker, memory = stale(kind)
    memory.sent[0][1](ConnectionError("not there"))
    memory.sent[1][1](None)
    worker.run(0.5)
    assert worker.broker.acked == [3, 2]
    worker.run(1.0)
    assert len(memory.sent) == 3
    memory.sent[2][1](None)
    worker.run()
    assert worker.broker.acked == [3, 2, 1]
    assert worker.counts() == {"offered": 3, "delivered": 1, "overflowed": 2}


def test_a_consumer_cancelled_while_it_diverts_sees_to_the_end(kind):
    """Confirmed it is acknowledged; failed it goes back."""
    worker, memory = stale(kind)
    worker.channel.basic_cancel(worker.consumer_tag)
    worker.run()
    assert worker.broker.rejected == []
    memory.sent[0][1](None)
    memory.sent[1][1](ConnectionError("not there"))
    worker.run()
    assert worker.broker.acked == [3, 1]
    assert worker.broker.rejected == [(2, True)]
    assert worker.counts() == {"offered": 3, "delivered": 1, "overflowed": 1, "failed": 1}


@pytest.mark.parametrize("after_s", [1.0, 10.0])
def test_a_blocking_channel_is_closed_once_what_it_diverts_is_there(after_s):
    """So that it is not in two places; a broker that takes too long has it in both."""
    worker, memory = stale("blocking")
    began_s = worker.broker.clock.now()
    answer = [lambda done=done: done(None) for _, done in memory.sent]
    for each in answer:
        worker.broker._adapter_call_later(after_s, each)
    worker.channel.close()
    assert worker.broker.clock.now() - began_s == pytest.approx(min(after_s, 5.0), abs=0.1)
    assert worker.broker.acked == ([3, 1, 2] if after_s < 5.0 else [3])
    worker.broker.run(after_s)
    assert worker.counts() == {"offered": 3, "delivered": 1, "overflowed": 2}


@pytest.mark.parametrize("after_s", [1.0, 10.0])
def test_an_event_loops_channel_closes_when_it_has_heard_that_it_is_there(after_s):
    """`close` returns at once; until then nothing is handed over, and what is held goes back."""
    worker, memory = stale("select")
    closed: list[float] = []
    worker.channel.add_on_close_callback(lambda *_: closed.append(worker.broker.clock.now()))
    began_s = worker.broker.clock.now()
    for _, done in memory.sent:
        worker.broker._adapter_call_later(after_s, lambda done=done: done(None))
    worker.channel.close()
    worker.channel.close()
    worker.broker.publish(b"3")
    worker.run(6.0)
    assert closed == [pytest.approx(began_s + min(after_s, 5.0), abs=0.1)]
    assert worker.got == [b"2"]
    assert worker.broker.acked == ([3, 1, 2] if after_s < 5.0 else [3])
    worker.run(after_s)
    assert worker.counts() == {"offered": 3, "delivered": 1, "overflowed": 2}
    with pytest.raises(ChannelWrongStateError):
        worker.channel.close()


def test_an_event_loops_channel_that_has_nothing_under_way_closes_at_once():
    """What is held back goes to the broker again before it."""
    worker = three_of_five("select")
    worker.channel.close()
    assert worker.broker.rejected == [(4, True), (5, True)]
    assert worker.channel.is_closing
    worker.run(0.1)
    assert worker.counts() == {"offered": 4, "failed": 4}


def test_an_event_loops_channel_closes_though_what_it_diverts_fails():
    """Then it goes back, and is counted as that."""
    worker, memory = stale("select")
    worker.channel.close()
    for _, done in memory.sent:
        done(OSError("not there"))
    worker.run(0.1)
    assert worker.channel.is_closed
    assert worker.broker.rejected == [(1, True), (2, True)]
    assert worker.counts() == {"offered": 3, "delivered": 1, "failed": 2}


def test_an_event_loops_channel_that_is_lost_while_it_waits_to_close():
    """Nothing is closed twice, and the broker has all of it again."""
    worker, memory = stale("select")
    worker.channel.close()
    worker.broker.lose_channel(StreamLostError("gone"))
    for _, done in memory.sent:
        done(None)
    worker.run(6.0)
    assert worker.counts() == {"offered": 3, "delivered": 1, "overflowed": 2}


@pytest.mark.parametrize(("error", "end"), [(None, "overflowed"), (OSError("no"), "failed")])
def test_a_channel_that_closes_while_it_diverts(kind, error, end):
    """The broker has the message again, and its old tag means nothing any more."""
    worker, memory = stale(kind)
    worker.broker.lose_channel(StreamLostError("gone"))
    assert worker.counts()["in_flight"] == 2
    sent = len(worker.broker.sent)
    for _, done in memory.sent:
        done(error)
    worker.broker.run(2.0)
    assert worker.counts() == {"offered": 3, "delivered": 1, end: 2}
    assert len(worker.broker.sent) == sent


def test_an_answer_that_the_loop_does_not_live_to_hear(kind):
    """It was on its way to the connection's thread when that closed: counted all the same."""
    worker, memory = stale(kind)
    memory.sent[0][1](OSError("no"))
    memory.sent[1][1](None)
    worker.broker.incoming.clear()
    worker.broker.lose_channel(StreamLostError("gone"))
    assert worker.counts() == {"offered": 3, "delivered": 1, "overflowed": 1, "failed": 1}


def test_dropped_by_rule_is_acknowledged_and_counted(kind):
    """The user never sees it."""
    worker = Worker(kind, shield_with({"quota": QUOTA, "over_limit": ["drop"]}))
    worker.broker.publish(*bodies(*range(5)))
    worker.run()
    assert worker.got == bodies(0, 1)
    assert worker.broker.acked == [1, 2, 3, 4, 5]
    assert worker.counts() == {"offered": 5, "delivered": 2, "dropped": 3}
