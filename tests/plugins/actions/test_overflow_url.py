"""`overflow URL`: another place takes the message, and where it does not, the chain goes on."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref

import pytest

import shield as core
from shield import DeliveryUnknownError, OverLimitError, SettingsError, Shield, ShieldError
from shield.config.transports import Transports
from shield.testing import AdmitNothing, FakeClient
from tests.making import counts, shield_with


class Place(core.Transport):
    """A place whose sends a test answers by hand, on any thread."""

    scheme = "place"
    form = "place://host/name"
    made: list[Place] = []

    def __init__(self, url: core.URL) -> None:
        self.url = url
        self.origin = f"place://{url.hosts}"
        self.roams = not url.path
        self.sends: list = []
        self.closed_within_s: float | None = None
        Place.made.append(self)

    @classmethod
    def to(cls, url):
        if url.hosts == "refused":
            raise ValueError("refused is no host; allowed is any other")
        return cls(url)

    def send(self, envelope, done):
        if self.url.hosts == "raises":
            raise RuntimeError("a broken plugin")
        if self.url.hosts == "down":
            done(ShieldError("down"))
            return
        self.sends.append((envelope, done))

    def answer(self, error: Exception | None = None) -> None:
        """Answer all sends on a thread, as transports do."""
        sends, self.sends = self.sends, []
        thread = threading.Thread(target=lambda: [done(error) for _, done in sends])
        thread.start()
        thread.join(60)
        assert not thread.is_alive()

    def close(self, timeout_s):
        self.closed_within_s = timeout_s
        self.answer(ShieldError("closed"))


class Plugin:
    @staticmethod
    @core.hookimpl
    def shield_transports():
        return {"place": Place}


@pytest.fixture(autouse=True)
def made():
    Place.made = []
    return Place.made


def shield_to(*chain, **settings) -> Shield:
    rule = {
        "name": "orders",
        "match": "orders",
        "admit_nothing": {},
        "over_limit": list(chain) or ["raise"],
    }
    return shield_with(rule, plugins=[AdmitNothing, Plugin], **settings)


def problem_of(*chain) -> str:
    with pytest.raises(SettingsError) as caught:
        shield_to(*chain)
    (problem,) = caught.value.problems
    return problem


# --- sending ------------------------------------------------------------------------------------


def test_a_message_over_the_limit_goes_to_the_other_place(made):
    """Whole, with where it was going; its future completes when it is there."""
    shield = shield_to("overflow place://host/name", "raise")
    future = FakeClient(shield).publish("orders", b"body", b"key")
    (place,) = made
    ((envelope, _),) = place.sends
    assert (envelope.destination, envelope.body, envelope.key) == ("orders", b"body", b"key")
    assert envelope.restored().destination == "orders"
    assert dict(envelope.marks)["shield-rule"] == "orders"
    assert counts(shield.ledger()) == {"offered": 1, "in_flight": 1}
    assert not future.done()
    place.answer()
    assert future.result(0) is None
    assert core.fate(future) == "overflowed"
    assert counts(shield.ledger()) == {"offered": 1, "overflowed": 1}


def test_where_the_other_place_fails_the_chain_goes_on(made):
    """Each failure, on the place's thread, to the message's end."""
    shield = shield_to("overflow place://host/name", "overflow elsewhere", "raise")
    client = FakeClient(shield)
    future = client.publish("orders", b"body")
    made[0].answer(ShieldError("full"))
    client.fail()
    with pytest.raises(OverLimitError):
        future.result(0)
    assert core.fate(future) == "raised"
    assert counts(shield.ledger()) == {"offered": 1, "raised": 1}


def test_a_send_whose_fate_is_unknown_ends_there(made):
    """What the chain did then might be done twice."""
    shield = shield_to("overflow place://host/name", "drop")
    future = FakeClient(shield).publish("orders", b"body")
    made[0].answer(DeliveryUnknownError("lost"))
    assert isinstance(future.exception(0), DeliveryUnknownError)
    assert counts(shield.ledger()) == {"offered": 1, "failed": 1}


def test_a_place_that_is_down_is_passed_at_once():
    """The answer comes before `send` returns; the bound is free again."""
    shield = shield_to({"overflow": {"destination": "place://down/name", "messages": 1}}, "drop")
    client = FakeClient(shield)
    fates = [core.fate(client.publish("orders", b"body")) for _ in range(5)]
    assert fates == ["dropped"] * 5
    assert counts(shield.ledger()) == {"offered": 5, "dropped": 5}


def test_a_transport_that_raises_has_failed():
    """It is counted as a plugin's error, and nothing is lost or held."""
    shield = shield_to({"overflow": {"destination": "place://raises/x", "messages": 1}}, "drop")
    client = FakeClient(shield)
    for _ in range(3):
        client.publish("orders", b"body")
    assert counts(shield.ledger()) == {"offered": 3, "dropped": 3}
    assert sum(shield.plugin_errors.values()) == 3


