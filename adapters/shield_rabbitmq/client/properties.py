"""Properties of a message that goes another way: what routes or expires it is saved, and back.

What a message brings under a name that is written here is its own: it is renamed for the way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache

from shield.errors import ExpiredError
from shield.headers import (
    AMQP_OWN,
    ATTEMPT,
    DESTINATION,
    MESSAGE_ID,
    OURS,
    ROUTING_KEY,
    readable,
)
from shield_rabbitmq.client.raw_properties import (
    EXPIRATION,
    USER_ID,
    Encoded,
    long_string,
    short_string,
    value_of,
)

Marks = tuple[tuple[str, str], ...]
Headers = list[tuple[bytes, bytes]]

ORIGINAL = ("x-original-exchange", "x-original-routingKey")
"""Where it was published, in words that other tools know."""
COPIES = b"x-original-CC"
"""To where else, of a copy that a consumer was given: it is routed there no more."""
ORIGINAL_USER = "x-original-user-id"
"""By whom, of such a copy: nobody but that user may publish with its name."""
OPTIONAL = "shield-original-mandatory"
"""`false` where it is no error that no queue takes it."""
EXPIRES = "shield-expires-at"
"""When it expires, in milliseconds since 1970."""
OWN = b"shield-own-"
"""Stands before the name of a header that is the message's own, and would be taken for ours."""
LONGEST_NUMBER = 15
"""Digits: no time is longer, in milliseconds."""

_ROUTING = {b"CC": b"shield-original-cc", b"BCC": b"shield-original-bcc"}
"""They would route a diverted copy to the original queues again."""
_ROUTED = {saved: name for name, saved in _ROUTING.items()}
_FIELDS = {EXPIRATION: "shield-original-expiration", USER_ID: "shield-original-user-id"}
"""It would expire, and may be published by its own user only."""
_ORIGINAL = frozenset(name.encode() for name in ORIGINAL)
_SAVED = frozenset(name.encode() for name in _FIELDS.values()) | frozenset(_ROUTED)
_BESIDE = frozenset((OPTIONAL.encode(), EXPIRES.encode()))
_LASTING = frozenset((ATTEMPT.encode(), MESSAGE_ID.encode()))
"""They stay with a message for life, whoever sends it on."""


def kept(properties: Encoded, mandatory: bool, sent_ms: int) -> Encoded:
    """Return properties with what a message is sent by beside them, as long as it is not sent.

    Args:
        properties: as its user gave them, or a consumer was given them.
        mandatory: whether it is an error that no queue takes it.
        sent_ms: when it was first sent, in milliseconds since 1970: its time to live runs.
    """
    result = properties.copy()
    result.headers = _renamed(result.headers, _own_if(_BESIDE))
    texts = [] if mandatory else [(OPTIONAL, "false")]
    to_live = number_in(result.text(EXPIRATION))
    if to_live is not None:
        texts.append((EXPIRES, str(sent_ms + to_live)))
    result.add_texts(texts)
    return result


def plain(properties: Encoded) -> tuple[Encoded, str | None, str | None]:
    """Return properties as they were before `kept`; and what was said beside them."""
    result = properties.copy()
    optional, expires = result.pop_text(OPTIONAL), result.pop_text(EXPIRES)
    result.headers = _renamed(result.headers, _without_own)
    return result, optional, expires


def sendable(properties: Encoded, now_ms: int) -> tuple[Encoded, bool]:
    """Return properties as they are sent now, and whether the message is mandatory.

    Its time to live has run since it was first sent, and is not begun anew.

    Raises:
        ExpiredError: that is over.
    """
    result, optional, expires = plain(properties)
    to_live = number_in(result.text(EXPIRATION))
    until_ms = number_in(expires)
    if to_live is not None and until_ms is not None:
        left_ms = min(to_live, until_ms - now_ms)
        if left_ms <= 0:
            raise ExpiredError(f"its time to live, {to_live} ms, is over")
        result.fields[EXPIRATION] = short_string(str(left_ms))
    return result, optional != "false"


def set_aside(properties: Encoded, marks: Mapping[str, str]) -> Encoded:
    """Return kept properties with our headers, and without what routes or expires; a copy.

    Raises:
        ValueError: a header's name is too long to be saved.
    """
    result = properties.copy()
    said = _original(marks)
    own = [pair for pair in result.headers or () if _stays(pair[0], marks)]
    result.headers = [(_saved(name, said.get(name) == value), value) for name, value in own]
    texts = {}
    for flag, name in _FIELDS.items():
        text = result.text(flag)
        if text is not None:
            texts[name] = text
            del result.fields[flag]
    if not any(name in _ORIGINAL for name, _ in own):  # a copy that says itself where it was
        result.headers += said.items()
    result.add_texts({**texts, **marks}.items())
    return result


