"""What a stranger may write into an overflow destination, for every client that reads one back."""

from __future__ import annotations

from shield.headers import (
    ATTEMPT,
    BROKER,
    DESTINATION,
    HEADERS,
    KEY,
    NATIVE,
    PARTITION,
    ROUTING_KEY,
    TIMESTAMP,
)

DIGITS = "9" * 5000
DEEP = "[" * 100_000
UNREADABLE = {
    "an attempt of 5,000 digits": {ATTEMPT: DIGITS},
    "a timestamp that is text": {TIMESTAMP: "yesterday"},
    "a timestamp far below zero": {TIMESTAMP: "-99999999999999"},
    "a partition of 5,000 digits": {PARTITION: DIGITS},
    "headers 100,000 deep": {HEADERS: DEEP},
    "a key that is no base64": {KEY: "%%%"},
    "properties that are no base64": {NATIVE: "%%%"},
    "no destination at all": {DESTINATION: ""},
    "a user in the broker": {BROKER: "kafka://user:${HOME}@stranger:9092"},
    "a variable in the broker": {BROKER: "kafka://${HOME}:9092"},
}
"""These cannot be read: each fails alone, and is named."""
ELSEWHERE = {
    "a file": {BROKER: "file:///tmp/shield-stranger"},
    "another broker": {BROKER: "kafka://stranger:9092"},
    "a list with a known host": {BROKER: "kafka://localhost:9092,stranger:9092"},
    "another kind of broker": {BROKER: "amqp://stranger:5672/", ROUTING_KEY: "orders"},
    "what no rule covers": {DESTINATION: "payments"},
}
"""These can be read, and nothing allows them."""


def forged(destination: str, words: dict[str, str]) -> dict[str, str]:
    """Return the headers of a message that pretends to have been set aside."""
    return {DESTINATION: destination, "shield-message-id": "stranger", **words}
