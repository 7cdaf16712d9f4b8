"""`shield spool`: what is on disk, and what is to become of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shield import Shield
from shield.cli.printing import Json, print_json
from shield.plugins.actions.spool.errors import SpoolError
from shield.plugins.actions.spool.offline import purge as purge_file
from shield.plugins.actions.spool.offline import unpark
from shield.plugins.actions.spool.snapshot import (
    SpooledMessage,
    SpoolOverview,
    entries_in,
    moment,
    overview_of,
)
from shield.plugins.actions.spool.storage.location import SUFFIX, files_in, names_of
from shield.plugins.transports.file.formats import document_of
from shield.safe_files import FILE_MODE

cli = typer.Typer(
    no_args_is_help=True,
    help="""Look at what the action `spool` keeps on disk: list, show, export, retry, purge.

    Files are those in spool_dir of [shield] (SHIELD_SPOOL_DIR), one for each producer and rule.
    Looking never disturbs the process that uses a file.

    What is there, and what could not be delivered:  shield spool ls
    """,
)

Name = Annotated[
    str,
    typer.Argument(metavar="SPOOL", help="Its name as `ls` shows it, its rule, or a file's path."),
]
Parked = Annotated[
    bool, typer.Option("--parked", help="Only what could not be delivered and is parked.")
]
PREVIEW = 60


@cli.command("ls")
def ls(ctx: typer.Context, as_json: Json = False) -> None:
    """List the spools: messages, parked ones, bytes, the oldest, and who uses it.

    A file with a problem is listed with it; `damaged` in its name says that it was set aside.
    """
    folder = _folder(ctx)
    found = [overview_of(file) for file in files_in(folder)]
    if as_json:
        print_json([overview.as_dict() for overview in found])
    elif found:
        Console().print(_overviews(found))
    else:
        typer.echo(f"no spools in {folder}")


@cli.command("show")
def show(
    ctx: typer.Context,
    name: Name,
    message: Annotated[
        str | None,
        typer.Argument(metavar="[MESSAGE]", help="One message: its number or shield-message-id."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many to list, the oldest first.")] = 50,
    parked: Parked = False,
    as_json: Json = False,
) -> None:
    """Show the messages of a spool, or all about one of them.

    The parked ones, and why:  shield spool show orders --parked
    """
    file = _file(ctx, name)
    entries = _entries(file, parked)
    if message is not None:
        entry = _found(entries, message)
        _show_one(entry, as_dict(entry, rule_of(file)), as_json)
        return
    listed = list(islice(entries, limit))
    if as_json:
        print_json([as_dict(entry, rule_of(file)) for entry in listed])
    else:
        Console().print(_listing(listed))


@cli.command("export")
def export(
    ctx: typer.Context,
    name: Name,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="Where to; standard output if not given."),
    ] = None,
    parked: Parked = False,
) -> None:
    """Write the messages of a spool as JSON Lines, each whole; they stay in the spool.

    Payload, key and header values are text where they are UTF-8, else {"base64": "..."}. The
    lines are those of overflow to a file:// URL: `shield redrive FILE` sends them.

    shield spool export orders --parked --to parked.jsonl
    """
    file = _file(ctx, name)
    with nullcontext(sys.stdout) if to is None else _opened(to) as out:
        number = _write_lines(out, file, parked)
    typer.echo(f"{number} messages exported", err=True)


@cli.command("purge")
def purge(
    ctx: typer.Context,
    name: Name,
    parked: Parked = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete the messages of a spool for good. Refuses one that a process uses.

    Nothing counts them any more: export them first where they may be needed.
    """
    file = _file(ctx, name)
    number = sum(1 for _ in _entries(file, parked))
    if not yes:
        typer.confirm(f"Delete {number} messages of {file}?", abort=True, err=True)
    gone = purge_file(file, lambda entry: entry.is_parked or not parked)
    if as_json:
        print_json({"file": str(file), "purged": gone})
    else:
        typer.echo(f"{gone} messages deleted")