def brought_back(properties: Encoded) -> tuple[Encoded, Marks]:
    """Return kept properties as they were before `set_aside`, and our headers.

    Without our headers, nothing that a message brings is taken for something saved.
    """
    own, marks = split(properties)
    said = dict(marks)
    if DESTINATION not in said:
        own, marks = of_life(properties.copy())
        own.headers = _renamed(own.headers, _own_if(_BESIDE))
        return own, marks
    original = _original(said).items()
    own.headers = [pair for pair in own.headers or () if pair not in original]
    for flag, name in _FIELDS.items():
        text = own.pop_text(name)
        if text is not None:
            own.fields[flag] = short_string(text)
    own.headers = _renamed(own.headers, _restored) or None
    return own, marks


def split(properties: Encoded) -> tuple[Encoded, Marks]:
    """Return properties without our headers, and these as texts."""
    return _split(properties, lambda name, _value: _is_mark(name))


def of_life(properties: Encoded) -> tuple[Encoded, Marks]:
    """Return properties without the headers that a message keeps for life, and these as texts.

    Those that cannot be read are its user's own.
    """
    return _split(
        properties,
        lambda name, value: name in _LASTING and readable(name.decode(), _text(value)),
    )


def _split(properties: Encoded, is_ours: Callable[[bytes, bytes], bool]) -> tuple[Encoded, Marks]:
    headers = properties.headers
    if headers is None:
        return properties, ()
    result = properties.copy()
    result.headers = [pair for pair in headers if not is_ours(*pair)]
    return result, tuple((n.decode(), _text(value)) for n, value in headers if is_ours(n, value))


def unrouted(properties: Encoded) -> Encoded:
    """Return properties without what routes beside exchange and key, that saved; a copy."""
    result = properties.copy()
    result.headers = _renamed(result.headers, lambda name: _ROUTING.get(name, name))
    return result


def received(properties: Encoded, exchange: str, routing_key: str, user: str | None) -> Encoded:
    """Return the properties of a copy that a consumer was given, as it goes back to its queue.

    It goes there alone: what it was routed by is not what routes it any more, but for its
    consumers to see, in headers that stay. A copy that has come back before keeps those it has.

    Args:
        properties: as it came.
        exchange: where it was published.
        routing_key: with which key.
        user: whose connection sends it on; the broker accepts no other as `user_id`.
    """
    result = properties.copy()
    given = result.headers or ()
    result.headers = _renamed(result.headers, lambda name: COPIES if name in _ROUTING else name)
    there = {name for name, _ in given}
    if exchange and not there & {name.encode() for name in ORIGINAL}:
        result.add_texts(zip(ORIGINAL, (exchange, routing_key), strict=True))
    publisher = result.text(USER_ID)
    if publisher is not None and publisher != user:
        del result.fields[USER_ID]
        if ORIGINAL_USER.encode() not in there:
            result.add_texts([(ORIGINAL_USER, publisher)])
    return result


def _original(marks: Mapping[str, str]) -> dict[bytes, bytes]:
    """Return where a message was going, in the words of other tools: our headers say the same."""
    routing_key = marks.get(ROUTING_KEY, marks[DESTINATION])
    exchange = marks[DESTINATION].removesuffix(routing_key).removesuffix("/")
    said = zip(ORIGINAL, (exchange, routing_key), strict=True)
    return {name.encode(): long_string(text.encode()) for name, text in said}


def now_ms() -> int:
    """Return the time, in milliseconds since 1970."""
    return int(time.time() * 1000)


def number_in(text: str | None) -> int | None:
    """Return the milliseconds that a text says; None where it says none."""
    fits = text is not None and text.isdecimal() and text.isascii() and len(text) <= LONGEST_NUMBER
    return int(text) if fits and text is not None else None


def _stays(name: bytes, marks: Mapping[str, str]) -> bool:
    """Tell whether a message's own header goes along: an older id or attempt count does not."""
    return name not in _LASTING or name.decode() not in marks


def _renamed(headers: Headers | None, new: Callable[[bytes], bytes]) -> Headers | None:
    return None if headers is None else [(new(name), value) for name, value in headers]


def _own_if(names: Collection[bytes]) -> Callable[[bytes], bytes]:
    return lambda name: OWN + name if name in names or name.startswith(OWN) else name


def _without_own(name: bytes) -> bytes:
    return name.removeprefix(OWN)


def _saved(name: bytes, as_ours: bool) -> bytes:
    """Return the name under which a message's own header goes along."""
    if name in _ROUTING:
        return _ROUTING[name]
    ours = as_ours or name in _SAVED or name.startswith(OWN) or _is_mark(name)
    return OWN + name if ours and name not in _LASTING else name


def _restored(name: bytes) -> bytes:
    return _without_own(name) if name.startswith(OWN) else _ROUTED.get(name, name)


@lru_cache(maxsize=1024)
def _is_mark(name: bytes) -> bool:
    if name in _ORIGINAL | _SAVED | _BESIDE or name.startswith(OWN):
        return False
    return name.decode("utf-8", "replace") in OURS - AMQP_OWN


def _text(value: bytes) -> str:
    found = value_of(value)
    return found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)
