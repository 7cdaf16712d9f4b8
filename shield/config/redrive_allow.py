"""Where redrive may bring messages to: what their headers say of it is a stranger's word.

A message goes back on the broker that it is read from, to a destination that a rule covers. For
all else the operator has to give his word: `--allow`, `redrive_allow`, or `--to`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote

from shield.envelope import Envelope
from shield.errors import SettingsError, ShieldError
from shield.rule import Rule, glob_matches
from shield.url import URL, is_url, masked, same_broker

Reaches = Callable[[Envelope], Iterable[str]]
"""Returns every destination that a message would reach: copies may be named beside the one."""
HomeOf = Callable[[URL], URL]
"""Returns the broker that a URL's place is on."""
ALLOWED = (
    "allowed is a broker as kafka://host:port or amqp://host:port/vhost, alone or with a glob on "
    "destinations behind it, without user, password and options; or such a glob alone"
)
LONGEST_SHOWN = 80


def checked(text: str) -> str:
    """Return an entry as it stands.

    Raises:
        ValueError: it is none; the text says what is allowed.
    """
    if is_url(text):
        url = URL.parse(text)
        if url.username is not None or url.options or not url.hosts:
            raise ValueError(ALLOWED)
    elif not text or "://" in text:
        raise ValueError(ALLOWED)
    return text


@dataclass(frozen=True, slots=True)
class AllowedDestination:
    """What one word of the operator allows: on a broker, or where messages are read from."""

    broker: URL | None
    glob: str

    @classmethod
    def of(cls, text: str, home_of: HomeOf) -> AllowedDestination:
        """Read one that is `checked`; part a URL into broker and destinations."""
        if not is_url(text):
            return cls(None, text)
        url = URL.parse(text)
        broker = home_of(url)
        glob = unquote(url.path.removeprefix(broker.path).removeprefix("/"))
        return cls(broker, glob or "*")

    def is_about(self, broker: URL | None) -> bool:
        """Tell whether it says something of a broker; None is the one that is read."""
        if self.broker is None or broker is None:
            return self.broker is broker
        return same_broker(broker, self.broker)


class RedriveAllow:
    """Says of each message whether it may go where its headers say.

    Args:
        rules: what they cover is allowed where messages are read from.
        allow: what the operator allows beside that: entries that are `checked`.
        home: the broker that messages are read from; None where they are on none.
        home_of: tells the broker of a URL's place.
        reaches: tells all destinations of a message.
        anywhere: whether he allows every destination on that broker.
        never: destinations that would lead back to where messages are read.

    Raises:
        SettingsError: an entry names a broker that nothing can send to.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        allow: Iterable[str],
        *,
        home: URL | None,
        home_of: HomeOf,
        reaches: Reaches = lambda envelope: (envelope.destination,),
        anywhere: bool = False,
        never: Callable[[str], bool] = lambda _destination: False,
    ) -> None:
        self._rules = rules
        self._home = home
        self._home_of = home_of
        self._reaches = reaches
        self._anywhere = anywhere
        self._never = never
        self._believes = False
        self._entries = []
        for text in allow:
            try:
                self._entries.append(AllowedDestination.of(checked(text), home_of))
            except (ShieldError, ValueError) as error:
                raise SettingsError(f"allow: found {masked(text)!r}; {error}") from None

    def believe(self) -> None:
        """Allow all: where messages are going is known from what is this user's own, as a spool."""
        self._believes = True

    def elsewhere(self, envelope: Envelope) -> URL | None:
        """Return which other broker a message names; None where it is the one that is read."""
        if envelope.broker is None:
            return None
        broker = URL.parse(envelope.broker)
        return None if self._home is not None and same_broker(broker, self._home) else broker

    def why_not(self, envelope: Envelope) -> str | None:
        """Return why a message, as it was, may not go where it was going; None where it may.

        The text says what would allow it.
        """
        try:
            broker = self.elsewhere(envelope)
            places = tuple(self._reaches(envelope))
        except Exception as error:
            return f"where it was going cannot be read: {type(error).__name__}"
        if self._believes:
            return self._no_broker(broker)
        if broker is None and self._home is None:
            return "its headers name no broker, and it is read from none; allowed with --to URL"
        for place in places:
            if broker is None and self._never(place):
                return f"it was going to {shown(place)}, where it is read from"
            if not self._allows(broker, place):
                return self._refusal(broker, place)
        return None

    def why_not_there(self, envelope: Envelope) -> str | None:
        """Return why nothing at all may be sent to a message's broker; None where it may."""
        broker = self.elsewhere(envelope)
        if broker is None or self._believes:
            return self._no_broker(broker)
        if any(entry.is_about(broker) for entry in self._entries):
            return None
        return self._refusal(broker, envelope.destination)

    def _no_broker(self, broker: URL | None) -> str | None:
        """Say why what a message names is no broker at all: a file never comes from a message."""
        if broker is None:
            return None
        try:
            self._home_of(broker)
        except (ShieldError, ValueError) as error:
            return f"{shown(str(broker))} is no broker: {error}"
        return None

    def _allows(self, broker: URL | None, place: str) -> bool:
        if broker is None and (self._anywhere or self._is_covered(place)):
            return True
        return any(
            entry.is_about(broker) and glob_matches(entry.glob, place) for entry in self._entries
        )

    def _is_covered(self, place: str) -> bool:
        """Tell whether a rule is about it, whoever sends: that, too, is only a header's word."""
        return any(rule.is_about(place) for rule in self._rules)

    def _refusal(self, broker: URL | None, place: str) -> str:
        if broker is None:
            return (
                f"no rule covers {shown(place)}; allowed with --to original, --allow "
                f"{shown(place)}, or redrive_allow in the settings"
            )
        entry = f"{broker}{'' if str(broker).endswith('/') else '/'}{quote(place, safe='/*')}"
        return (
            f"{shown(str(broker))} is not the broker that it is read from; allowed with --allow "
            f"{shown(entry)}, or redrive_allow in the settings"
        )


def shown(text: str) -> str:
    """Return a stranger's text as it can be printed anywhere: on one line, and not too long."""
    return repr(text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "...")
