"""A child process that can be killed and frozen, and does not outlive us."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from integration.brokers.broker import BrokerError
from integration.brokers.native.guardian import Guardian

FREEZE_WITHIN_S = 5.0


class Process:
    """Starts at once, with `folder` as its working folder and its output in `folder`/`log`.

    It leads a process group of its own, and signals go to the whole group: a broker's helper
    processes share its fate, and Ctrl-C in a terminal does not reach it before us.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, log: str, env: Mapping[str, str] | None = None
    ) -> None:
        self._log = folder / log
        with self._log.open("ab") as output:
            self._child = subprocess.Popen(
                command,
                cwd=folder,
                env=os.environ | dict(env or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guardian = Guardian("kill", "-KILL", "--", f"-{self._child.pid}")

    @property
    def pid(self) -> int:
        """The process id, which is also the id of the process group."""
        return self._child.pid

    def is_alive(self) -> bool:
        """Whether it still runs, or is frozen."""
        return self._child.poll() is None

    def pause(self) -> None:
        """Freeze it: each of its threads stops by itself, a moment after the signal."""
        self._signal(signal.SIGSTOP)
        deadline = time.monotonic() + FREEZE_WITHIN_S
        while not all(state in "TtZX" for state in self._states()):
            if time.monotonic() > deadline:
                raise BrokerError(f"process group {self.pid} does not stop on SIGSTOP")
            time.sleep(0.001)

    def resume(self) -> None:
        """Let it run on; does nothing to one that runs."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, a frozen one too; does nothing to one that has ended."""
        self._signal(signal.SIGKILL)
        self._child.wait()
        self._guardian.dismiss()

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of its output, for an error message."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def _states(self) -> Iterator[str]:
        """Yield the state of each thread of the group, as the kernel's letters (`man 5 proc`)."""
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(ProcessLookupError, FileNotFoundError):
                if os.getpgid(int(entry.name)) == self.pid:
                    for stat in entry.glob("task/*/stat"):
                        yield stat.read_text().rpartition(")")[2].split()[0]

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # it may have ended by itself, its group with it
            os.killpg(self._child.pid, number)
