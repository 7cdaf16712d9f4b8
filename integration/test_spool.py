"""The spool on real brokers: killed, restarted, blocked; nothing accepted is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import shield
from integration.brokers import Broker
from integration.reading import read

KILLS = 200 if os.environ.get("SHIELD_SOAK") else 20
LONGEST_LIFE_S = 0.8


def spooling(folder: Path, rule: dict[str, Any], **more: Any) -> shield.Shield:
    """A Shield whose one rule spools what is over the limit."""
    chain = [{"spool": {"size": "64MiB", **more}}, "raise"]
    rules = [{"name": "orders", "match": "*", **rule, "over_limit": chain}]
    return shield.Shield({"shield": {"producer": "p", "spool_dir": str(folder)}, "rules": rules})


def eventually(is_so: Callable[[], object], within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


CLOSED = {"quota": {"rate": "1/d", "burst": 1}}
"""Admits one message, and then nothing."""
OPEN = {"in_flight": {"messages": 1000}}


# --- kill -9 ------------------------------------------------------------------------------------


class Nursery:
    """Gives life to senders, one after another."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "integration.spool_nursery", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, kind: str) -> int:
        """Begin a life; return its process id."""
        print(kind, file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def until_ended(self) -> None:
        assert self._process.stdout.readline() == "ended\n"

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@pytest.fixture
def nursery(kafka: Broker, topic: str, tmp_path: Path) -> Iterator[Nursery]:
    nursery = Nursery(kafka.address, topic, str(tmp_path))
    yield nursery
    nursery.close()


@pytest.mark.timeout(40 + KILLS * 3)
def test_what_was_accepted_survives_kill_9_at_any_moment(kafka, topic, nursery, tmp_path):
    """Everything accepted arrives, and what arrives twice has the same id."""
    for _ in range(KILLS):
        life = nursery.begin("endless")
        time.sleep(random.uniform(0, LONGEST_LIFE_S))
        os.kill(life, signal.SIGKILL)
        nursery.until_ended()
    nursery.begin("to the end")
    nursery.until_ended()
    accepted = set((tmp_path / "accepted").read_bytes().splitlines())
    ids = defaultdict(list)
    for record in read(kafka.address, topic):
        ids[record.value].append(dict(record.headers).get("shield-message-id"))
    assert len(accepted) > KILLS
    assert accepted <= set(ids)
    twice = {body: found for body, found in ids.items() if len(found) > 1}
    assert all(len(set(found)) == 1 and found[0] for found in twice.values())
    spooled = sum(found[0] is not None for found in ids.values())
    assert spooled > KILLS
    print(
        f"{KILLS} kills: {len(accepted)} accepted, {len(ids)} arrived, {spooled} through the "
        f"spool, {len(twice)} more than once"
    )
