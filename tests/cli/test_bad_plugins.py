"""A plugin that is installed and broken stops no command, and is named by each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAD = "import shield\nfrom shield import hookimpl\n"
BAD = {
    "misspelt": "@hookimpl\ndef shield_befor_publish(message): pass",
    "fewer": "@hookimpl\ndef shield_before_publish(): pass",
    "wrapper": "@hookimpl(wrapper=True)\ndef shield_before_publish(message): yield",
    "async": "@hookimpl\nasync def shield_before_publish(message): pass",
    "unmarked": "def shield_before_publish(message): pass",
    "duplicate": "class P(shield.Policy):\n    def check(self, m, now): pass\n"
    "@hookimpl\ndef shield_policies(): return {'quota': P}",
    "no-mapping": "@hookimpl\ndef shield_policies(): return 5",
    "raises": "@hookimpl\ndef shield_actions(): raise RuntimeError('broken')",
}
CANNOT_LOAD = {"import-error": "import no_such_module", "exits": "raise SystemExit(3)"}


# Each command in a process of its own, forked before any plugin is looked for.
EACH = """
import os, sys
import shield.cli

for number, (arguments, settings) in enumerate({commands!r}):
    if os.fork() == 0:
        with open("shield.toml", "w") as file:
            file.write(settings)
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{{number}}.{{name}}", os.O_WRONLY | os.O_CREAT), stream)
        sys.argv = ["shield", *arguments]
        shield.cli.main()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.wait()[1])
    print(status)
"""
HEALING = '[plugins]\ndisable = ["nasty"]\n'
COMMANDS = [
    (["--help"], ""),
    (["plugins"], ""),
    (["config", "check"], ""),
    (["config", "check"], HEALING),
]


def run(tmp_path: Path, source: str) -> list[tuple[int, str]]:
    """Run the commands beside the plugin; return the status and the errors of each."""
    (tmp_path / "nasty.py").write_text(HEAD + source)
    info = tmp_path / "nasty_dist-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nasty-dist\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[shield]\nnasty = nasty\n")
    ran = subprocess.run(
        [sys.executable, "-c", EACH.format(commands=COMMANDS)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    statuses = map(int, ran.stdout.split())
    return [(s, (tmp_path / f"{number}.err").read_text()) for number, s in enumerate(statuses)]


@pytest.mark.parametrize("bad", [*BAD, *CANNOT_LOAD])
def test_commands_work_and_name_the_culprit(tmp_path, bad):
    """With entry point, distribution and file; settings that leave it out heal it."""
    helped, listed, checked, healed = run(tmp_path, (BAD | CANNOT_LOAD)[bad])
    assert helped[0] == 0
    assert listed[0] == 0
    for part in ("nasty-dist", "entry point nasty = nasty", str(tmp_path / "nasty.py")):
        assert part in listed[1]
    assert checked[0] == (2 if bad in BAD else 0)
    assert "nasty-dist" in checked[1]
    assert "Traceback" not in checked[1]
    assert healed == (0, "")
