"""Does things with Shield as another user: `python -m tests.as_user UID`, for a test that is root.

Standard input has a list of them in JSON, standard output a list of what each came to:

- `["publish", FOLDER, CHAIN]`: publish what is over the limit; its fate, and what the log says;
- `["shield", ARGUMENT, ...]`: run the command; its exit status, and what it printed.
"""

from __future__ import annotations

import importlib
import io
import json
import logging
import os
import pkgutil
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from typer.testing import CliRunner

import shield
from shield.cli import app
from shield.testing import FakeClient

RULE = {"name": "orders", "match": "*", "quota": {"rate": "1/d", "burst": 1}}
BODY = b"a message of some secrecy"


def publish(folder: str, chain: list[str]) -> tuple[str, str]:
    """Publish one that is admitted, and one that is not."""
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logging.getLogger("shield").addHandler(handler)
    own = {"producer": "sender", "spool_dir": folder}
    client = FakeClient(shield.Shield({"shield": own, "rules": [{**RULE, "over_limit": chain}]}))
    client.publish("orders", b"admitted")
    future = client.publish("orders", BODY)
    future.exception(30)
    client.close(5)
    logging.getLogger("shield").removeHandler(handler)
    return shield.fate(future), said.getvalue()


def command(arguments: Sequence[str]) -> tuple[int, str]:
    """Run `shield`, in this process."""
    done = CliRunner().invoke(app, arguments, prog_name="shield")
    return done.exit_code, done.output


def do(wanted: Sequence[Any]) -> tuple[int | str, str]:
    """Do one thing."""
    kind, *arguments = wanted
    return publish(*arguments) if kind == "publish" else command(arguments)


def become(user: int) -> None:
    """Be that user for good, when all is imported that he may not be able to read."""
    for module in pkgutil.walk_packages(shield.__path__, "shield."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    with tempfile.TemporaryDirectory() as folder:
        publish(folder, ["spool 8MiB", f"overflow file://{folder}/orders", "drop"])
        command(["spool", "show", f"{folder}/sender+orders.spool"])
        command(["redrive", f"{folder}/sender+orders.spool", "--dry-run"])
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    os.umask(0)
    os.chdir("/")
    os.environ["HOME"] = "/nonexistent"
    assert os.getresuid() == (user, user, user)


if __name__ == "__main__":
    become(int(sys.argv[1]))
    json.dump([do(each) for each in json.load(sys.stdin)], sys.stdout)
