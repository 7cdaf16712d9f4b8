"""The headers of a message that was set aside: where it was going, why it was not let through.

These names are Shield's, and no others that begin alike. Whoever writes to a broker can write
them, so that they are read here and nowhere else, each with bounds: what a header says is a
stranger's word, and one that cannot be read is that message's own failure.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from shield.ids import new_id

if TYPE_CHECKING:
    from shield.message import Message
    from shield.signing import Signer
    from shield.verdict import OverLimit

Value = TypeVar("Value")
Headers = tuple[tuple[str, bytes | None], ...]
"""As brokers have them: a name may be there twice, and a value may be null."""
Pairs = tuple[tuple[str, Value], ...]
Marks = Pairs[str]
"""Those of them that are ours, as text."""

ATTEMPT = "shield-attempt"
BROKER = "shield-original-broker"
"""Where it was sent to another broker: the one it was going to, as `Transport.origin` has it."""
DESTINATION = "shield-original-destination"
DIVERTED_AT = "shield-diverted-at"
HEADERS = "shield-original-headers"
"""All of its own headers, where a broker cannot hold them as they are."""
KEY = "shield-original-key"
MESSAGE_ID = "shield-message-id"
NATIVE = "shield-original-properties"
"""What only clients of its kind understand, where another kind of broker holds it."""
PARTITION = "shield-original-partition"
POLICY = "shield-policy"
PRODUCER = "shield-producer"
REASON = "shield-reason"
ROUTING_KEY = "shield-original-routing-key"
RULE = "shield-rule"
SIGNATURE = "shield-signature"
TIMESTAMP = "shield-original-timestamp"
TOMBSTONE = "shield-original-tombstone"

CARRIED = frozenset({ATTEMPT, MESSAGE_ID})
"""What a message keeps when it is back where it was going."""
AMQP_OWN = frozenset(
    {
        "shield-original-bcc",
        "shield-original-cc",
        "shield-expires-at",
        "shield-original-expiration",
        "shield-original-mandatory",
        "shield-original-user-id",
        "x-original-exchange",
        "x-original-routingKey",
    }
)
"""What RabbitMQ's client saves beside them, of its own types, and puts back itself."""
ESCAPE = "shield-users-"
"""Stands before the name of a user's own header while it is set aside, where ours has that name."""

_NO_TEXT = "\N{REPLACEMENT CHARACTER}"
LONGEST_TEXT = 10_000
LONGEST_ID = 255
LONGEST_DESTINATION = 1024
"""Characters: more than any broker's names have."""
LONGEST_DATA = 64 * 1024**2
"""Characters of what is carried in base64."""
LAST_MS = 2**63 - 1
"""Milliseconds since 1970, as far as brokers count them."""


# --- written --------------------------------------------------------------------------------------


def diverted(over: OverLimit) -> dict[str, str]:
    """Return the headers that a diverted message gets beside its own.

    The id stays with a message however often it is diverted; the attempt counts how often.
    """
    message = over.message
    headers = {
        DESTINATION: message.destination,
        REASON: over.reason[:LONGEST_TEXT],
        RULE: over.rule.name,
        POLICY: over.policy,
        PRODUCER: message.producer,
        DIVERTED_AT: datetime.now(UTC).isoformat(timespec="milliseconds"),
        **identity(message),
    }
    if message.routing_key is not None:
        headers[ROUTING_KEY] = message.routing_key
    return headers


def identity(message: Message) -> dict[str, str]:
    """Return the id of a message that is set aside once more, and how often that has been.

    The id is the one it came with, or is drawn when it is first set aside: copies that a chain
    makes of it, because an overflow send failed that may have arrived, all have the same.
    """
    try:
        own = message.id
    except AttributeError:
        own = message.id = id_in(message.header(MESSAGE_ID)) or new_id()
    return {ATTEMPT: str(attempts(message) + 1), MESSAGE_ID: own}


def signed(marks: dict[str, str], body: bytes, signer: Signer | None) -> dict[str, str]:
    """Return headers of ours for a message without a key, signed where there is one for that."""
    return marks if signer is None else {**marks, SIGNATURE: signer.sign(marks, body, None)}


def escaped(headers: Iterable[tuple[str, Value]]) -> list[tuple[str, Value]]:
    """Return a user's own headers as they are written beside ours: none is taken for ours."""
    return [(ESCAPE + name if _like_ours(name) else name, value) for name, value in headers]


def unescaped(headers: Iterable[tuple[str, Value]]) -> list[tuple[str, Value]]:
    """Return a user's own headers as they were before `escaped`."""
    return [
        (name.removeprefix(ESCAPE) if _like_ours(name) else name, value) for name, value in headers
    ]


def _like_ours(name: str) -> bool:
    """Tell whether it is a name of ours, or an escaped one."""
    while name.startswith(ESCAPE):
        name = name.removeprefix(ESCAPE)
    return name in OURS


def encoded(data: bytes) -> str:
    """Return bytes as they stand in a header of ours."""
    return base64.b64encode(data).decode("ascii")


def encoded_headers(headers: Headers) -> str:
    """Return all of a user's headers as they stand in one of ours."""
    return json.dumps([(n, None if value is None else encoded(value)) for n, value in headers])


# --- parted ---------------------------------------------------------------------------------------


def split_sent(headers: Pairs[Value]) -> tuple[Pairs[Value], Marks]:
    """Return the headers of what a user sends, or is given: his own, and id and attempt as text.

    Nothing else is ours there, whatever its name, and these only where they can be read.
    """
    if not any(name in CARRIED for name, _ in headers):
        return headers, ()
    marks = tuple(
        (name, _text(value))
        for name, value in headers
        if name in CARRIED and readable(name, _text(value))
    )
    ours = {name for name, _ in marks}
    return tuple(pair for pair in headers if pair[0] not in ours), marks


