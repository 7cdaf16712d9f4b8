"""Cleans up after us when we cannot: a shell that acts once this Python process is gone."""

import subprocess


class Guardian:
    """Runs a command if this Python process ends, in whatever way, before `dismiss`.

    `atexit` misses SIGTERM and SIGKILL; PR_SET_PDEATHSIG fires already when the thread that
    started the broker ends. The end of a pipe misses nothing: the kernel closes it however we die.
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

    def dismiss(self) -> None:
        """Nothing is left to be guarded."""
        if self._shell.returncode is None:
            self._shell.communicate(b"dismissed\n")
