"""`buffer`: kept in memory, sent in order when admitted, handed on where that cannot be."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest

import shield
from shield import OverLimitError, Policy, SettingsError, Shield
from shield.capabilities import FollowsDiversion, Paces, Queues
from shield.clock import SYSTEM_CLOCK
from shield.plugins.actions.buffer.sender import LINGER_S, BufferSender, drain_of
from shield.testing import FakeClient
from tests.making import Kinds, counts, over, shield_with

ONE_A_SECOND = {"rate": "1/s", "burst": 1}
ONE_AN_HOUR = {"rate": "1/h", "burst": 1}


@pytest.fixture
def by_hand(monkeypatch):
    """No thread drains: the test does, with `drain`."""
    monkeypatch.setattr(BufferSender, "_start", lambda self: None)


def client_with(*chain, match="*", producer="p", **policies):
    rule = {"match": match, "over_limit": list(chain) or ["buffer"], **policies}
    return FakeClient(shield_with(rule), producer)


def drain(client, seconds=0.0):
    """Let time pass, then send all that is admitted."""
    clock = client.shield.clock
    clock.advance(seconds)
    while drain_of(clock).step() == 0.0:
        pass


def sent(client):
    return [record.body for record in client.unanswered]


def publish(client, *bodies, destination="orders", **more):
    return [client.publish(destination, body, **more) for body in bodies]


# --- kept, and sent -----------------------------------------------------------------------------


def test_a_buffered_messages_future_ends_as_the_real_send_does(by_hand):
    """Pending and `buffered` until it is admitted and answered; then it has the send's result."""
    client = client_with(quota=ONE_A_SECOND)
    client.publish("orders", b"1")
    client.ack()
    future = client.publish("orders", b"2")
    assert shield.fate(future) == "buffered"
    assert not future.done()
    assert counts(client.shield.ledger()) == {"offered": 2, "delivered": 1, "buffered": 1}
    drain(client, 1.0)
    assert not future.done()
    assert counts(client.shield.ledger()) == {"offered": 2, "delivered": 1, "in_flight": 1}
    client.ack()
    assert future.result(0).body == b"2"
    assert shield.fate(future) == "buffered"
    assert counts(client.shield.ledger()) == {"offered": 2, "delivered": 2}


def test_a_buffered_message_whose_send_fails_fails_its_future(by_hand):
    """With the client's own error; it has had its chance."""
    client = client_with("buffer", "drop", quota=ONE_A_SECOND)
    _, future = publish(client, b"1", b"2")
    drain(client, 1.0)
    client.fail(TimeoutError("no answer"))
    assert isinstance(future.exception(0), TimeoutError)
    assert counts(client.shield.ledger()) == {"offered": 2, "failed": 2}


def test_a_send_that_cannot_begin_fails_its_future_and_charges_nothing(by_hand):
    """What it was charged is given back, so that the next one goes at once."""
    client = client_with(quota=ONE_A_SECOND)
    _, second, third = publish(client, b"1", b"2", b"3")
    client.missing.add("orders")
    shield_lines = client.shield.engine.lines
    drain(client, 1.0)
    assert isinstance(second.exception(0), ConnectionError)
    assert isinstance(third.exception(0), ConnectionError)
    assert not shield_lines
    assert counts(client.shield.ledger()) == {"offered": 3, "in_flight": 1, "failed": 2}


def test_a_drained_message_is_charged_once(by_hand):
    """Ten buffered messages take ten seconds at one a second, and then there is room for one."""
    client = client_with(quota=ONE_A_SECOND)
    publish(client, *(b"%d" % n for n in range(11)))
    for second in range(1, 11):
        drain(client, 1.0)
        assert len(client.unanswered) == 1 + second
    client.shield.clock.advance(1.0)
    publish(client, b"fits")
    assert len(client.unanswered) == 12
    assert sum(client.shield.ledger().over_limit.values()) == 10


def test_a_message_waits_for_a_place_in_flight(by_hand):
    """Woken by the answer that frees it."""
    client = client_with(in_flight={"messages": 1})
    publish(client, b"1", b"2", b"3")
    drain(client)
    assert sent(client) == [b"1"]
    client.ack()
    drain(client)
    assert sent(client) == [b"2"]
    client.ack()
    drain(client)
    assert sent(client) == [b"3"]


# --- in order -----------------------------------------------------------------------------------


