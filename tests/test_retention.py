"""What a place keeps, and what of that is a warning."""

import pytest

from shield.retention import DAY_S, Retention, spelled


@pytest.mark.parametrize(
    ("kept", "text"),
    [
        (Retention(), "for ever"),
        (Retention(for_s=7 * DAY_S), "for 7d"),
        (Retention(for_s=0.25, size=1024), "for 0.25s, 1024 bytes"),
        (Retention(messages=10, unused_s=90), "10 messages, while used every 90s"),
        (Retention(latest_only=True), "the latest of each key"),
    ],
)
def test_it_says_what_it_keeps(kept, text):
    """In one line."""
    assert str(kept) == text


def test_what_is_shorter_than_asked_is_a_warning_and_what_is_not_is_none():
    """To the second."""
    assert list(Retention(for_s=DAY_S).warnings(DAY_S)) == []
    (warning,) = Retention(for_s=DAY_S - 1).warnings(DAY_S)
    assert "86399s" in warning


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (Retention(latest_only=True), "compacted"),
        (Retention(messages=5), "5 messages"),
        (Retention(size=5), "5 bytes"),
        (Retention(unused_s=60), "nobody has used it for 1m"),
    ],
)
def test_what_may_go_for_another_reason_is_a_warning(kept, said):
    """Whatever time is asked for."""
    (warning,) = kept.warnings(1.0)
    assert said in warning


def test_what_is_older_than_is_kept_may_go_at_once_unless_it_is_stamped_there():
    """Where its own time counts."""
    kept = Retention(for_s=10, stamped=False)
    assert kept.loses_at_once(0, 10_001)
    assert not kept.loses_at_once(0, 10_000)
    assert not kept.loses_at_once(None, 10_001)
    assert not Retention(for_s=10).loses_at_once(0, 10_001)
    assert not Retention(stamped=False).loses_at_once(0, 10_001)


def test_a_time_is_spelled_in_its_largest_whole_unit():
    """As people write it."""
    assert [spelled(s) for s in (86_400, 5400, 3600, 61, 1.5)] == ["1d", "90m", "1h", "61s", "1.5s"]