def test_a_transport_that_answers_twice_is_heard_once(made):
    """The bound does not become wider by it."""
    shield = shield_to({"overflow": {"destination": "place://host/x", "messages": 1}}, "drop")
    client = FakeClient(shield)
    client.publish("orders", b"1")
    ((_, done),) = made[0].sends
    done(None)
    done(None)
    made[0].sends.clear()
    fates = [core.fate(client.publish("orders", b"body")) for _ in range(3)]
    assert fates == ["overflowed", "dropped", "dropped"]
    assert shield.ledger().balanced


def test_beyond_its_bound_it_declines(made):
    """So many may be unanswered."""
    shield = shield_to({"overflow": {"destination": "place://host/x", "messages": 2}}, "drop")
    client = FakeClient(shield)
    fates = [core.fate(client.publish("orders", b"body")) for _ in range(3)]
    assert fates == ["overflowed", "overflowed", "dropped"]


def test_a_chain_never_waits_on_the_thread_that_answers(made):
    """It would wait for its own answers: `wait` declines there, for callbacks as well."""
    rule = {"match": "*", "quota": {"rate": "1/h", "burst": 1}}
    rule["over_limit"] = ["overflow place://host/name", "wait 2h", "drop"]
    shield = shield_with(rule, plugins=[Plugin])
    client = FakeClient(shield)
    client.publish("orders", b"admitted")
    future = client.publish("orders", b"body")
    inner = []
    future.add_done_callback(lambda _: inner.append(client.publish("orders", b"from a callback")))
    made[0].answer(ShieldError("full"))
    assert core.fate(future) == "dropped"
    made[0].answer(ShieldError("full"))
    assert core.fate(inner[0]) == "dropped"


# --- loading ------------------------------------------------------------------------------------


def test_rules_share_what_sends_to_one_url(made):
    """Two rules with one URL, and one with another."""
    rules = [
        {"name": name, "match": name, "over_limit": f"overflow place://host/{place}"}
        for name, place in (("a", "x"), ("b", "x"), ("c", "y"))
    ]
    shield = shield_with(*rules, plugins=[Plugin])
    assert [str(place.url) for place in made] == ["place://host/x", "place://host/y"]
    assert shield.rules[0].chain[0]._transport is shield.rules[1].chain[0]._transport


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("overflow plce://host/x", "unknown scheme 'plce'; did you mean 'place'?"),
        ("overflow place://refused/x", "refused is no host"),
        ("overflow place://host", "names no place on that broker; allowed is place://host/name"),
        ("overflow place://${NOT_SET}/x", "the environment variable NOT_SET that it names"),
        ("overflow place://ho st/x", "its host cannot be made out"),
    ],
)
def test_an_impossible_url_is_one_line_with_its_key(link, expected):
    """Where it stands, what was found, what is allowed."""
    problem = problem_of(link)
    assert problem.startswith("settings: rules[0].over_limit")
    assert expected in problem


@pytest.mark.parametrize(
    "link",
    [
        "overflow plce://bob:canary@host/x",
        "overflow place://bob:canary@refused/x",
        "overflow place://bob:canary@host",
        "overflow place://bob:can/ary@host/x",
        "overflow place://bob:can#ary@host/x",
        "overflow place://bob:canary@ho st/x",
        "overflow place://bob:canary@host/${NOT_SET}",
        "overflw place://bob:canary@host/x",
        "place://bob:canary@host/x",
        {"overflow": {"destination": "place://bob:canary@host/x", "message": 1}},
        {"overflow": {"destination": "place://bob:canary@host/x", "messages": 0}},
        {"overflow": ["place://bob:canary@host/x"]},
        {"overflow": "place://bob:canary@host/x", "drop": {}},
        ["overflow place://bob:canary@host/x"],
    ],
    ids=str,
)
def test_no_error_shows_a_password(link):
    """Whatever is wrong, and wherever the password ends."""
    problem = problem_of(link)
    assert "canary" not in problem
    assert "can/" not in problem
    assert "ary" not in problem.replace("necessary", "")


def test_nothing_that_is_printed_shows_a_password(made, monkeypatch):
    """Settings, actions, the transport's URL, the headers."""
    monkeypatch.setenv("SECRET", "canary")
    shield = shield_to("overflow place://bob:${SECRET}@host/x", "overflow place://a:canary@host/y")
    assert made[0].url.password == "canary"
    client = FakeClient(shield)
    client.publish("orders", b"body")
    ((envelope, _),) = made[0].sends
    action = shield.rules[0].chain[0]
    shown = (shield.settings, shield.rules, vars(action), envelope, made[0].url)
    assert "canary" not in repr(shown)