def test_newcomers_do_not_overtake(by_hand):
    """While messages are kept, one that the quota would admit goes behind them."""
    client = client_with(quota=ONE_A_SECOND)
    publish(client, b"1", b"2", b"3")
    client.shield.clock.advance(1.0)
    assert shield.fate(client.publish("orders", b"4")) == "buffered"
    for _ in range(3):
        drain(client, 1.0)
    assert sent(client) == [b"1", b"2", b"3", b"4"]


def test_not_even_while_the_last_one_is_on_its_way_to_the_client(by_hand, monkeypatch):
    """It stands in line until the client has it."""
    client = client_with(quota={"rate": "1/s", "burst": 5})
    publish(client, *(b"%d" % n for n in range(6)))
    begin = client.begin

    def begin_late(record, answered):
        monkeypatch.setattr(client, "begin", begin)
        late.append(client.publish("orders", b"late"))  # there is room for five by now
        begin(record, answered)

    late: list = []
    monkeypatch.setattr(client, "begin", begin_late)
    drain(client, 10.0)
    assert sent(client)[-2:] == [b"5", b"late"]
    assert shield.fate(late[0]) == "buffered"


def test_who_waits_in_line_stays_behind_what_was_buffered_before(by_hand):
    """First come, first served, whether kept or waiting; a wait knows how long that will take."""
    client = client_with(quota=ONE_A_SECOND)
    publish(client, b"1", b"2", b"3", b"4")
    waits = over(client.shield)
    assert waits.retry_after_s == pytest.approx(4.0, abs=0.001)
    waiter = client.shield.engine.line_up(waits, lambda: None)
    publish(client, b"6")
    for _ in range(3):
        assert not isinstance(client.shield.engine.ask_again(waiter), shield.Permit)
        drain(client, 1.0)
    assert sent(client) == [b"1", b"2", b"3", b"4"]
    client.shield.clock.advance(1.0)
    drain(client)
    assert isinstance(client.shield.engine.ask_again(waiter), shield.Permit)
    drain(client, 1.0)
    assert sent(client)[-1] == b"6"


def test_one_producers_messages_do_not_hold_up_anothers(by_hand):
    """Nor those of one tenant another's, where each has a quota."""
    one = client_with(quota={**ONE_A_SECOND, "per": "header:tenant"})
    other = FakeClient(one.shield, "q")
    for tenant in ("a", "b"):
        publish(one, *[b"a"] * 3, headers={"tenant": tenant})
    publish(other, b"c", b"c", headers={"tenant": "c"})
    drain(one, 1.0)
    assert len(one.unanswered) == 4
    assert len(other.unanswered) == 2


def test_queues_that_share_a_quota_take_turns_as_they_came(by_hand):
    """Two destinations, one quota: the messages go in the order in which they were published."""
    client = client_with(quota=ONE_A_SECOND)
    for n in range(6):
        publish(client, b"%d" % n, destination="ab"[n % 2])
    for _ in range(5):
        drain(client, 1.0)
    assert sent(client) == [b"%d" % n for n in range(6)]


def test_a_large_queue_does_not_keep_others_waiting(by_hand):
    """When a quota opens wide, all queues have their turn."""
    gate = Gate.make()
    client = FakeClient(
        shield_with({"match": "*", "gate": {}, "over_limit": "buffer"}, plugins=gate)
    )
    publish(client, *[b"a"] * 250, destination="a")
    publish(client, b"b", destination="b")
    policy = client.shield.rules[0].policies[0]
    drain(client)
    policy.open = True
    drain_of(client.shield.clock).step()
    client.shield.engine.catch_up()
    drain_of(client.shield.clock).step()
    assert b"b" in sent(client)
    assert len(client.unanswered) < 250
    drain(client)
    assert len(client.unanswered) == 251


class Gate(Policy, Queues):
    """Admits nothing until it is opened, and then everything; each name is a line of its own."""

    open = False

    def check(self, message, now):
        return None if self.open else self.refuse("shut")

    def release(self, message, outcome, now):
        """So that those who wait are woken by answers."""

    def queue_key(self, message):
        return message.destination

    @classmethod
    def make(cls):
        return [Kinds({"gate": cls})]


