"""A program of shielded channels alone is a client to what is kept, as one with a Publisher."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from shield import Action, Engine, Shield, Source, StrictModel, Transport, hookimpl
from shield.testing import ManualClock
from shield_rabbitmq import shielded
from shield_rabbitmq.publishing import relay_pool
from tests.adapters.shield_rabbitmq.wire import Wire


class Keeper(Action):
    """Keeps nothing, and notes which clients came and went."""

    Settings = StrictModel
    seen: list[str]

    def step(self, over: object) -> None:
        return None

    def opened(self, client: Transport, engine: Engine) -> None:
        Keeper.seen.append(client.origin)

    def closing(self, client: Transport, timeout_s: float | None) -> None:
        Keeper.seen.append("closing")
        Keeper.gone.set()

    gone: threading.Event

    @staticmethod
    @hookimpl
    def shield_actions() -> dict[str, type[Action]]:
        return {"keeper": Keeper, "elsewhere": Elsewhere}


class Elsewhere(Action):
    """Says how its messages come back."""

    Settings = StrictModel
    sets_aside, returns = True, False

    def step(self, over: object) -> None:
        return None

    def way_back(self, client: Transport) -> Source:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def seen() -> Iterator[None]:
    Keeper.seen, Keeper.gone = [], threading.Event()
    yield
    relay_pool._forget()


def shield_of(*chain: str, **more: object) -> Shield:
    one = {"match": "*", "quota": "1/h", "over_limit": [*chain] or ["raise"], **more}
    return Shield({"rules": [one]}, clock=ManualClock(), plugins=[Keeper])


def test_what_is_kept_hears_of_a_shielded_channel():
    """Before anything is published; what an earlier program has left comes back through it."""
    shielded(Wire().channel(), shield=shield_of("keeper", "drop"))
    assert Keeper.seen == ["amqp://localhost:1/"]


def test_what_is_kept_hears_of_a_function_with_a_channel():
    """Once it runs; for all functions and channels of one connection together."""
    wire, chosen = Wire(), shield_of("keeper", "drop")

    @shielded(shield=chosen)
    def publish(channel: object) -> None: ...

    assert Keeper.seen == []
    for _ in range(3):
        publish(wire.channel())
    assert len(Keeper.seen) == 1


def test_what_is_kept_hears_of_the_connections_end():
    """As of a Publisher's: what it keeps of that client has its end."""
    wire = Wire()
    shielded(wire.channel(), shield=shield_of("keeper", "drop"))
    wire.callbacks.process(0, "closed", wire, wire)
    assert Keeper.gone.wait(10)


def test_what_overflowed_comes_back_in_a_program_of_channels():
    """With `redrive = "auto"`, also where all that it does is to consume."""
    rule = shield_of("elsewhere", "drop", redrive="auto")
    shielded(Wire().channel(), shield=rule)
    assert len(relay_pool._relays) == 1


def test_where_nothing_comes_back_there_is_no_relay():
    """It is made when something leaves, and not before."""
    shielded(Wire().channel(), shield=shield_of("elsewhere", "drop"))
    assert relay_pool._relays == []