# --- closing ------------------------------------------------------------------------------------


def test_flush_waits_for_what_is_on_its_way(made):
    """And goes on when it has its answer, or when the time is over."""
    shield = shield_to("overflow place://host/x")
    client = FakeClient(shield)
    client.publish("orders", b"body")
    began = time.monotonic()
    shield.engine.flush(client.transport, 0.05)
    assert time.monotonic() - began >= 0.05
    threading.Timer(0.05, made[0].answer).start()
    shield.engine.closing(client.transport, 10)
    assert counts(shield.ledger()) == {"offered": 1, "overflowed": 1}


def test_who_waits_goes_on_only_when_the_chain_has_gone_on(made):
    """A client that closes then has what a failed send has handed on to it."""
    shield = shield_to("overflow place://host/x", "overflow elsewhere", "raise")
    client = FakeClient(shield)
    client.publish("orders", b"body")
    begin, seen = client.begin, []
    waiting = threading.Thread(
        target=lambda: (shield.engine.closing(client.transport, 10), seen.append("closed"))
    )

    def slow(record, answered):
        time.sleep(0.1)
        seen.append("sent on")
        begin(record, answered)

    client.begin = slow
    waiting.start()
    made[0].answer(ShieldError("full"))
    waiting.join(60)
    assert seen == ["sent on", "closed"]


def test_a_flush_on_the_thread_that_answers_does_not_wait(made):
    """It would wait for itself: sends behind this one are answered on that thread."""
    shield = shield_to("overflow place://host/x")
    client = FakeClient(shield)
    first = client.publish("orders", b"1")
    client.publish("orders", b"2")
    first.add_done_callback(lambda _: shield.engine.flush(client.transport, None))
    made[0].answer()
    assert counts(shield.ledger()) == {"offered": 2, "overflowed": 2}


def test_what_sends_is_closed_when_the_shield_goes(made):
    """On a thread of its own; a message under way keeps its Shield."""
    shield = shield_to("overflow place://host/x")
    client = FakeClient(shield)
    client.publish("orders", b"body")
    alive = weakref.ref(shield)
    del shield, client
    gc.collect()
    assert alive() is not None
    made[0].answer()
    gc.collect()
    assert alive() is None
    deadline = time.monotonic() + 5
    while made[0].closed_within_s is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert made[0].closed_within_s is not None


def test_closing_ends_what_is_under_way(made):
    """It fails, the chain goes on, the ledger counts it; later messages pass as well."""
    shield = shield_to("overflow place://host/x", "drop")
    client = FakeClient(shield)
    future = client.publish("orders", b"body")
    transports: Transports = shield.rules[0].transport.__self__
    transports.close(1.0)
    assert core.fate(future) == "dropped"
    assert counts(shield.ledger()) == {"offered": 1, "dropped": 1}


SCRIPT = """
import os, sys
from shield import Shield
from shield.testing import AdmitNothing, FakeClient
rule = {"match": "*", "admit_nothing": {}, "over_limit": f"overflow file://{sys.argv[1]}"}
shield = Shield({"rules": [rule]}, plugins=[AdmitNothing])
client = FakeClient(shield)
"""


def run(script: str, path: object) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", "-c", SCRIPT + script, str(path)],
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr
    return done.stdout


def test_a_process_that_ends_sends_what_is_under_way(tmp_path):
    """Nobody has called flush or close."""
    run("""for number in range(1000): client.publish("orders", b"%d" % number)""", tmp_path / "f")
    assert len((tmp_path / "f").read_text().splitlines()) == 1000


def test_a_forked_child_makes_its_own(tmp_path):
    """Parent and child write on, each through a transport of its own; the URL is read once."""
    run(
        """
client.publish("orders", b"before").result(60)
child = os.fork()
client.publish("orders", b"after").result(60)
shield.engine.flush(client.transport, 10)
if child == 0:
    assert shield.ledger().overflowed == 1, shield.ledger()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert shield.ledger().overflowed == 2, shield.ledger()
""",
        tmp_path / "f",
    )
    assert len((tmp_path / "f").read_text().splitlines()) == 3


def test_a_fork_needs_no_environment(monkeypatch, made):
    """What a URL named is known already when the variable is gone."""
    monkeypatch.setenv("HOST_OF_A_PLACE", "host")
    shield = shield_to("overflow place://${HOST_OF_A_PLACE}/x")
    monkeypatch.delenv("HOST_OF_A_PLACE")
    shield.engine.begin_anew()
    assert [str(place.url) for place in made] == ["place://host/x"] * 2
