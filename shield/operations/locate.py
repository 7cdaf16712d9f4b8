"""What `shield redrive FROM` names: a URL, a file, or a rule whose messages are in one place."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from shield.config.credentials import with_credentials
from shield.errors import SettingsError
from shield.safe_files import open_file
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
    if places.get(text):
        return with_credentials(_only(text, places[text]), shield.settings.credentials)
    if os.path.lexists(text):
        return URL(_kind(Path(text)), "", quote(os.path.abspath(text)))
    having = sorted(rule for rule, urls in places.items() if urls)
    known = f", or a rule ({', '.join(having)})" if having else ""
    found = f"rule {text!r}, of which nothing is in a place with a URL" if text in places else None
    raise SettingsError(
        f"source: found {found or repr(text)}; allowed is a URL as kafka://host:port/topic or "
        f"amqp://host/vhost/queue, the path of a spool or a file that is there{known}"
    )


def _of_rules(shield: Shield) -> dict[str, list[URL]]:
    """Return where the messages of each rule are, as far as the actions of its chain know."""
    return {
        rule.name: [url for action in rule.chain for url in action.places(shield.engine)]
        for rule in shield.rules
    }


def _only(rule: str, urls: list[URL]) -> URL:
    """Return the one place of a rule.

    Raises:
        SettingsError: there are more; it names them.
    """
    if len(set(urls)) > 1:
        names = " or ".join(map(str, urls))
        raise SettingsError(
            f"source: found rule {rule!r}, whose messages are in {len(urls)} places; allowed is "
            f"one of them: {names}"
        )
    return urls[0]


def _kind(path: Path) -> str:
    """Tell a spool from a file of messages; what is neither is refused by what opens it.

    Raises:
        UnsafeFileError: it is no plain file, or not this user's.
        SettingsError: it cannot be read.
    """
    try:
        file = open_file(path, os.O_RDONLY)
        try:
            beginning = os.pread(file, len(SQLITE), 0)
        finally:
            os.close(file)
    except OSError as error:
        raise SettingsError(f"source: {path}: cannot be read: {error.strerror}") from None
    if not beginning:
        raise SettingsError(f"source: {path}: is empty")
    return "spool" if beginning == SQLITE else "file"
