"""`overflow file:///path`: messages in files on this machine, to be read or brought back."""

from __future__ import annotations

from collections.abc import Mapping

from shield import Transport, hookimpl
from shield.plugins.transports.file.transport import FileTransport


@hookimpl
def shield_transports() -> Mapping[str, type[Transport]]:
    """Contribute `file://`."""
    return {"file": FileTransport}
