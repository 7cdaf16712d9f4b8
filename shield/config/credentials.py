"""Who to be at another broker: the `[credentials.NAME]` sections of the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, StringConstraints

from shield.settings_model import StrictModel
from shield.url import URL, servers_of


def _checked(text: str) -> str:
    url = URL.parse(text)
    if url.password is not None or url.options:
        raise ValueError("allowed is scheme://host:port[/path], without user, password and options")
    return text


class Credential(StrictModel):
    """One `[credentials.NAME]` table: for URLs of one broker that have no password themselves."""

    url: Annotated[str, AfterValidator(_checked)]
    """Which URLs: those that begin with it, as `kafka://other:9092` or `amqp://other/vhost`.

    Of a URL that names several hosts, all have to be named here.
    """
    username: str | None = Field(default=None, min_length=1)
    """Who to be there; a URL that names another user is not meant."""
    password: SecretStr | None = None
    """The password; better in the environment, as `SHIELD_CREDENTIALS__NAME__PASSWORD`."""

    def covers(self, url: URL) -> bool:
        """Tell whether it is meant for that URL."""
        own = URL.parse(self.url)
        under = not own.path or url.path == own.path or url.path.startswith(own.path + "/")
        user = url.username is None or self.username in (None, url.username)
        there = servers_of(url) <= servers_of(own)
        return own.scheme == url.scheme and there and under and user


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(_[a-z0-9]+)*$")]
Credentials = Mapping[str, Credential]


def with_credentials(url: URL, credentials: Credentials) -> URL:
    """Return the URL with user and password of the section that says most about it, if any does."""
    if url.password is not None:
        return url
    meant = [section for section in credentials.values() if section.covers(url)]
    if not meant:
        return url
    section = max(meant, key=lambda section: len(section.url))
    password = None if section.password is None else section.password.get_secret_value()
    return replace(url, username=url.username or section.username, password=password)