# --- bounded ------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", ["buffer 2", {"buffer": {"messages": 2}}, {"buffer": 2}])
def test_it_is_bounded_in_messages(by_hand, link):
    """A full buffer declines; each message that is sent leaves a place."""
    client = client_with(link, "drop", quota=ONE_A_SECOND)
    fates = [shield.fate(future) for future in publish(client, *[b"x"] * 5)]
    assert fates == ["sent", "buffered", "buffered", "dropped", "dropped"]
    drain(client, 1.0)
    fates = [shield.fate(future) for future in publish(client, b"x", b"x")]
    assert fates == ["buffered", "dropped"]


@pytest.mark.parametrize("link", ["buffer 1KiB", {"buffer": {"bytes": 1024}}])
def test_it_is_bounded_in_bytes(by_hand, link):
    """Of bodies and keys; one larger than all of it is kept where nothing else is."""
    client = client_with(link, "drop", quota=ONE_A_SECOND)
    publish(client, b"")
    fates = [shield.fate(future) for future in publish(client, *[b"x" * 500] * 3)]
    assert fates == ["buffered", "buffered", "dropped"]
    for _ in range(2):
        drain(client, 1.0)
    assert shield.fate(client.publish("orders", b"x" * 5000, key=b"k")) == "buffered"


def test_a_message_that_finds_it_filled_meanwhile_goes_on(by_hand):
    """Two threads may see the last place; one has it, the other's message goes down the chain."""
    client = client_with("buffer 1", "drop", quota=ONE_A_SECOND)
    client.publish("orders", b"1")
    action = client.shield.rules[0].chain[0]
    step = action.step
    action.step = lambda over: (step(over), None)[0] or step_of_a_faster_thread
    _, step_of_a_faster_thread = None, step(over(client.shield))
    first, second = publish(client, b"2", b"3")
    assert (shield.fate(first), shield.fate(second)) == ("buffered", "dropped")
    assert second.result(0) is None


def test_what_will_never_be_admitted_is_not_kept(by_hand):
    """It goes on at once, and so does what turns out so while it is kept."""

    class Size(Policy):
        shut = False

        def check(self, message, now):
            return self.refuse("too large", float("inf")) if self.shut else None

    rules = [
        {"match": "*", "size": {}, "over_limit": ["buffer", "drop"]},
        {"match": "*", "quota": ONE_A_SECOND, "over_limit": ["buffer", "drop"]},
    ]
    client = FakeClient(shield_with(*rules, plugins=[Kinds({"size": Size})]))
    _, kept = publish(client, b"1", b"2")
    Size.shut = True
    drain(client, 1.0)
    assert shield.fate(kept) == "dropped"
    assert shield.fate(client.publish("orders", b"3")) == "dropped"
    assert not client.shield.engine.lines


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("buffer many", "found 'many'; allowed is a number of messages"),
        ("buffer 0", "messages: allowed is 1 or more"),
        ("buffer 1.5", "allowed is a number of messages"),
        ({"buffer": {"limit": 5, "bytes": "1MiB"}}, "limit alone, or messages and bytes"),
        ({"buffer": {"bytes": "1 elephant"}}, "bytes: not a size"),
    ],
)
def test_a_bound_that_is_none_is_refused(link, words):
    """One line that says what was found and what is allowed."""
    with pytest.raises(SettingsError) as caught:
        shield_with({"match": "*", "over_limit": [link]})
    (problem,) = caught.value.problems
    assert "rules[0].over_limit[0]" in problem
    assert words in problem


# --- closing ------------------------------------------------------------------------------------


def test_a_client_that_closes_hands_on_what_cannot_be_sent(by_hand):
    """In the order in which it was published, to the action behind the buffer."""
    client = client_with("buffer", "overflow later", quota=ONE_A_SECOND)
    futures = publish(client, *(b"%d" % n for n in range(4)))
    client.shield.engine.closing(client.transport, 0.0)
    assert [(r.destination, r.body) for r in client.unanswered[1:]] == [
        ("later", b"1"),
        ("later", b"2"),
        ("later", b"3"),
    ]
    assert {shield.fate(future) for future in futures[1:]} == {"overflowed"}
    client.ack()
    assert counts(client.shield.ledger()) == {"offered": 4, "delivered": 1, "overflowed": 3}
    assert not client.shield.engine.lines


def test_with_nothing_behind_the_buffer_its_messages_are_raised(by_hand):
    """From their futures, never lost."""
    client = client_with(quota=ONE_A_SECOND)
    _, future = publish(client, b"1", b"2")
    client.close()
    assert isinstance(future.exception(0), OverLimitError)
    assert shield.fate(future) == "raised"
    assert counts(client.shield.ledger()) == {"offered": 2, "failed": 1, "raised": 1}


