"""The `shield` command: one file per subcommand, further ones from plugins."""

from __future__ import annotations

from shield.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; ends the process with its exit status."""
    app(prog_name="shield")
