"""How a redrive is shown: a bar in a terminal, lines elsewhere, or one document at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from shield.cli.printing import print_json
from shield.operations.redrive_job import Redriven, Redriving

EVERY_S = 1.0
MOST_SHOWN = 20


class RedriveView:
    """Follows one redrive. This one shows nothing until it is over, and then one document."""

    def __init__(self, url: str) -> None:
        self._url = url

    def show(self, redriving: Redriving) -> None:
        """Show how it gets on."""

    def stopping(self, unanswered: int) -> None:
        """Say that it ends soon."""

    def end(self) -> None:
        """Leave the screen in order."""

    def close(self, result: Redriven) -> None:
        """Show what it did."""
        print_json({"source": self._url, **result.as_dict()})


class LinesView(RedriveView):
    """A line a second, for pipes and logs; then the tables."""

    def __init__(self, url: str, console: Console) -> None:
        super().__init__(url)
        self._console = console
        self._begun_s = self._next_s = time.monotonic()

    def show(self, redriving: Redriving) -> None:
        """Print, where a second has passed since the last time."""
        now = time.monotonic()
        if now >= self._next_s:
            self._next_s = now + EVERY_S
            self._line(_state(redriving, now - self._begun_s))

    def stopping(self, unanswered: int) -> None:
        """Say what it waits for."""
        self._line(f"stopping: {unanswered} sent and not yet answered; Ctrl-C ends it at once")

    def close(self, result: Redriven) -> None:
        """Print a line and what did not go back."""
        self._line(_summary(result))
        for table in _tables(result):
            self._console.print(table)

    def _line(self, text: str) -> None:
        self._console.print(escape(text), soft_wrap=True)


class BarView(LinesView):
    """A bar that is drawn anew, with rate and time left."""

    def __init__(self, url: str, console: Console) -> None:
        super().__init__(url, console)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None

    def show(self, redriving: Redriving) -> None:
        """Draw."""
        done, left = _done(redriving), redriving.left()
        if self._task is None:
            self._task = self._progress.add_task(escape(self._url), state="")
            self._progress.start()
        elapsed_s = time.monotonic() - self._begun_s
        total = None if left is None else done + left + redriving.unanswered
        self._progress.update(
            self._task, completed=done, total=total, state=escape(_rate(done, elapsed_s))
        )

    def end(self) -> None:
        """Take the bar away."""
        self._progress.stop()


def view_for(*, as_json: bool, url: str) -> RedriveView:
    """Return the view that suits standard output."""
    if as_json:
        return RedriveView(url)
    console = Console(highlight=False)
    if console.is_terminal and not console.is_dumb_terminal:
        return BarView(url, console)
    return LinesView(url, console)


def _done(redriving: Redriving) -> int:
    tally = redriving.tally
    apart = tally.skipped + tally.unknown + tally.failed + tally.refused + tally.parked + tally.kept
    apart += tally.expired
    return redriving.sent + apart


def _state(redriving: Redriving, elapsed_s: float) -> str:
    done, left = _done(redriving), redriving.left()
    parts = [f"{redriving.sent} back", _rate(redriving.sent, elapsed_s)]
    if left is not None:
        parts.append(f"{left} to go")
        if redriving.sent and left:
            parts.append(f"{left * elapsed_s / done:.0f} s left")
    if redriving.last_error is not None:
        parts.append(f"last error: {type(redriving.last_error).__name__}: {redriving.last_error}")
    return ", ".join(parts)


def _rate(messages: int, elapsed_s: float) -> str:
    return f"{messages / max(elapsed_s, 0.001):,.0f}/s"


def _summary(result: Redriven) -> str:
    """Say in one line what became of all that was read."""
    found = sum(result.messages.values())
    head = f"{found} would go back" if result.dry_run else f"{result.sent} back"
    others = {
        "failed": result.failed,
        "not allowed where they want to go": result.refused,
        "parked": result.parked,
        "kept, set aside too often": result.kept,
        "without headers that say where to": result.unknown,
        "expired, and dropped": result.expired,
        "not meant": result.skipped,
    }
    parts = [head, *(f"{number} {what}" for what, number in others.items() if number)]
    line = f"{', '.join(parts)} in {result.seconds:.1f} s"
    if result.interrupted:
        line += "; interrupted, the next run goes on"
    return line if result.error is None else f"{line}; {result.error}"


def _tables(result: Redriven) -> Iterator[Table]:
    if result.messages:
        table = _table("rule", "destination", "messages")
        for (rule, destination), number in sorted(result.messages.items()):
            table.add_row(_plain(rule or "-"), _plain(destination), str(number))
        yield table
    if result.listed:
        table = _table("not back", "id", "rule", "destination", "attempt")
        for left in result.listed[:MOST_SHOWN]:
            cells = (left.why, left.id or "-", left.rule or "-", left.destination)
            table.add_row(*map(_plain, cells), str(left.attempt))
        apart = result.failed + result.refused + result.parked + result.kept
        more = apart - len(result.listed[:MOST_SHOWN])
        if more > 0:
            table.add_row(f"and {more} more; --json lists a thousand")
        yield table


def _plain(text: str) -> str:
    """Return a stranger's text as a terminal can be shown it: nothing in it is a command."""
    return escape("".join([c if c.isprintable() else ascii(c)[1:-1] for c in text]))


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name, overflow="fold", justify="right" if name == "messages" else "left")
    return table
