"""A plugin that is installed and broken stops no command, and is named by each."""

from __future__ import annotations

import os
import subprocess
import sys

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


def run(tmp_path, source, *arguments, settings=""):
    (tmp_path / "nasty.py").write_text(HEAD + source)
    info = tmp_path / "nasty_dist-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nasty-dist\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[shield]\nnasty = nasty\n")
    (tmp_path / "shield.toml").write_text(settings)
    return subprocess.run(
        [sys.executable, "-m", "shield", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )


@pytest.mark.parametrize("bad", [*BAD, *CANNOT_LOAD])
def test_commands_work_and_name_the_culprit(tmp_path, bad):
    """With entry point, distribution and file; settings that leave it out heal it."""
    source = (BAD | CANNOT_LOAD)[bad]
    assert run(tmp_path, source, "--help").returncode == 0
    listed = run(tmp_path, source, "plugins")
    assert listed.returncode == 0
    for part in ("nasty-dist", "entry point nasty = nasty", str(tmp_path / "nasty.py")):
        assert part in listed.stderr
    checked = run(tmp_path, source, "config", "check")
    assert checked.returncode == (2 if bad in BAD else 0)
    assert "nasty-dist" in checked.stderr
    assert "Traceback" not in checked.stderr
    healed = run(tmp_path, source, "config", "check", settings='[plugins]\ndisable = ["nasty"]\n')
    assert (healed.returncode, healed.stderr) == (0, "")