def test_nobody_waits_behind_a_buffer(by_hand):
    """A closing client is not kept by a `wait` or `retry` of each of its messages."""
    client = client_with("buffer", "wait 1h", "retry 5", "drop", quota=ONE_A_SECOND)
    _, future = publish(client, b"1", b"2")
    client.close()
    assert shield.fate(future) == "dropped"
    assert client.shield.clock.waits == 0


def test_another_clients_messages_stay_where_they_are(by_hand):
    """Closing is about one client."""
    client = client_with(quota=ONE_A_SECOND)
    other = FakeClient(client.shield, "q")
    publish(client, b"1", b"2")
    publish(other, b"1", b"2")
    client.close()
    drain(client, 1.0)
    assert sent(other) == [b"1", b"2"]


def test_what_comes_after_closing_is_not_kept(by_hand):
    """It would wait for a client that is gone; it goes on in its chain instead."""
    client = client_with("buffer", "drop", quota=ONE_A_SECOND)
    client.close()
    _, late = publish(client, b"1", b"2")
    assert shield.fate(late) == "dropped"
    assert not client.shield.engine.lines


def test_what_comes_while_its_client_closes_goes_on_alone():
    """What was accepted before is sent, in the time that `close` has for it."""
    client = real_client("buffer", "drop", rate="100/s")
    accepted = publish(client, *[b"x"] * 60)
    late: list = []
    thread = threading.Timer(0.1, lambda: late.extend(publish(client, b"late", b"later")))
    thread.start()
    client.close(30.0)
    thread.join()
    assert [future.result(10).body for future in accepted] == [b"x"] * 60
    assert {shield.fate(future) for future in late} <= {"dropped", "sent"}
    ledger = client.shield.ledger()
    assert (ledger.delivered + ledger.dropped, ledger.in_flight, ledger.balanced) == (62, 0, True)
    assert not client.shield.engine.lines


@pytest.mark.parametrize("before", [0, 1, 5])
def test_one_that_is_kept_just_when_its_client_closes_goes_on_alone(by_hand, monkeypatch, before):
    """Those before it stay in line, and whoever stands for them asks for as many as there are."""
    client = client_with("buffer", "drop", quota=ONE_A_SECOND)
    publish(client, b"first")
    kept = publish(client, *[b"%d" % n for n in range(before)])
    keep = BufferSender.keep

    def keep_as_it_closes(self, message):
        queue = keep(self, message)
        action = message.action
        action._closed.add(client.transport)
        return queue

    monkeypatch.setattr(BufferSender, "keep", keep_as_it_closes)
    (late,) = publish(client, b"late")
    assert shield.fate(late) == "dropped"
    assert {shield.fate(future) for future in kept} <= {"buffered"}
    waiting = sum(
        waiter.messages for line in client.shield.engine.lines.values() for waiter in line
    )
    assert waiting == before
    for _ in range(before):
        drain(client, 1.0)
    assert sent(client) == [b"first", *(b"%d" % n for n in range(before))]
    assert not client.shield.engine.lines


def test_a_chain_goes_on_where_it_began():
    """Refused by one rule and then by another, a message goes on in the first one's chain."""
    rules = [
        {"name": "first", "match": "*", "quota": ONE_A_SECOND, "over_limit": ["buffer", "drop"]},
        {"name": "second", "match": "*", "in_flight": {"messages": 1}, "over_limit": "raise"},
    ]
    client = FakeClient(shield_with(*rules))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BufferSender, "_start", lambda self: None)
        _, future = publish(client, b"1", b"2")
        drain(client, 1.0)
        client.close()
    assert shield.fate(future) == "dropped"


# --- the thread ---------------------------------------------------------------------------------


def real_client(*chain, rate="100/s", burst=1, **more):
    """Return a client on the real clock."""
    rule = {
        "match": "*",
        "quota": {"rate": rate, "burst": burst},
        "over_limit": list(chain) or ["raise"],
    }
    return AnsweringClient(Shield({"rules": [rule]}), **more)


class AnsweringClient(FakeClient):
    """Its broker stores what it is sent at once."""

    def begin(self, record, answered):
        super().begin(record, answered)
        self.ack()


def buffer_threads():
    return [thread for thread in threading.enumerate() if thread.name == "shield-buffer"]


def until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.002)


