"""Five times what a consumer can do, on real brokers: it is busy, with what matters most.

`python -m benchmarks overload` measures it; here it is a few seconds of that, and only what holds
on a busy machine as well.
"""

from __future__ import annotations

import pytest

from benchmarks.overload.load import CAPACITY, CLASSES
from benchmarks.overload.trial import SHIELD, Trial, run

pytestmark = pytest.mark.alone

BROKERS = ["kafka", "rabbitmq"]


@pytest.mark.parametrize("broker", BROKERS)
def test_five_times_the_load_is_shed_from_the_least_critical_up(request, broker):
    """Bursts of two processes, one queue; every message was consumed, shed, or is there."""
    address = request.getfixturevalue(broker).address
    found = run(Trial(broker, SHIELD, load=5.0, seconds=5.0, settle_s=3.0), address)
    most, critical, plus, least = (found.shed[name] for name in CLASSES)
    assert most < critical + 0.1
    assert critical < plus < least
    assert critical < 0.75  # where the machine has better to do; on a quiet one next to nothing
    assert least > 0.8
    assert found.goodput_per_s > 0.1 * CAPACITY  # without Shield it is nothing
    assert found.largest_backlog < CAPACITY
    assert found.offered == found.consumed + found.dropped + found.left
