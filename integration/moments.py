"""Chains that end in overflow, spool and redrive, and what happens to them at random moments."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from integration.brokers import Broker, create_topic
from integration.moments_worker import KEY
from integration.proxy import Proxy
from integration.queues import Queues
from integration.reading import read
from integration.redriving import command, run
from integration.test_transports import amqp_url
from tests.eventually import eventually

FREEZE = "freeze the broker"
FAULTS = ("kill", "stop", FREEZE, "cut", "restart the broker")
ACTORS = ("worker", "worker", "redrive of the overflow", "redrive of the spool")
LONGEST_LIFE_S, LONGEST_STOP_S = 1.5, 3.0
Arrived = tuple[bytes, str | None]
"""Body and id of a message at its destination; no id where it went straight there."""


@dataclass(frozen=True)
class Moment:
    """Who is at work, for how long from when it is seen to work, and what happens then."""

    actor: str
    after_s: float
    fault: str
    lasting_s: float


def schedule(seed: int, moments: int) -> list[Moment]:
    """As many of each fault as of any other, in an order, and at times, that the seed gives.

    The first is a broker that is frozen under the worker for long enough: then the overflow is at
    its bound, and messages go to the spool.
    """
    chance = random.Random(seed)
    faults = [FAULTS[number % len(FAULTS)] for number in range(moments)]
    faults.remove(FREEZE)
    chance.shuffle(faults)
    return [
        Moment("worker", chance.uniform(0, LONGEST_LIFE_S), FREEZE, LONGEST_STOP_S),
        *(
            Moment(
                chance.choice(ACTORS),
                chance.uniform(0, LONGEST_LIFE_S),
                fault,
                chance.uniform(0, LONGEST_STOP_S),
            )
            for fault in faults
        ),
    ]


class Chain(ABC):
    """Where messages are sent, through a proxy that can be cut, and what is there in the end."""

    def __init__(self, broker: Broker, proxy: Proxy, folder: Path) -> None:
        self.broker, self.proxy, self.folder = broker, proxy, folder
        self.spool = folder / "sender+orders.spool"

    destination: str
    overflow: str
    source: str
    """The URL of the overflow place, for redrive."""

    @property
    @abstractmethod
    def by_proxy(self) -> str:
        """The broker's address for clients."""

    @abstractmethod
    def arrived(self) -> list[Arrived]:
        """All that is at the destination, seen by who knows nothing of Shield."""

    @abstractmethod
    def left(self) -> int:
        """How many are in the overflow place."""


class KafkaChain(Chain):
    """Topics."""

    def __init__(self, broker: Broker, proxy: Proxy, folder: Path) -> None:
        super().__init__(broker, proxy, folder)
        self.destination, self.overflow = (create_topic(broker.address, 2) for _ in range(2))
        self.source = f"kafka://{self.by_proxy}/{self.overflow}"

    @property
    def by_proxy(self) -> str:
        return f"127.0.0.1:{self.proxy.port}"

    def arrived(self) -> list[Arrived]:
        records = read(self.broker.address, self.destination)
        ids = [dict(record.headers).get("shield-message-id") for record in records]
        return [(r.value, its and its.decode()) for r, its in zip(records, ids, strict=True)]

    def left(self) -> int:
        return 0  # a topic keeps what a group has read


class RabbitMQChain(Chain):
    """Exchanges with a queue each, of that type."""

    def __init__(self, broker: Any, proxy: Proxy, folder: Path, **arguments: Any) -> None:
        super().__init__(broker, proxy, folder)
        with Queues(broker.address) as queues:
            self.destination, self.overflow = queues.exchange(), queues.exchange("fanout")
            self._queue = queues.queue(self.destination, KEY, **arguments)
            self._aside = queues.queue(self.overflow, "", **arguments)
        broker.save_declared()
        self.source = amqp_url(self.by_proxy, self._aside)

    @property
    def by_proxy(self) -> str:
        return self.proxy.url

    def arrived(self) -> list[Arrived]:
        with Queues(self.broker.address) as queues:
            stored = queues.take(self._queue)
        return [(m.body, (m.properties.headers or {}).get("shield-message-id")) for m in stored]

    def left(self) -> int:
        with Queues(self.broker.address) as queues:
            return queues.depth(self._aside)


