"""A command that is run to its end for what it does or prints."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from integration.brokers.broker import BrokerError

_SHOWN_ON_FAILURE = 2000  # characters


def output_of(
    command: Sequence[str], *, folder: Path | None = None, env: Mapping[str, str] | None = None
) -> str:
    """What it printed; `BrokerError` with the end of that when it failed. `env` adds to our own."""
    run = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | dict(env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if run.returncode:
        tail = run.stdout[-_SHOWN_ON_FAILURE:]
        raise BrokerError(f"{' '.join(command)} ended with {run.returncode}: {tail}")
    return run.stdout
