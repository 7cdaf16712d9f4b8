"""Where the demo is shown: chosen by what standard output is."""

from __future__ import annotations

from rich.console import Console

from shield.cli.demo.report import Report, ReportLine
from shield.cli.demo.run import Snapshot
from shield.cli.demo.script import Script
from shield.cli.printing import print_json


class DemoView:
    """Follows one run from `open` to `close`, or to `abandon` where it cannot be finished.

    This one shows nothing.
    """

    def open(self, title: str, script: Script, seconds: float) -> None:
        """Say what is about to happen."""

    def show(self, snapshot: Snapshot, lines: tuple[ReportLine, ...]) -> None:
        """Show how things stand."""

    def close(self, report: Report) -> None:
        """Show how it ended."""

    def abandon(self) -> None:
        """Leave the screen in order."""


class JsonView(DemoView):
    """One document at the end, for another program."""

    def close(self, report: Report) -> None:
        """Print it."""
        print_json(report.as_dict())


def view_for(*, as_json: bool) -> DemoView:
    """Return the view that suits standard output."""
    from shield.cli.demo.live import LiveView
    from shield.cli.demo.plain import PlainView

    if as_json:
        return JsonView()
    console = Console(highlight=False)
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveView(console)
    return PlainView(console)
