"""Cleans up after us when we cannot: a shell that acts once this Python process is gone."""

import os
import subprocess
import weakref


class Guardian:
    """Runs a command if this Python process ends, in whatever way, before `dismiss`.

    `atexit` misses SIGTERM and SIGKILL; PR_SET_PDEATHSIG fires already when the thread that
    started the broker ends. The end of a pipe misses nothing: the kernel closes it however we die.
    Forked children let go of theirs, so that one that hangs does not keep the broker alive.
    """

    def __init__(self, *command: str) -> None:
        # `read` succeeds on a line, which is our dismissal, and fails on end of file: we died.
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r line || exec "$@"', "guardian", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in a terminal is for us, not for it
        )
        _alive.add(self)

    def dismiss(self) -> None:
        """Nothing is left to be guarded."""
        if self._shell.returncode is None:
            self._shell.communicate(b"dismissed\n")

    def _leave_to_the_parent(self) -> None:
        if self._shell.stdin is not None:
            self._shell.stdin.close()


_alive: weakref.WeakSet[Guardian] = weakref.WeakSet()


def _mark_forked() -> None:
    for guardian in list(_alive):
        guardian._leave_to_the_parent()


os.register_at_fork(after_in_child=_mark_forked)
