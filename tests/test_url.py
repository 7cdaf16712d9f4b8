"""URLs of other places: read in their parts, shown without secrets."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield import URL
from shield.url import is_url, masked

odd = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), min_size=1)


def test_a_url_is_read_in_its_parts():
    """Hosts may be several; options keep their order."""
    url = URL.parse("kafka://bob:pw@a:1,b:2/topic?x=1&y=")
    assert (url.scheme, url.hosts, url.path) == ("kafka", "a:1,b:2", "topic")
    assert (url.username, url.password) == ("bob", "pw")
    assert url.options == (("x", "1"), ("y", ""))
    assert URL.parse("file:///a/b").path == "/a/b"
    assert URL.parse("place://[::1]:5/x").hosts == "[::1]:5"


@given(odd, odd)
def test_user_and_password_may_be_anything_that_is_encoded(user, password):
    """And neither is shown."""
    url = URL.parse(f"amqp://{quote(user, safe='')}:{quote(password, safe='')}@host/vhost")
    assert (url.username, url.password) == (user, password)
    assert str(url) == "amqp://host/vhost"
    assert repr(url) == "URL(scheme='amqp', hosts='host', path='vhost')"


@given(odd)
def test_what_a_variable_holds_is_taken_as_it_is(secret):
    """Also where it has what parts a URL."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET", secret.replace("\0", "0"))
        url = URL.parse("amqp://bob:${SECRET}@host/vhost")
    assert (url.password, url.hosts, url.path) == (secret, "host", "vhost")


def shown(text: str) -> str:
    """Return what is seen of a URL: itself, or what is wrong with it."""
    try:
        url = URL.parse(text)
        return f"{url} {url!r} {url.options_of()}"
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("password", ["1/", "1?", "1#", "1@", "1?a=", "a b", ":", "[", "%"])
def test_a_password_that_parts_the_url_is_never_shown(password):
    """Wherever it ends, what is behind it is no host's name."""
    assert "CANARY" not in shown(f"amqp://bob:{password}CANARY@host/vhost?x=1")


@given(odd)
def test_a_password_that_is_not_encoded_is_never_shown(password):
    """It is masked in a text; and where it makes the URL unreadable, the error leaves it out."""
    text = f"overflow amqp://bob:{password}CANARY@host/vhost"
    assert "CANARY" not in masked(text)
    assert "CANARY" not in shown(text.removeprefix("overflow "))


@pytest.mark.parametrize(
    "text",
    ["orders", "http:/x", "a://[", "a://ho st/x", "a://h:port/x", "a://u:p/w@h/x", "a://h/x@y"],
)
def test_what_is_no_url_is_refused(text):
    """With what is allowed."""
    with pytest.raises(ValueError, match="allowed is scheme://"):
        URL.parse(text)


def test_a_topic_or_an_exchange_is_no_url():
    """They have no scheme."""
    assert not any(map(is_url, ("orders.overflow", "exchange/key", "a:b", "://x", "$A://x")))


def test_passwords_are_masked_wherever_a_url_stands():
    """Also in options."""
    text = "a://u:pw@h/x?ssl_password=pw2&y=1 > overflow b://:pw3@h"
    assert "pw" not in masked(text).replace("ssl_password", "")
    assert masked("overflow a://h:1/x") == "overflow a://h:1/x"


@pytest.mark.parametrize(
    "text",
    [
        "amqp://CANARY@host/vhost",
        "amqp://CANARY:x@host/vhost",
        "amqp:/bob:CANARY@host",
        "amqp:bob:CANARY@host",
        "kafka//CANARY@host",
        "bob:CANARY@host:5672",
        "amqp://h/x?ssl_options={'certfile': 'a b', 'password': 'CANARY'}",
        "amqp://h/x?ssl_options=%7B%27password%27:%27CANARY%27%7D&heartbeat=5",
        "kafka://h/x?sasl_plain_pwd=CANARY",
        "kafka://h/x?oauth_token=CANARY&x=1",
    ],
)
def test_who_a_user_is_and_what_was_mistyped_is_masked(text):
    """A token may be a user's name; a password stands also in what lacks a slash."""
    assert "CANARY" not in masked(f"overflow {text}")
    assert "CANARY" not in masked(repr(text))


@pytest.mark.parametrize("port", ["0", "65536", "99999", "9" * 5000])
def test_a_port_is_one_that_there_is(port):
    """Sixteen bits."""
    with pytest.raises(ValueError, match="allowed is 1 to 65535"):
        URL.parse(f"kafka://a:9092,b:{port}/x")


def test_segments_are_decoded_one_by_one():
    """A slash within one is %2F."""
    assert URL.parse("amqp://h/%2F/a%2Fb/c/d").segments(3) == ["/", "a/b", "c/d"]
    assert URL.parse("amqp://h").segments(3) == []
