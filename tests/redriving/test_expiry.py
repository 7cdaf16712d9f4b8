"""A message that would be deleted as soon as it is back is not written, unless that is meant."""

import pytest

from shield.envelope import Envelope
from shield.redriving.expiry import ExpiryCheck
from shield.retention import Retention

HOUR = Retention(for_s=3600, stamped=False)
OLD, NEW = (
    Envelope("orders", b"", "kafka", timestamp_ms=0),
    Envelope("orders", b"", "kafka", timestamp_ms=4_000_000),
)


def late(kept=HOUR, **more):
    asked = []

    def keeps(envelope):
        asked.append(envelope.destination)
        return kept

    made = ExpiryCheck(keeps, now_ms=lambda: 4_000_000, **more)
    made.asked = asked
    return made


def test_it_says_what_the_place_keeps_and_how_to_go_on():
    """Once it is asked, not again."""
    checked = late()
    why = checked.why_not(OLD)
    assert "1970-01-01T00:00:00" in why
    assert "1h" in why
    assert "--yes" in why
    assert checked.why_not(NEW) is None
    assert checked.asked == ["orders"]


@pytest.mark.parametrize("kept", [None, Retention(), Retention(for_s=3600), Retention(size=5)])
def test_what_is_kept_or_not_known_goes(kept):
    """Also where the place stamps what it is given."""
    assert late(kept).why_not(OLD) is None


def test_who_has_confirmed_is_not_stopped():
    """`--yes`."""
    assert late(confirmed=True).why_not(OLD) is None


@pytest.mark.parametrize("timestamp_ms", [-(10**30), 10**30, -1])
def test_no_timestamp_of_a_stranger_raises(timestamp_ms):
    """It is only said."""
    late().why_not(Envelope("orders", b"", "kafka", timestamp_ms=timestamp_ms))
