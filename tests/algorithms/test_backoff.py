"""Full jitter: random within a bound that doubles."""

from shield.algorithms.backoff import Backoff

FIRST_S, LONGEST_S = 0.1, 5.0


def longest(attempts):
    """The longest of many delays after so many failed attempts."""
    delays = []
    for _ in range(300):
        backoff = Backoff()
        delays.append([backoff.next_s() for _ in range(attempts)][-1])
    return max(delays), min(delays)


def test_delays_grow_and_stay_bounded():
    """Twice as long each time, up to a limit, and any of them may be short."""
    for attempts in (1, 2, 3, 20):
        most, least = longest(attempts)
        limit = min(LONGEST_S, FIRST_S * 2 ** (attempts - 1))
        assert limit * 0.8 < most <= limit
        assert least < limit * 0.2


def test_success_begins_anew():
    """The next delay is the first again."""
    backoff = Backoff()
    for _ in range(10):
        backoff.next_s()
    backoff.reset()
    assert backoff.next_s() <= FIRST_S
