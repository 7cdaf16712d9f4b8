"""The demo in a terminal: a screen that is drawn anew as things change."""

from __future__ import annotations

from rich.console import Console
from rich.live import Live

from shield.cli.demo import screen
from shield.cli.demo.report import Report, ReportLine
from shield.cli.demo.run import Snapshot
from shield.cli.demo.script import Script
from shield.cli.demo.view import DemoView


class LiveView(DemoView):
    """Draws each snapshot over the one before; what it printed first and last stays."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def open(self, title: str, script: Script, seconds: float) -> None:
        """Print the rules."""
        self._script = script
        self._console.print(screen.opening(title, script, seconds))
        self._live.start()

    def show(self, snapshot: Snapshot, lines: tuple[ReportLine, ...]) -> None:
        """Draw."""
        self._live.update(screen.frame(self._script, snapshot, lines), refresh=True)

    def close(self, report: Report) -> None:
        """Print the last screen."""
        self._live.stop()
        self._console.print(screen.closing(report))

    def abandon(self) -> None:
        """Take the drawing away and show the cursor."""
        self._live.stop()
