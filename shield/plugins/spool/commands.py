"""`shield spool`: what is on disk, and what is to become of it."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shield import Shield
from shield.cli.printing import Json, print_json
from shield.plugins.spool.errors import SpoolError
from shield.plugins.spool.offline import purge as purge_file
from shield.plugins.spool.place import SUFFIX, files_in
from shield.plugins.spool.view import Entry, Overview, entries_in, moment, overview_of

cli = typer.Typer(
    no_args_is_help=True,
    help="""Look at what the action `spool` keeps on disk: list, show, export, purge.

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
    entries = _entries(_file(ctx, name), parked)
    if message is not None:
        _show_one(_found(entries, message), as_json)
        return
    listed = list(islice(entries, limit))
    if as_json:
        print_json([as_dict(entry) for entry in listed])
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

    Payload, key and header values are text where they are UTF-8, else {"base64": "..."}.

    shield spool export orders --parked --to parked.jsonl
    """
    entries = _entries(_file(ctx, name), parked)
    if to is not None and to.exists():
        raise SpoolError(f"--to {to}: is there already; allowed is a file that is not")
    with nullcontext(sys.stdout) if to is None else to.open("w", encoding="utf-8") as out:
        number = sum(1 for _ in map(partial(_write_line, out), entries))
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


# --- which file, which messages -----------------------------------------------------------------


def _folder(ctx: typer.Context) -> Path:
    return Shield.load(ctx.obj).settings.spool_dir


def _file(ctx: typer.Context, name: str) -> Path:
    """Return the file that is meant.

    Raises:
        SpoolError: there is none, or more than one.
    """
    if Path(name).is_file():
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


def _entries(file: Path, parked: bool) -> Iterator[Entry]:
    return (entry for entry in entries_in(file) if entry.is_parked or not parked)


def _write_line(out: TextIO, entry: Entry) -> None:
    out.write(json.dumps(as_dict(entry)) + "\n")


def _found(entries: Iterator[Entry], message: str) -> Entry:
    for entry in entries:
        if message in (entry.number, entry.envelope.id):
            return entry
    raise SpoolError(f"MESSAGE: found {message!r}, which is not in this spool")


# --- printing -----------------------------------------------------------------------------------


def as_dict(entry: Entry) -> dict[str, Any]:
    """Return a whole message, ready for JSON."""
    envelope = entry.envelope
    return {
        "number": entry.number,
        "spooled_at": moment(entry.at_ms),
        "broker": entry.origin,
        "destination": envelope.destination,
        "kind": envelope.kind,
        "key": _readable(envelope.key),
        "body": _readable(envelope.body),
        "headers": [[name, _readable(value)] for name, value in envelope.headers],
        "marks": [list(mark) for mark in envelope.marks],
        "routing_key": envelope.routing_key,
        "timestamp_ms": envelope.timestamp_ms,
        "partition": envelope.partition,
        "native": base64.b64encode(envelope.native).decode(),
        "mandatory": envelope.mandatory,
        "producer": envelope.producer,
        "attempts": 0 if entry.failure is None else entry.failure.times,
        "error": None if entry.failure is None else entry.failure.error,
        "parked": entry.is_parked,
    }


def _readable(data: bytes | None) -> Any:
    """Return text where the bytes are UTF-8."""
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _overviews(found: list[Overview]) -> Table:
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


def _listing(entries: list[Entry]) -> Table:
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


def _show_one(entry: Entry, as_json: bool) -> None:
    found = as_dict(entry)
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
