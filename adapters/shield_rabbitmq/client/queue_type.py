"""What kind of queue it is, and which arguments it has: asked for without the management API.

The broker compares a declaration with the queue that is there, and its refusal names the first
argument that differs, and its value. The declaration asks for a type that no broker has, so that
it never makes a queue, also where that was deleted a moment ago.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from pika.exceptions import ChannelClosedByBroker

TYPE = "x-queue-type"
SINGLE_ACTIVE = "x-single-active-consumer"
NONE_SUCH = "shield-asks"
CLASSIC, QUORUM, STREAM = "classic", "quorum", "stream"
MOST_ARGUMENTS = 30
REFUSED = 406
_DIFFERS = re.compile(
    r"inequivalent arg '([^']*)' for .*received .* but current is "
    r"(?:the value )?(none|'.*?'|.*?)(?: of type '([^']*)')?\"?$"
)


@dataclass(frozen=True, slots=True)
class QueueType:
    """What was found out about a queue.

    Args:
        name: `classic`, `quorum`, `stream`; None where the broker does not tell this user, who
            needs the permission to configure the queue for that.
        arguments: those it was declared with, as far as the broker told them.
    """

    name: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def declared(self) -> dict[str, Any]:
        """With which arguments it is declared anew as it is, as far as they are known."""
        if self.name in (CLASSIC, None):
            return dict(self.arguments)
        return {**self.arguments, TYPE: self.name}

    @property
    def counts_deliveries(self) -> bool:
        """Whether it may drop what is handed out and comes back too often."""
        return self.name in (QUORUM, None)


def queue_type(connection: Any, queue: str) -> QueueType:
    """Ask for a queue's type and arguments, on channels of their own."""
    asked: dict[str, Any] = {TYPE: NONE_SUCH}
    how, name = {"durable": True, "auto_delete": False}, None
    for _ in range(MOST_ARGUMENTS):
        refusal = _refusal(connection, queue, how, asked)
        found = _DIFFERS.search(refusal or "")
        if found is None:
            break
        argument, value, kind = found.groups()
        if how.get(argument) is (value == "'false'"):
            how[argument] = not how[argument]
        elif argument == TYPE:
            name = CLASSIC if value == "none" else value.strip("'")
            break
        elif argument in how or argument in asked or not argument.startswith("x-"):
            break
        else:
            asked[argument] = _value(value.strip("'"), kind)
    asked.pop(TYPE)
    if name is None:
        return QueueType()
    return QueueType(name, asked | _more(connection, queue, name, asked))


def _more(connection: Any, queue: str, name: str, known: dict[str, Any]) -> dict[str, Any]:
    """Return what the broker compares after the type; nothing for classic queues: it is last."""
    if name == CLASSIC:
        return {}
    asked: dict[str, Any] = {**known, TYPE: name}
    for _ in range(MOST_ARGUMENTS):
        found = _DIFFERS.search(_refusal(connection, queue, {"durable": True}, asked) or "")
        if found is None or found[1] in asked or not found[1].startswith("x-"):
            break
        asked[found[1]] = _value(found[2].strip("'"), found[3])
    asked.pop(TYPE)
    return asked


def _refusal(
    connection: Any, queue: str, how: dict[str, bool], asked: dict[str, Any]
) -> str | None:
    """Declare it; return how the broker refuses. None where it does not, or not for that."""
    channel = connection.channel()
    try:
        channel.queue_declare(queue, **how, arguments=asked)
    except ChannelClosedByBroker as error:
        error.with_traceback(None)  # pika keeps it, and it all our callers
        return str(error.reply_text) if error.reply_code == REFUSED else None
    channel.close()
    return None


def _value(text: str, kind: str | None) -> object:
    if kind == "bool":
        return text == "true"
    return int(text) if text.lstrip("-").isdecimal() and kind != "longstr" else text
