"""`--where`: which messages are meant, and what is said of a text that is no such expression."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield import SettingsError
from shield.where import ALLOWED, where
from tests.memory import diverted

MESSAGE = diverted(1, rule="orders", attempt=2, headers=(("tenant", b"acme corp"),))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("rule==orders", True),
        ("rule == 'orders'", True),
        ("rule != orders", False),
        ("producer==checkout && destination==orders.created", True),
        ("producer==audit || attempt==2", True),
        ("producer==audit && attempt==2 || rule==orders", True),
        ("producer==audit && (attempt==2 || rule==orders)", False),
        ('header tenant == "acme corp"', True),
        ("header tenant == acme", False),
        ("header 'other one' != x", True),
        ("policy==quota", False),
        ("reason==''", True),
    ],
)
def test_it_compares_what_the_headers_say(text, meant):
    """`&&` binds before `||`; what a message has no header for is empty."""
    assert where(text)(MESSAGE) is meant


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "the end at character 1"),
        ("rule", "the end at character 5"),
        ("rule=orders", "'=orders' at character 5"),
        ("rule==", "the end at character 7"),
        ("rule==a b", "'b' at character 9"),
        ("colour==red", "'colour' at character 1"),
        ("(rule==a", "the end at character 9"),
        ("rule==a &&", "the end at character 11"),
        ("rule==a & b", "'& b' at character 9"),
        ("rule == 'a", '"\'a" at character 9'),
        ("header == x", "'==' at character 8"),
        ("__import__('os')", "'__import__' at character 1"),
    ],
)
def test_what_is_no_expression_is_refused_where_it_goes_wrong(text, found):
    """The error names the place, what stands there, and all that is allowed."""
    with pytest.raises(SettingsError) as refused:
        where(text)
    assert str(refused.value) == f"where: found {found}; {ALLOWED}"


@given(st.text(max_size=20))
def test_any_text_is_an_expression_or_an_error_in_words(text):
    """No text makes it fail in another way."""
    try:
        answer = where(text)(MESSAGE)
    except SettingsError:
        return
    assert answer in (True, False)


def test_an_expression_has_bounds():
    """One that is deep or long beyond use is an error, not a crash."""
    for text in ("(" * 20_000, "(" * 51 + "rule==a" + ")" * 51, "rule==a || " * 2000 + "rule==b"):
        with pytest.raises(SettingsError, match="where: "):
            where(text)
    assert where("(" * 50 + "rule==a" + ")" * 50)
