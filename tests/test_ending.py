"""What is done when a program ends: within one limit, and not for what has ended before."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from shield import ending

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