@cli.command("retry")
def retry(
    ctx: typer.Context,
    name: Name,
    message: Annotated[
        str | None,
        typer.Argument(metavar="[MESSAGE]", help="One message: its number or shield-message-id."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Have parked messages tried again, from the first attempt on. Refuses a spool in use.

    They go out with the next process that opens the spool, or with `shield redrive SPOOL`.

    shield spool retry orders
    """
    file = _file(ctx, name)
    if message is not None and not _found(_entries(file, False), message).is_parked:
        raise SpoolError(f"MESSAGE: found {message!r}, which is not parked")
    again = unpark(file, lambda entry: message in (None, entry.number, entry.envelope.id))
    if as_json:
        print_json({"file": str(file), "retried": again})
    else:
        typer.echo(f"{again} messages are tried again")


# --- which file, which messages -----------------------------------------------------------------


def _folder(ctx: typer.Context) -> Path:
    return Shield.load(ctx.obj).settings.spool_dir


def _file(ctx: typer.Context, name: str) -> Path:
    """Return the file that is meant.

    Raises:
        SpoolError: there is none, or more than one.
    """
    if Path(name).is_file() or (os.path.lexists(name) and not name.isidentifier()):
        return Path(name)
    folder = _folder(ctx)
    overviews = [overview_of(file) for file in files_in(folder)]
    stems = {Path(each.file).name.removesuffix(SUFFIX): each for each in overviews}
    if name in stems:
        return Path(stems[name].file)
    of_rule = [each for each in overviews if each.rule == name]
    if len(of_rule) == 1:
        return Path(of_rule[0].file)
    known = ", ".join(stems) or "none"
    many = "more than one spool is of that rule" if of_rule else "no such spool"
    raise SpoolError(f"SPOOL: found {name!r}, {many} in {folder}; allowed: {known}")


def _entries(file: Path, parked: bool) -> Iterator[SpooledMessage]:
    return (entry for entry in entries_in(file) if entry.is_parked or not parked)


def _write_lines(out: TextIO, file: Path, parked: bool) -> int:
    """Write all messages that are meant; return how many."""
    number = 0
    for entry in _entries(file, parked):
        out.write(json.dumps(as_dict(entry, rule_of(file))) + "\n")
        number += 1
    return number


def _opened(file: Path) -> TextIO:
    """Make a file for its user alone, as a spool is.

    Raises:
        SpoolError: it is there already, or cannot be made.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return open(os.open(file, flags, FILE_MODE), "w", encoding="utf-8")
    except FileExistsError:
        raise SpoolError(f"--to {file}: is there already; allowed is a file that is not") from None
    except OSError as error:
        raise SpoolError(f"--to {file}: cannot be made ({error.strerror})") from error


def rule_of(file: Path) -> str:
    """Return whose spool it is, as far as its name tells."""
    return names_of(file)[1]


def _found(entries: Iterator[SpooledMessage], message: str) -> SpooledMessage:
    for entry in entries:
        if message in (entry.number, entry.envelope.id):
            return entry
    raise SpoolError(f"MESSAGE: found {message!r}, which is not in this spool")


# --- printing -----------------------------------------------------------------------------------


def as_dict(entry: SpooledMessage, rule: str) -> dict[str, Any]:
    """Return a whole message, ready for JSON: as a line of a `file://`, and what a spool knows."""
    failure = entry.failure
    return {
        "number": entry.number,
        "spooled_at": moment(entry.at_ms),
        "attempts": 0 if failure is None else failure.times,
        "error": None if failure is None else failure.error,
        "parked": entry.is_parked,
        **document_of(entry.envelope.set_aside(rule, entry.origin)),
    }


def _overviews(found: list[SpoolOverview]) -> Table:
    table = _table("spool", "messages", "parked", "bytes", "oldest", "used by", "")
    for each in found:
        used_by = "" if each.used_by is None else f"process {each.used_by}"
        cells = (
            Path(each.file).name.removesuffix(SUFFIX),
            f"{each.messages:,}",
            f"{each.parked:,}",
            f"{each.bytes:,}",
            each.oldest or "",
            used_by,
            each.problem or "",
        )
        table.add_row(*map(escape, cells), style="red" if each.problem or each.parked else None)
    return table


def _listing(entries: list[SpooledMessage]) -> Table:
    table = _table("message", "spooled at", "destination", "key", "bytes", "attempts", "error")
    for entry in entries:
        envelope, failure = entry.envelope, entry.failure
        cells = (
            entry.number,
            moment(entry.at_ms),
            envelope.destination,
            "" if envelope.key is None else _short(envelope.key),
            f"{envelope.size:,}",
            "" if failure is None else f"{failure.times}{' (parked)' if failure.parked else ''}",
            "" if failure is None else failure.error,
        )
        table.add_row(*map(escape, cells), style="red" if entry.is_parked else None)
    return table


def _show_one(entry: SpooledMessage, found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    table = _table("what", "")
    body = entry.envelope.body
    found["body"] = None if body is None else f"{len(body):,} bytes: {_short(body)}"
    for name, value in found.items():
        table.add_row(name, escape(value if isinstance(value, str) else json.dumps(value)))
    Console().print(table)


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _short(data: bytes) -> str:
    text = data[:PREVIEW].decode("utf-8", "backslashreplace")
    return text if len(data) <= PREVIEW else f"{text}..."
