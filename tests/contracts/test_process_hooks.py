"""What is done when a program ends: within one limit, and not for what has ended before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PROGRAM = """
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
from shield import process_hooks as ending

class Client:
    def __init__(self, name):
        self.name = name

    def close(self, left_s):
        print(self.name, left_s <= ending.EXIT_WITHIN_S, flush=True)

first, second, third = map(Client, ("first", "second", "third"))
for client in (first, second, third):
    ending.at_exit(client.close)
ending.not_at_exit(second.close)
ending.not_at_exit(second.close)
"""
CHILD = (
    PROGRAM.replace("\n", "\n    ").replace("\n    import", "def work():\n    import", 1)
    + """

if __name__ == "__main__":
    import multiprocessing
    child = multiprocessing.get_context("spawn").Process(target=work)
    child.start()
    child.join(60)
"""
)


def printed(tmp_path, program):
    file = tmp_path / "program.py"
    file.write_text(program)
    command = [sys.executable, str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout


def test_who_has_ended_is_not_ended_again(tmp_path):
    """Those that are left are, the last first, with what is left of the time."""
    assert printed(tmp_path, PROGRAM).split() == ["third", "True", "first", "True"]


def test_nor_in_a_child_of_multiprocessing(tmp_path):
    """Nothing calls `atexit` there."""
    assert sorted(printed(tmp_path, CHILD).split()) == ["True", "True", "first", "third"]


STAGES = """
from shield import process_hooks as hooks
from shield.process_hooks import ExitStage, ForkStage

for stage in reversed(ExitStage):
    hooks.at_exit(lambda _left_s, stage=stage: print("exit", stage.name, flush=True), stage)
hooks.at_exit(lambda _left_s: 1 / 0, ExitStage.KEPT)
"""


def test_stages_follow_each_other_and_one_that_fails_stops_no_other(tmp_path):
    """Kept messages first, while senders and clients are open."""
    lines = printed(tmp_path, STAGES).split()
    assert lines == ["exit", "KEPT", "exit", "SENDERS", "exit", "CLIENTS"]


FORK = """
import os
from shield import process_hooks as hooks
from shield.process_hooks import ForkStage

for stage in reversed(ForkStage):
    hooks.after_fork(lambda stage=stage: print("fork", stage.name, flush=True), stage)
hooks.after_fork(lambda: 1 / 0, ForkStage.STATE)
child = os.fork()
if child:
    os.waitpid(child, 0)
"""


def test_a_forked_child_begins_anew_stage_by_stage(tmp_path):
    """One that fails keeps nothing from the others."""
    lines = printed(tmp_path, FORK).split()
    assert lines == ["fork", "STATE", "fork", "RESOURCES", "fork", "ENGINES"]


def test_nothing_else_registers_with_the_interpreter():
    """Neither a file of Shield's nor of an adapter's: their order would be the imports'."""
    calls = ("os.register_at_fork(", "atexit.register(")
    paths = [path for folder in ("shield", "adapters") for path in (ROOT / folder).rglob("*.py")]
    found = {path.name for path in paths if any(call in path.read_text() for call in calls)}
    assert len(paths) > 200
    assert found == {"process_hooks.py"}
