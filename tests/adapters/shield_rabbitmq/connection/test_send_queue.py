"""The write thread's queue where messages are shed that wait too long in it."""

from __future__ import annotations

import threading
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shield import End, Message, OverLimit, Permit, Refusal, Shield, Signals
from shield.testing import ManualClock
from shield_rabbitmq.client.frames import Frames
from shield_rabbitmq.connection.pending_publish import Confirm, PendingPublish
from shield_rabbitmq.connection.send_queue import SendQueue
from shield_rabbitmq.publishing.sender import Sheddable

RULES = [
    {"name": "strict", "match": "calls.*", "queue_delay": {}, "over_limit": "drop"},
    {"name": "loose", "match": "mails.*", "queue_delay": {"target": "1s", "interval": "10s"}},
]


class Plain(PendingPublish):
    """One that no policy watches."""

    def finish(self, error: Exception | None) -> None:
        """Nothing to do."""


class Scene:
    """A queue, the Shield over it, and a clock that the test moves."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.shield = Shield({"rules": RULES}, clock=self.clock)
        self.signals = Signals(self.clock.now)
        self.waiting = SendQueue(self.signals)

    def put(self, destination: str, *bodies: bytes) -> None:
        for body in bodies:
            frames = Frames("", destination, body, None, True)
            verdict = self.shield.admit(Message(destination, len(body), signals=self.signals))
            assert isinstance(verdict, Permit)
            self.waiting.append(Sheddable(frames, verdict, Confirm(), None, None))  # type: ignore[arg-type]

    def put_plain(self, *bodies: bytes) -> None:
        for body in bodies:
            self.waiting.append(Plain(Frames("", "others", body, None, True)))

    def next(self, many: int = 1) -> list[bytes]:
        return [self.waiting.next().frames.body for _ in range(many)]

    def refused(self) -> list[bytes]:
        return [sending.frames.body for sending, _ in self.waiting.refused()]

    def stall(self, seconds: float) -> None:
        """Let time pass in which nothing can be written."""
        for _ in range(int(seconds / 0.02)):
            self.waiting.look()
            self.clock.advance(0.02)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_while_nothing_stands_it_is_one_queue(scene):
    """First in, first out, whoever watches which."""
    scene.put("calls.a", b"1")
    scene.put_plain(b"2")
    scene.put("mails.a", b"3")
    scene.put("calls.b", b"4")
    assert len(scene.waiting) == 4
    assert scene.next(4) == [b"1", b"2", b"3", b"4"]
    with pytest.raises(IndexError):
        scene.waiting.next()
    assert not scene.waiting


def test_what_waits_too_long_in_a_stall_is_put_by(scene):
    """By the rule's own times, while no message leaves; what no rule watches stays."""
    scene.put("calls.a", b"1", b"2")
    scene.put("mails.a", b"3")
    scene.put_plain(b"4")
    scene.stall(0.1)
    assert scene.refused() == []
    scene.stall(0.24)
    assert scene.refused() == [b"1", b"2"]
    assert scene.refused() == []
    scene.stall(20.0)
    assert scene.refused() == [b"3"]
    assert scene.next() == [b"4"]


def test_after_a_stall_the_newest_goes_first(scene):
    """What is too old is put by, and of the rest the newest is written first."""
    scene.put("calls.a", b"old")
    scene.stall(0.24)
    scene.put("calls.a", b"1", b"2", b"3")
    assert scene.next() == [b"3"]
    assert scene.refused() == [b"old"]
    assert scene.signals.queue_s == 0.0
    scene.clock.advance(0.004)
    assert scene.next(2) == [b"2", b"1"]
    assert scene.signals.queue_s == pytest.approx(0.004)


def test_those_that_nobody_watches_keep_their_order_and_their_turns(scene):
    """Beside a lane that stands: neither is held up by the other."""
    scene.put("calls.a", b"old")
    scene.put_plain(b"a", b"b", b"c")
    scene.stall(0.24)
    scene.put("calls.a", b"1", b"2")
    scene.put_plain(b"d")
    assert scene.next() == [b"2"]  # the turn of the old one
    assert scene.next(5) == [b"a", b"b", b"c", b"1", b"d"]


def test_what_was_written_before_goes_first_and_is_not_shed(scene):
    """It is sent again after a connection was lost."""
    scene.put("calls.a", b"1", b"2")
    written = [scene.waiting.next(), scene.waiting.next()]
    scene.put("calls.a", b"3")
    scene.waiting.extendleft(reversed(written))
    assert len(scene.waiting) == 3
    scene.stall(0.3)
    assert scene.refused() == [b"3"]
    assert scene.next(2) == [b"1", b"2"]


def test_at_the_end_all_come_out(scene):
    """Also what was put by and not yet handed on."""
    scene.put("calls.a", b"1")
    scene.stall(0.24)
    scene.put("calls.a", b"2")
    scene.put_plain(b"3")
    assert {scene.waiting.popleft().frames.body for _ in range(3)} == {b"1", b"2", b"3"}
    with pytest.raises(IndexError):
        scene.waiting.popleft()


def test_a_refused_message_goes_on_in_its_chain(scene):
    """With the refusal that put it by."""
    scene.put("calls.a", b"1")
    scene.stall(0.3)
    ((sending, refusal),) = scene.waiting.refused()
    assert isinstance(refusal, Refusal)
    over = sending._permit.refuse(refusal)
    assert isinstance(over, OverLimit)
    over.end(End.DROPPED)
    assert scene.shield.ledger().dropped == 1
    assert scene.shield.ledger().balanced


STEPS = st.lists(
    st.one_of(
        st.sampled_from(["calls.a", "mails.a", "others"]),
        st.just("next"),
        st.just("look"),
        st.just("back"),
        st.sampled_from([0.001, 0.02, 0.3]),
    ),
    max_size=80,
)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_whatever_happens_each_message_comes_out_once(steps):
    """Written, put by, or left at the end; the unwatched ones in their order."""
    scene = Scene()
    put: list[bytes] = []
    out: list[bytes] = []
    last: deque[PendingPublish] = deque()
    for number, step in enumerate(steps):
        if isinstance(step, float):
            scene.clock.advance(step)
        elif step == "next":
            if scene.waiting:
                try:
                    last.append(scene.waiting.next())
                except IndexError:
                    assert not scene.waiting
        elif step == "look":
            scene.waiting.look()
            out += scene.refused()
        elif step == "back":
            scene.waiting.extendleft(reversed(last))
            last.clear()
        else:
            body = b"%s %d" % (step.encode(), number)
            put.append(body)
            if step == "others":
                scene.put_plain(body)
            else:
                scene.put(step, body)
    out += [sending.frames.body for sending in last]
    while True:
        try:
            out.append(scene.waiting.popleft().frames.body)
        except IndexError:
            break
    assert sorted(out) == sorted(put)
    assert len(scene.waiting) == 0


def test_many_threads_may_put_while_one_takes(scene):
    """None is lost, and none comes twice."""
    threads = [
        threading.Thread(target=scene.put, args=("mails.a", *(b"%d" % n for n in range(k, 800, 8))))
        for k in range(8)
    ]
    for thread in threads:
        thread.start()
    taken: list[bytes] = []
    while len(taken) < 800:
        try:
            taken.append(scene.waiting.next().frames.body)
        except IndexError:
            assert any(thread.is_alive() for thread in threads) or scene.waiting
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(b"%d" % n for n in range(800))