def test_a_flush_waits_for_what_is_buffered():
    """Thirty messages at a hundred a second, one of burst: all there when it returns, in order."""
    client = real_client("buffer")
    began = time.monotonic()
    futures = publish(client, *(b"%d" % n for n in range(30)))
    client.flush(None)
    assert time.monotonic() - began > 0.25
    assert [future.result(0).body for future in futures] == [b"%d" % n for n in range(30)]
    assert [r.body for r in client.arrived["orders"]] == [b"%d" % n for n in range(30)]
    assert counts(client.shield.ledger()) == {"offered": 30, "delivered": 30}


def test_a_flush_ends_when_its_time_is_over():
    """The messages stay where they are."""
    client = real_client("buffer", "drop", rate="1/h")
    publish(client, b"1", b"2")
    began = time.monotonic()
    client.flush(0.05)
    assert 0.04 < time.monotonic() - began < 5
    assert client.shield.ledger().buffered == 1
    client.close()


def test_a_flush_does_not_wait_for_what_comes_later():
    """Another thread that goes on publishing does not keep it."""
    client = real_client("buffer", rate="50/s")
    publish(client, b"1", b"2", b"3")
    stop = threading.Event()

    def go_on():
        while not stop.is_set():
            client.publish("orders", b"later")
            time.sleep(0.001)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        client.flush(5.0)
        assert client.shield.ledger().buffered > 0
    finally:
        stop.set()
        thread.join()
        client.close()


def test_one_thread_drains_for_all_and_goes_when_nothing_is_kept():
    """It is there while there is something for it to do."""
    until(lambda: drain_of(SYSTEM_CLOCK)._thread is None)  # that of the test before
    others = buffer_threads()
    clients = [real_client("buffer", producer=f"p{n}") for n in range(5)]
    for client in clients:
        publish(client, *[b"x"] * 10)
    (thread,) = set(buffer_threads()) - set(others)
    for client in clients:
        client.flush(None)
    until(lambda: not thread.is_alive(), LINGER_S + 30)
    publish(clients[0], *[b"x"] * 10)
    clients[0].flush(None)
    assert clients[0].shield.ledger().delivered == 20


def test_closing_sends_what_it_can_in_its_time():
    """And hands on the rest, within that time."""
    client = real_client("buffer", "drop", rate="100/s")
    publish(client, *[b"x"] * 200)
    began = time.monotonic()
    client.close(1.0)
    took_s = time.monotonic() - began
    ledger = client.shield.ledger()
    assert 0.7 < took_s < 10
    assert ledger.delivered >= 20
    assert ledger.delivered + ledger.dropped == 200
    assert ledger.balanced


def test_closing_does_not_wait_for_what_cannot_come():
    """With an hour to wait and a minute given, all is handed on at once."""
    client = real_client("buffer", "drop", rate="1/h")
    publish(client, *[b"x"] * 5)
    began = time.monotonic()
    client.close(60.0)
    assert time.monotonic() - began < 10
    assert counts(client.shield.ledger()) == {"offered": 5, "delivered": 1, "dropped": 4}


@pytest.mark.parametrize("method", ["closing", "flush"])
def test_where_answers_come_in_nobody_waits(method):
    """Called from a future's callback it would wait for itself; it does what it can at once."""
    client = FakeClient(
        Shield({"rules": [{"match": "*", "in_flight": {"messages": 1}, "over_limit": "buffer"}]})
    )
    first, _ = publish(client, b"1", b"2")
    done = []
    end = getattr(client.shield.engine, method)
    first.add_done_callback(lambda _: done.append(end(client.transport, None)))
    client.ack(1)
    assert done
    until(lambda: client.shield.ledger().buffered == 0)
    client.close()
    assert client.shield.ledger().in_flight == 0


@pytest.mark.parametrize("method", ["closing", "flush"])
def test_on_the_thread_that_drains_nobody_waits(method):
    """A send that fails there runs its future's callbacks there."""
    client = real_client("buffer", "drop", rate="20/s")
    _, second, third = publish(client, b"1", b"2", b"3")
    client.missing.add("orders")
    threads = []

    def callback(_):
        threads.append(threading.current_thread().name)
        getattr(client.shield.engine, method)(client.transport, None)

    second.add_done_callback(callback)
    assert isinstance(second.exception(10), ConnectionError)
    until(third.done)
    assert threads == ["shield-buffer"]
    client.close()
    assert client.shield.ledger().balanced
    assert client.shield.ledger().in_flight == 0