# --- what happens -------------------------------------------------------------------------------


@dataclass
class Story:
    """One chain through all its moments: one process at a time works on it."""

    chain: Chain
    counts: Counter[str] = field(default_factory=Counter)
    """What happened how often: `worker: cut`."""
    _name: str = ""
    _process: subprocess.Popen[bytes] | None = None

    def live(self, moments: Sequence[Moment]) -> None:
        """Let it all happen; then bring all back that was set aside."""
        try:
            for moment in moments:
                self._have(moment.actor)
                time.sleep(moment.after_s)
                self._befall(moment)
                self.counts[f"{self._name}: {moment.fault}"] += 1
        finally:
            self._end()

    def bring_back(self) -> dict[str, Any]:
        """Redrive the spool and the overflow place to their ends."""
        return {where: run(where) for where in (str(self.chain.spool), self.chain.source)}

    def _have(self, actor: str) -> None:
        """Have this process at work, and no other; one that has ended by itself begins again."""
        if actor == "redrive of the spool" and not self.chain.spool.exists():
            actor = "worker"
        if self._is_alive and self._name == actor:
            return
        self._end()
        self._name = actor
        output = self.chain.folder / "output"
        tells = self.chain.folder / "accepted" if actor == "worker" else output
        before = size_of(tells)
        with output.open("a") as file:
            self._process = subprocess.Popen(
                self._command(actor), stdout=file, stderr=subprocess.STDOUT
            )
        eventually(lambda: size_of(tells) > before or not self._is_alive)
        assert self._is_alive or actor != "worker", output.read_text()

    @property
    def _is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _command(self, actor: str) -> list[str]:
        chain = self.chain
        if actor == "worker":
            of = chain.by_proxy, chain.destination, chain.overflow, str(chain.folder)
            return [sys.executable, "-m", "integration.moments_worker", *of]
        of_spool = actor == "redrive of the spool"
        return command(str(chain.spool) if of_spool else chain.source, "--rate", "500/s")

    def _befall(self, moment: Moment) -> None:
        broker = self.chain.broker
        match moment.fault:
            case "kill":
                self._end()
            case "stop":
                self._signal(signal.SIGSTOP)
                time.sleep(moment.lasting_s)
                self._signal(signal.SIGCONT)
            case "freeze the broker":
                broker.pause()
                time.sleep(moment.lasting_s)
                broker.resume()
            case "cut":
                self.chain.proxy.cut()
            case _:
                broker.kill()
                broker.restart()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _end(self) -> None:
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


def size_of(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


# --- the account --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Account:
    """What became of each message."""

    accepted: dict[bytes, str]
    """The fate that its caller was told."""
    ids: dict[bytes, list[str | None]]
    """The ids of each message's copies at the destination."""

    @classmethod
    def of(cls, chain: Chain) -> Account:
        """Read the worker's notes, and the destination."""
        ids = defaultdict(list)
        for body, its in chain.arrived():
            ids[body].append(its)
        return cls(dict(_notes(chain.folder / "accepted")), ids)

    @property
    def lost(self) -> list[tuple[bytes, str]]:
        """Those that were accepted, and never arrived."""
        return [(body, fate) for body, fate in self.accepted.items() if body not in self.ids]

    @property
    def anonymous_copies(self) -> list[bytes]:
        """Those of which there are more than one that no one id tells for the same message."""
        return [
            body
            for body, its in self.ids.items()
            if len(its) > 1 and (len(set(its)) > 1 or not its[0])
        ]

    def __str__(self) -> str:
        fates = Counter(self.accepted.values())
        twice = Counter(
            self.accepted.get(body, "unknown") for body, its in self.ids.items() if len(its) > 1
        )
        unknown = sum(body not in self.accepted for body in self.ids)
        return (
            f"accepted {dict(fates)}; arrived {len(self.ids)}, of them {unknown} whose caller was "
            f"told nothing; more than once {dict(twice)}; lost {len(self.lost)}"
        )


def _notes(file: Path) -> Iterator[tuple[bytes, str]]:
    for line in file.read_bytes().splitlines():
        body, fate = line.split()
        yield body, fate.decode()
