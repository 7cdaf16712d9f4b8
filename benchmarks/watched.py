"""A process that is watched from outside while it does as it is told, line by line."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import Any, Self

import psutil

MB = 1e6
SAMPLE_EVERY_S = 0.05


class Child:
    """A module of ours as a process of its own, which answers each line with one of JSON.

    Killed at the end, should it not have ended by itself.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", module, *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.__exit__(None, None, None)

    def say(self, line: str) -> None:
        """Tell it something."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Wait for what it has to say."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a sender ended before its time; its error stands above")
        told: dict[str, Any] = json.loads(line)
        return told


class Watch:
    """Samples another process's resident memory while it is entered; keeps growth in MB."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._sample_on, daemon=True)
        self._before = self._rss()
        self.peak_mb = self.last_mb = 0.0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.set()
        self._thread.join()
        self._sample()

    def _sample_on(self) -> None:
        while not self._end.wait(SAMPLE_EVERY_S):
            self._sample()

    def _sample(self) -> None:
        self.last_mb = (self._rss() - self._before) / MB
        self.peak_mb = max(self.peak_mb, self.last_mb)

    def _rss(self) -> int:
        return int(self._process.memory_info().rss)