def test_a_client_that_is_let_go_of_lives_until_its_messages_are_sent():
    """Nobody holds it any more but the buffer; its futures complete all the same."""
    client = real_client("buffer", rate="20/s")
    arrived, gone = client.arrived, weakref.ref(client)
    futures = publish(client, *[b"x"] * 5)
    del client
    gc.collect()
    assert gone() is not None
    assert [future.result(60).body for future in futures] == [b"x"] * 5
    assert len(arrived["orders"]) == 5
    del futures

    def is_gone():
        gc.collect()
        return gone() is None

    until(is_gone)


def test_many_threads_publish_flush_and_close_at_once():
    """No message is lost or counted twice, whatever comes in between."""
    client = real_client("buffer 500", "drop", rate="2000/s", burst=50)
    futures: list = []

    def go(number):
        for n in range(200):
            futures.append(client.publish("ab"[n % 2], b"%d" % number))
            if n % 50 == 0:
                client.flush(0.01)

    threads = [threading.Thread(target=go, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    client.close(0.1)
    for thread in threads:
        thread.join(60)
    until(lambda: all(future.done() for future in futures))
    ledger = client.shield.ledger()
    assert ledger.balanced
    assert (ledger.offered, ledger.in_flight, ledger.buffered) == (800, 0, 0)
    assert not client.shield.engine.lines


def test_a_drain_is_gone_with_its_clock():
    """Nothing keeps those of tests that are over."""
    client = client_with("buffer", "drop", quota=ONE_AN_HOUR)
    clock = weakref.ref(client.shield.clock)
    publish(client, b"1")
    client.close()
    del client
    gc.collect()
    assert clock() is None


def test_what_could_not_be_set_aside_is_not_aside():
    """An overflow that cannot begin has set nothing aside: policies hear of that."""

    class Watching(Policy, FollowsDiversion):
        aside = 0

        def check(self, message, now):
            return self.refuse("odd")

        def on_diverted(self, message):
            self.aside += 1

        def on_returned(self, message):
            self.aside -= 1

    rule = {"match": "*", "watching": {}, "over_limit": ["overflow nowhere", "drop"]}
    client = FakeClient(shield_with(rule, plugins=[Kinds({"watching": Watching})]))
    client.missing.add("nowhere")
    action_saw = []
    chain = client.shield.rules[0].chain
    drop = chain[1].step
    chain[1].step = lambda over: (action_saw.append(over.message.aside), drop(over))[1]
    client.publish("orders", b"1")
    assert action_saw == [False]
    assert client.shield.rules[0].policies[0].aside == 0


class Slow(Policy, Paces):
    """Admits one a second, and wants each held back for as long as its header says."""

    def delay_s(self, message, now):
        return float(message.header("delay") or 0.0)

    def check(self, message, now):
        return None


def test_a_message_that_is_held_back_holds_up_no_other_queue(by_hand):
    """What a policy wants delayed is sent when that is over; meanwhile others go."""
    rule = {"match": "*", "quota": ONE_A_SECOND, "slow": {}, "over_limit": "buffer"}
    one = FakeClient(shield_with(rule, plugins=[Kinds({"slow": Slow})]), "p")
    other = FakeClient(one.shield, "q")
    publish(one, b"1")
    publish(other, b"1")
    publish(one, b"2", headers={"delay": "5"})
    publish(one, b"3")
    publish(other, b"2", b"3")
    for _ in range(3):
        drain(one, 1.0)
    assert sent(one) == [b"1"]
    assert sent(other) == [b"1", b"2", b"3"]
    assert shield.fate(one.publish("orders", b"4")) == "buffered"
    drain(one, 3.1)
    assert sent(one) == [b"1", b"2", b"3"]
    assert one.shield.clock.waits == 0


def test_what_is_held_back_when_its_client_closes_is_sent(by_hand):
    """It is admitted; only those behind it go on."""
    rule = {"match": "*", "quota": ONE_A_SECOND, "slow": {}, "over_limit": ["buffer", "drop"]}
    client = FakeClient(shield_with(rule, plugins=[Kinds({"slow": Slow})]))
    publish(client, b"1")
    publish(client, b"2", headers={"delay": "50"})
    (behind,) = publish(client, b"3")
    drain(client, 1.0)
    client.shield.engine.closing(client.transport, 0.0)
    assert shield.fate(behind) == "dropped"
    drain(client)
    assert sent(client) == [b"1", b"2"]
    assert not client.shield.engine.lines
