"""What a decorated function may return beside bytes and text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pika import BasicProperties


@dataclass(frozen=True, slots=True)
class Publishing:
    """One message: its body, and what is to differ from the decorator's own settings.

    `headers` are added to those of `properties`; `routing_key` replaces the decorator's.
    """

    body: bytes | str
    properties: BasicProperties | None = None
    routing_key: str | None = None
    headers: Mapping[str, Any] | None = None
