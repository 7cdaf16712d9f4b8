"""Rates, sizes and times as people write them."""

from __future__ import annotations

import pytest

from shield.units import Rate, parse_seconds, parse_share, parse_size


@pytest.mark.parametrize(
    ("text", "per_second", "in_bytes"),
    [
        ("500/s", 500, False),
        (" 90 / m ", 1.5, False),
        ("1/h", 1 / 3600, False),
        ("86400/d", 1, False),
        ("0.5/s", 0.5, False),
        ("1_000/s", 1000, False),
        ("5MiB/s", 5 * 1024**2, True),
        ("64KiB/m", 64 * 1024 / 60, True),
        ("1 GB/h", 10**9 / 3600, True),
        ("100B/s", 100, True),
    ],
)
def test_a_rate_is_an_amount_over_a_time(text, per_second, in_bytes):
    """Messages where it has no unit of size, bytes where it has one."""
    rate = Rate.parse(text)
    assert (rate.per_second, rate.in_bytes) == (pytest.approx(per_second), in_bytes)
    assert str(rate) == text.strip()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("500", "a rate needs a unit; "),
        ("", "a rate needs a unit; "),
        ("/s", "a rate needs a unit; "),
        ("fast", "a rate needs a unit; "),
        (500, "a rate needs a unit; "),
        (None, "a rate needs a unit; "),
        ("5/s/s", "a rate needs a unit; "),
        ("0/s", "a rate is above 0; "),
        ("-5/s", "a rate is above 0; "),
        ("0.0MiB/s", "a rate is above 0; "),
        ("9" * 400 + "/s", "a rate is finite; "),
        ("5/ms", "unknown unit '/ms'; "),
        ("5/week", "unknown unit '/week'; "),
        ("5MiB/fortnight", "unknown unit 'MiB/fortnight'; "),
        ("5mib/s", "unknown unit 'mib/s'; "),
    ],
)
def test_what_is_no_rate_is_refused_with_what_is_allowed(text, what):
    """One sentence on what is wrong, one on what is right."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared whole
        Rate.parse(text)
    assert str(caught.value) == (
        what + 'allowed is a number above 0 with its unit, as "500/s", "90/m", "5MiB/s" '
        "(/s /m /h /d)"
    )


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (1048576, 1048576),
        ("1MiB", 1024**2),
        ("1.5KiB", 1536),
        ("2 GB", 2 * 10**9),
        ("512", 512),
        ("7B", 7),
        ("1TiB", 1024**4),
    ],
)
def test_a_size_is_a_number_of_bytes_or_a_text(value, size):
    """Units of 1024 have an i, those of 1000 have none."""
    assert parse_size(value) == size


@pytest.mark.parametrize(
    "value", ["", "many", "5 apples", "1mib", True, 1.5, None, "9" * 400 + "B"]
)
def test_what_is_no_size_is_refused(value):
    """With what is allowed."""
    with pytest.raises(ValueError, match="not a size; allowed is a whole number of bytes"):
        parse_size(value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("200ms", 0.2), ("1.5s", 1.5), ("2m", 120), ("1h", 3600), ("1d", 86400), (0.25, 0.25), (3, 3)],
)
def test_a_time_is_a_number_of_seconds_or_a_text(value, seconds):
    """From milliseconds to days."""
    assert parse_seconds(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["", "soon", "5", "5 minutes", True, None])
def test_what_is_no_time_is_refused(value):
    """A text has its unit."""
    with pytest.raises(ValueError, match="not a time; allowed is a time above 0"):
        parse_seconds(value)


@pytest.mark.parametrize(
    "value", ["0s", "-1s", 0, -0.5, float("nan"), float("inf"), "9" * 400 + "s"]
)
def test_a_time_is_above_nought_and_ends(value):
    """Waiting no time at all, or for ever, is a mistake."""
    with pytest.raises(ValueError, match="allowed is a time above 0"):
        parse_seconds(value)


@pytest.mark.parametrize(
    ("value", "share"),
    [("20%", 0.2), (" 12.5 % ", 0.125), ("0%", 0), ("100%", 1), (0.5, 0.5), (0, 0), (1, 1)],
)
def test_a_share_is_a_part_of_the_whole_or_a_percentage(value, share):
    """A number from 0 to 1, or a text with its sign."""
    assert parse_share(value) == pytest.approx(share)


@pytest.mark.parametrize("value", ["", "half", "20", "0.2", "%", "20%%", True, None])
def test_what_is_no_share_is_refused(value):
    """A text has its percent sign."""
    with pytest.raises(ValueError, match="not a share; allowed is a part of the whole"):
        parse_share(value)


@pytest.mark.parametrize("value", ["101%", "-1%", 20, 1.01, -0.1, float("nan"), float("inf")])
def test_a_share_is_from_nothing_to_all(value):
    """20 for 20% is a mistake."""
    with pytest.raises(ValueError, match="a share is from 0 to 1; allowed is"):
        parse_share(value)
