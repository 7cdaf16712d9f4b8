"""What `shield redrive FROM` names: a URL, a file, or a rule whose messages are somewhere."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from shield.credentials import with_credentials
from shield.errors import SettingsError
from shield.shield import Shield
from shield.url import URL, is_url, masked

SQLITE = b"SQLite format 3\0"


def place_of(text: str, shield: Shield) -> URL:
    """Return the URL of a place, with user and password from the settings where it has none.

    Raises:
        SettingsError: nothing has that name; it says what is allowed.
    """
    if is_url(text):
        try:
            return shield.settings.url(text)
        except ValueError as error:
            raise SettingsError(f"source: found {masked(text)!r}; {error}") from None
    places = _of_rules(shield)
    if text in places:
        return with_credentials(places[text], shield.settings.credentials)
    if Path(text).is_file():
        return URL(_kind(Path(text)), "", quote(str(Path(text).resolve())))
    known = f", or a rule ({', '.join(sorted(places))})" if places else ""
    raise SettingsError(
        f"source: found {text!r}; allowed is a URL as kafka://host:port/topic or "
        f"amqp://host/vhost/queue, the path of a spool or a file that is there{known}"
    )


def _of_rules(shield: Shield) -> dict[str, URL]:
    """Return where the messages of each rule are, where its chain has one such place."""
    places = {}
    for rule in shield.rules:
        for action in rule.chain:
            if action.place is not None:
                places[rule.name] = action.place
    return places


def _kind(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return "spool" if file.read(len(SQLITE)) == SQLITE else "file"
    except OSError as error:
        raise SettingsError(f"source: {path}: cannot be read: {error.strerror}") from None
