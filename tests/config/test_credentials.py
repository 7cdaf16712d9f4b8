"""Users and passwords of other brokers: from a section or the environment, into no output."""

from __future__ import annotations

import pytest

from shield import URL, SettingsError, Shield
from shield.config.settings import read_settings

OTHER = {"url": "kafka://other:9092", "username": "bob", "password": "canary"}


def settings(**sections):
    return read_settings({"credentials": sections})


def test_a_section_names_user_and_password_of_its_urls():
    """Those that begin with its URL; others have none."""
    found = settings(other=OTHER)
    url = found.url("kafka://other:9092/topic?linger_ms=5")
    assert (url.username, url.password, url.path) == ("bob", "canary", "topic")
    for other in ("kafka://other:9093/topic", "amqp://other:9092/x", "kafka://others:9092/topic"):
        assert found.url(other).password is None


def test_a_url_that_brings_its_own_keeps_it():
    """And one that names another user is not meant; one that names the same is."""
    found = settings(other=OTHER)
    assert found.url("kafka://eve:own@other:9092/t").password == "own"
    assert found.url("kafka://eve@other:9092/t").password is None
    assert found.url("kafka://bob@other:9092/t").password == "canary"


def test_the_section_that_says_most_counts():
    """Whole segments of a path."""
    more = {"url": "amqp://other/vhost", "username": "eve", "password": "x"}
    found = settings(other={"url": "amqp://other", "username": "bob"}, more=more)
    assert found.url("amqp://other/vhost/exchange").username == "eve"
    assert found.url("amqp://other/vhosts/exchange").username == "bob"


def test_one_of_several_servers_is_not_enough():
    """A stranger among them would be told the password as well."""
    found = settings(other=OTHER).url("kafka://first:1,other:9092/t")
    assert (found.username, found.password) == (None, None)


def test_the_environment_fills_in_the_password(monkeypatch, tmp_path):
    """The file has the rest."""
    monkeypatch.setenv("SHIELD_CREDENTIALS__OTHER__PASSWORD", "canary")
    file = tmp_path / "shield.toml"
    file.write_text('[credentials.other]\nurl = "kafka://other:9092"\nusername = "bob"\n')
    found = Shield.load(file).settings
    assert found.url("kafka://other:9092/t").password == "canary"
    assert "canary" not in repr(found)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"url": "nowhere"}, "credentials.other.url: not a URL"),
        ({"url": "kafka://bob:canary@other"}, "without user, password and options"),
        ({"username": "bob"}, "credentials.other.url: is missing"),
        ({**OTHER, "passwort": "canary"}, "credentials.other.passwort: unknown key; did you mean"),
        ({**OTHER, "password": ["canary"]}, "credentials.other.password: allowed is"),
        ({**OTHER, "username": ""}, "credentials.other.username: allowed is"),
        ("canary", "credentials.other: "),
    ],
)
def test_a_wrong_section_is_one_line_without_its_secrets(section, expected):
    """The key, and what is allowed; never what was found."""
    with pytest.raises(SettingsError) as caught:
        settings(other=section)
    (problem,) = caught.value.problems
    assert expected in problem
    assert "canary" not in problem


def test_a_variable_that_is_no_json_is_not_shown(monkeypatch):
    """It may hold passwords."""
    monkeypatch.setenv("SHIELD_CREDENTIALS", "{canary")
    with pytest.raises(SettingsError) as caught:
        settings()
    assert "SHIELD_CREDENTIALS" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_names_are_as_the_environment_can_write_them():
    """Lower case: variables have none."""
    with pytest.raises(SettingsError, match="Other"):
        settings(Other=OTHER)


def test_a_url_is_a_url():
    """`settings.url` says what is wrong like `URL.parse`."""
    with pytest.raises(ValueError, match="not a URL"):
        settings().url("orders")
    assert settings().url("kafka://h/t") == URL.parse("kafka://h/t")
