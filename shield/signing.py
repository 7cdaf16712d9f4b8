"""`signing_key`: headers of ours that nobody without the key can have written.

A signature holds for one message: it covers all that our headers say of it, its key, and a digest
of its body. It covers neither the user's own headers and properties, which brokers change, nor how
often the message is there: a copy is as good as the original, and has the same id.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import replace

from shield import headers as ours
from shield.envelope import Envelope

SIGNED = sorted(
    ours.OURS
    - ours.AMQP_OWN
    - {ours.HEADERS, ours.KEY, ours.NATIVE, ours.SIGNATURE, ours.TOMBSTONE}
)
"""What is the same whatever kind of broker holds the message. Key and tombstone are signed as what
they are, wherever they stand."""
_FORM = b"shield-signature v1"


class Signer:
    """Signs with the first of some keys; any of them vouches for a message."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(keys)

    def sign(self, marks: Mapping[str, str], body: bytes | None, key: bytes | None) -> str:
        """Return the signature of a message with these headers of ours."""
        return _signature(self._keys[0], _content(marks, body, key))

    def vouches(self, envelope: Envelope) -> bool:
        """Tell whether a message, as it lies where it was set aside, was signed with a key."""
        marks, was = dict(envelope.marks), envelope.restored()
        found = marks.get(ours.SIGNATURE, "").encode("utf-8", "replace")
        content = _content(marks, was.body, was.key)
        return any(
            hmac.compare_digest(_signature(key, content).encode(), found) for key in self._keys
        )

    def known(self, envelope: Envelope) -> Envelope:
        """Return a message as it is to be taken: one that no key vouches for is a stranger's.

        What its headers of ours say is then as any other header of its user.
        """
        if not envelope.is_diverted or self.vouches(envelope):
            return envelope
        return replace(envelope, headers=envelope.all_headers(), marks=())

    def __repr__(self) -> str:
        return f"Signer({len(self._keys)} keys)"


def _signature(key: bytes, content: bytes) -> str:
    return f"v1:{hmac.new(key, content, hashlib.sha256).hexdigest()}"


def _content(marks: Mapping[str, str], body: bytes | None, key: bytes | None) -> bytes:
    """Return what is signed: each part with its length, so that none runs into the next."""
    texts = [marks.get(name) for name in SIGNED]
    parts = [None if text is None else text.encode("utf-8", "replace") for text in texts]
    digest = None if body is None else hashlib.sha256(body).digest()
    return _FORM + b"".join(map(_part, (*parts, key, digest)))


def _part(data: bytes | None) -> bytes:
    return b"-" if data is None else b"%d:%b" % (len(data), data)
