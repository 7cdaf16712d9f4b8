"""No password comes out of the command line, wherever it came in."""

from __future__ import annotations

import pytest

RULES = """
[credentials.other]
url = "amqp://other"
username = "bob"
password = "canary-section"

[[rules]]
match = "orders.*"
backlog = { limit = 5, management = "http://bob:canary-url@other:15672" }
over_limit = [
  "overflow kafka://bob:canary-url@other:9092/orders?security_protocol=SASL_PLAINTEXT",
  "overflow amqp://bob:${SECRET}@other//orders",
  { overflow = { destination = "kafka://a:canary-url@other:1/t?ssl_password=canary-option" } },
  "overflow amqp://other//late",
  "raise",
]
"""
COMMANDS = [
    ("config", "check"),
    ("config", "check", "--json"),
    ("config", "show"),
    ("config", "show", "--json"),
    ("config", "schema"),
    ("plugins",),
]


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("SECRET", "canary-variable")
    monkeypatch.setenv("SHIELD_CREDENTIALS__MORE__URL", "kafka://more:9092")
    monkeypatch.setenv("SHIELD_CREDENTIALS__MORE__PASSWORD", "canary-environment")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_shows_a_password(run, write, command):
    """Of a URL, a variable, an option, a section, or the environment."""
    write(RULES)
    result = run(*command)
    assert result.exit_code == 0, result.stderr
    assert "canary" not in result.output + result.stderr


def test_show_has_the_sections_without_their_passwords(run, write):
    """And says where they came from."""
    write(RULES)
    text = run("config", "show").stdout
    assert "[credentials.other]    # environment variable SHIELD_CREDENTIALS__MORE" in text
    assert 'username = "bob"' in text
    assert "[credentials.more]" in text


@pytest.mark.parametrize(
    "wrong",
    [
        RULES.replace("other:9092/orders", "other:9092/no/topic"),
        RULES.replace("kafka://bob", "kafk://bob"),
        RULES.replace("other//orders", "other//"),
        RULES.replace("overflow =", "overflw ="),
        RULES.replace("ssl_password", "tls_password"),
        RULES.replace('"raise",', '"raise", "overflow kafka://x:canary@other/t"'),
        RULES.replace("password =", "passwort ="),
        RULES.replace('url = "amqp://other"', 'url = "amqp://x:canary@other"'),
        RULES.replace("SASL_PLAINTEXT", "PLAINTEXT"),
        RULES.replace("http://bob", "htp://bob"),
        RULES.replace("limit = 5, man", "limit = 0, man"),
        RULES.replace("management =", "managment ="),
    ],
)
def test_no_error_shows_a_password(run, write, wrong):
    """Whatever is wrong with the file."""
    write(wrong)
    for command in COMMANDS[:3]:
        result = run(*command)
        assert "canary" not in result.output + result.stderr
    assert run("config", "check").exit_code == 2
