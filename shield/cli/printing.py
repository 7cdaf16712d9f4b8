"""How results are printed: as JSON for programs, or drawn with rich."""

from __future__ import annotations

import json
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")]


def print_json(result: object) -> None:
    """Print a result on standard output, for another program to read."""
    typer.echo(json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False))