def split_stored(headers: Pairs[Value]) -> tuple[Pairs[Value], Marks]:
    """Return the headers of what lies where messages are set aside: the user's own, and ours.

    Where none says where it was going, it was not set aside, and is as its user sent it.
    """
    if not any(name == DESTINATION for name, _ in headers):
        return split_sent(headers)
    own = unescaped(pair for pair in headers if pair[0] not in OURS)
    return tuple(own), tuple((name, _text(value)) for name, value in headers if name in OURS)


def _text(value: object) -> str:
    """Return a value as text; what is not UTF-8, or no text, has a character no reader takes."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "replace")
    if isinstance(value, str | int):
        return str(value)
    return "" if value is None else _NO_TEXT


# --- read -----------------------------------------------------------------------------------------


def wrong_with(marks: Marks) -> str | None:
    """Return what cannot be read of a message's headers of ours; None where all can."""
    if len(dict(marks)) < len(marks):
        return "a shield- header is there twice"
    for name, text in marks:
        try:
            _READERS[name](text)
        except KeyError:
            return f"{name[:80]!r}: is no header of ours"
        except ValueError as error:
            found = text if len(text) <= 40 else f"{text[:40]}..."
            return f"{name}: found {found!r}; {error}"
    return None


def readable(name: str, text: str) -> bool:
    """Tell whether a header of ours can be read."""
    try:
        _READERS[name](text)
    except ValueError:
        return False
    return True


def read(marks: Mapping[str, str], name: str, default: Value) -> Any | Value:
    """Return what a header of ours says; the default where it is not there, or unreadable."""
    text = marks.get(name)
    if text is None:
        return default
    try:
        return _READERS[name](text)
    except ValueError:
        return default


def attempts(message: Message) -> int:
    """Return how often a message has been diverted before; 0 where its header is no number."""
    return attempts_in(message.header(ATTEMPT))


def attempts_in(text: str | None) -> int:
    """Read the attempt header; 0 where there is none, or it is no number."""
    return 0 if text is None or not readable(ATTEMPT, text) else int(text)


def id_in(text: str | None) -> str | None:
    """Read the id header; None where there is none, or it is none of a sensible length."""
    return text if text is not None and readable(MESSAGE_ID, text) else None


def _number(most: int) -> Callable[[str], int]:
    digits = len(str(most))

    def read_number(text: str) -> int:
        if not (0 < len(text) <= digits and text.isascii() and text.isdecimal()):
            raise ValueError(f"allowed is a number from 0 to {most}")
        number = int(text)
        if number > most:
            raise ValueError(f"allowed is a number from 0 to {most}")
        return number

    return read_number


def _words(most: int, least: int = 0, *, whole: bool = True) -> Callable[[str], str]:
    """Return what reads text of so many characters; `whole` where all of it has to be UTF-8."""

    def read_words(text: str) -> str:
        if not least <= len(text) <= most:
            raise ValueError(f"allowed are {least} to {most} characters")
        if whole and _NO_TEXT in text:
            raise ValueError("allowed is UTF-8")
        return text

    return read_words


def _matching(pattern: str, allowed: str) -> Callable[[str], str]:
    compiled = re.compile(pattern, re.ASCII)

    def read_matching(text: str) -> str:
        if len(text) > LONGEST_DESTINATION or compiled.fullmatch(text) is None:
            raise ValueError(f"allowed is {allowed}")
        return text

    return read_matching


def _data(text: str) -> bytes:
    if len(text) > LONGEST_DATA:
        raise ValueError(f"allowed are {LONGEST_DATA} characters")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("allowed is base64") from None


def _user_headers(text: str) -> Headers:
    if len(text) > LONGEST_DATA:
        raise ValueError(f"allowed are {LONGEST_DATA} characters")
    try:
        return tuple([_user_header(*pair) for pair in json.loads(text)])
    except (ValueError, TypeError, RecursionError):
        raise ValueError("allowed is a list of names and values in JSON") from None


def _user_header(name: object, value: object) -> tuple[str, bytes | None]:
    if not isinstance(name, str) or not (value is None or isinstance(value, str)):
        raise TypeError
    name.encode()  # JSON can name half a character, which no broker can hold
    return name, None if value is None else _data(value)


def _time(text: str) -> datetime:
    if len(text) > 40:
        raise ValueError("allowed is a time as RFC 3339 has it")
    return datetime.fromisoformat(text)


_label = _words(LONGEST_TEXT, whole=False)
_destination = _words(LONGEST_DESTINATION, 1)
_READERS: dict[str, Callable[[str], Any]] = {
    ATTEMPT: _number(999_999_999),
    BROKER: _matching(r"[a-z][a-z0-9+.-]*://[\w.:,\[\]-]*(/[^\s@?#${}]*)?", "scheme://host:port"),
    DESTINATION: _destination,
    DIVERTED_AT: _time,
    HEADERS: _user_headers,
    KEY: _data,
    MESSAGE_ID: _words(LONGEST_ID, 1),
    NATIVE: _data,
    PARTITION: _number(2**31 - 1),
    POLICY: _label,
    PRODUCER: _label,
    REASON: _label,
    ROUTING_KEY: _words(LONGEST_DESTINATION),
    RULE: _label,
    SIGNATURE: _matching(r"v1:[0-9a-f]{64}", "v1: and 64 hexadecimal digits"),
    TIMESTAMP: _number(LAST_MS),
    TOMBSTONE: _matching("1", "1"),
    **dict.fromkeys(AMQP_OWN, _label),
}
OURS = frozenset(_READERS)
"""Every name that Shield writes."""
