"""The controllers in the simulator: bounds that hold, and no swinging without end."""

from __future__ import annotations

import json
from functools import cache

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmarks import simulate
from benchmarks.simulate import CAPACITY, RULES, SCENARIOS, WINDOW, Scenario, Simulation

ADAPTIVE = [name for name in RULES if name.startswith("adaptive")]
STEADY = ["step", "halved", "refuses"]
"""Scenarios whose last quarter is the same all the time, and more than the broker takes."""


trace_of = cache(simulate.simulate)
"""The run of a controller in a scenario, made when it is first asked for."""
SMALL = "in_flight + shed"
PLACES = RULES[SMALL]["in_flight"]["messages"]
INTERVAL_S = 0.4
"""Of the rule with `queue_delay`."""


@pytest.mark.parametrize("controller", ADAPTIVE)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_limit_stays_within_its_bounds_and_starts_at_the_upper_one(controller, scenario):
    """From 20 to 1000, whatever the broker does."""
    limits = trace_of(controller, scenario).limits
    assert limits[0] == 1000
    assert 20 <= min(limits) <= max(limits) <= 1000


@pytest.mark.parametrize("controller", ADAPTIVE)
@pytest.mark.parametrize("scenario", STEADY)
def test_a_limit_settles_and_holds_still(controller, scenario):
    """Within ten seconds of the change; then it moves by less than half of itself.

    Beside `shed`, which probes for room tenth by tenth, its sawtooth is longer and wider, and no
    time is set for it; it moves by less than itself.
    """
    trace = trace_of(controller, scenario)
    if "shed" in controller:
        assert trace.swing < 1.0
    else:
        assert trace.settling_s is not None
        assert trace.settling_s <= 10
        assert trace.swing < 0.5
    assert trace.overshoot < 0.5


@pytest.mark.parametrize("controller", ADAPTIVE)
@pytest.mark.parametrize(("scenario", "least"), [("step", 0.95), ("ramp", 0.95), ("halved", 0.95)])
def test_goodput_is_what_the_broker_can_do(controller, scenario, least):
    """Without a controller nearly all answers of an overloaded broker come too late."""
    assert trace_of(controller, scenario).goodput >= least
    assert trace_of("none", scenario).goodput < 0.5


@pytest.mark.parametrize("controller", ADAPTIVE)
@pytest.mark.parametrize("scenario", ["sine", "stall", "refuses"])
def test_goodput_is_far_above_that_without_a_controller(controller, scenario):
    """At least 85% of what is possible, through changes that never end."""
    assert trace_of(controller, scenario).goodput >= 0.85
    assert trace_of("none", scenario).goodput < 0.6


def test_throttling_helps_where_the_broker_turns_messages_down():
    """At a cost to itself; and not where it only grows slow, of which it learns nothing in time."""
    helped, bare = trace_of("throttle", "refuses"), trace_of("none", "refuses")
    assert helped.goodput > 1.5 * bare.goodput
    assert trace_of("throttle", "step").goodput < 0.5


# --- queue_delay ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", STEADY)
def test_a_queue_that_stands_is_shed_within_two_intervals_and_holds_still(scenario):
    """Until then it grows by all that is too much; then it is as long as it may be."""
    trace = trace_of("queue_delay", scenario)
    assert trace.settling_s <= 2 * INTERVAL_S
    assert trace.swing < 0.2
    assert max(trace.limits) <= WINDOW + 3 * CAPACITY * 2 * INTERVAL_S


@pytest.mark.parametrize(
    ("scenario", "least"),
    [("step", 0.99), ("ramp", 0.99), ("halved", 0.99), ("refuses", 0.99), ("stall", 0.95)],
)
def test_what_leaves_a_queue_that_is_shed_is_in_time(scenario, least):
    """All that the broker can do; hardly any answer is late, also of one that has stalled."""
    trace = trace_of("queue_delay", scenario)
    assert trace.goodput >= least
    assert trace.late <= 3 * WINDOW
    assert trace_of("none", scenario).late > 10_000


def test_a_queue_takes_up_peaks_that_pass():
    """A load that swings about what the broker takes: most of it is in time, and little late."""
    trace = trace_of("queue_delay", "sine")
    assert trace.goodput >= 0.85
    assert trace.late <= 3 * WINDOW


# --- a small bound --------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_small_bound_is_never_exceeded(scenario):
    """Of what is unanswered; and next to nothing is late, of a broker that stalls what it had."""
    trace = trace_of(SMALL, scenario)
    assert max(trace.limits) <= PLACES
    assert trace.late <= 3 * PLACES


@pytest.mark.parametrize(
    ("scenario", "least"),
    [
        *(("step", 0.95), ("ramp", 0.95), ("halved", 0.95)),
        *(("refuses", 0.95), ("stall", 0.9), ("sine", 0.85)),
    ],
)
def test_a_small_bound_with_shed_keeps_its_broker_busy(scenario, least):
    """Although its last places wait for who is critical."""
    assert trace_of(SMALL, scenario).goodput >= least


@pytest.mark.parametrize("scenario", ["step", "ramp", "sine", "halved", "refuses"])
@pytest.mark.parametrize("controller", [SMALL, "adaptive + shed"])
def test_beside_shed_hardly_anyone_critical_is_refused(controller, scenario):
    """At up to three times the load, of which less than the broker takes is critical.

    Without it they are refused as often as all others.
    """
    trace = trace_of(controller, scenario)
    assert trace.refused > 10_000
    assert trace.critical_refused <= 0.01 * trace.critical
    bare = trace_of("adaptive aimd", scenario)
    assert bare.critical_refused > 0.25 * bare.critical


@pytest.mark.parametrize("scenario", STEADY)
def test_a_small_bound_with_shed_settles(scenario):
    """It moves by less than half of what is in flight, at the end."""
    assert trace_of(SMALL, scenario).swing < 0.5


# --- whatever happens -----------------------------------------------------------------------------

PARTS = st.floats(0.1, 4.0)
STRETCHES = st.lists(st.tuples(PARTS, PARTS), min_size=4, max_size=4)


def stretches(parts):
    """Return four stretches of ten seconds, each with a load and a capacity of its own."""

    def part(at_s):
        return parts[min(3, int(at_s / 10))]

    return Scenario(
        lambda at_s: part(at_s)[0] * CAPACITY / 4, lambda at_s: part(at_s)[1] * CAPACITY / 4
    )


@given(
    st.sampled_from(ADAPTIVE),
    STRETCHES,
    st.integers(0, 100),
)
@settings(max_examples=8, deadline=None)
def test_whatever_load_and_broker_do_the_bounds_hold_and_the_books_balance(name, parts, seed):
    """Four stretches of ten seconds, each with a load and a capacity of its own."""
    simulation = Simulation(RULES[name], stretches(parts), seed)
    trace = simulation.run()
    assert 20 <= min(trace.limits) <= max(trace.limits) <= 1000
    assert simulation.shield.ledger().balanced
    assert simulation.shield.plugin_errors == {}


@given(st.sampled_from([SMALL, "queue_delay"]), STRETCHES, st.integers(0, 100))
@settings(max_examples=5, deadline=None)
def test_whatever_they_do_what_is_kept_has_a_bound_and_the_books_balance(name, parts, seed):
    """A small bound's own; of a queue, what comes in two intervals, and in one more to be seen."""
    simulation = Simulation(RULES[name], stretches(parts), seed)
    trace = simulation.run()
    most = PLACES if name == SMALL else WINDOW + CAPACITY * 3 * INTERVAL_S
    assert 0 <= min(trace.limits) <= max(trace.limits) <= most
    ledger = simulation.shield.ledger()
    assert ledger.balanced
    assert ledger.dropped == trace.refused
    assert simulation.shield.plugin_errors == {}


def test_the_same_run_twice_is_the_same():
    """Nothing in it is left to chance or to the machine."""
    assert simulate.simulate("adaptive + shed", "halved") == trace_of("adaptive + shed", "halved")


def test_the_table_has_a_line_for_each(monkeypatch):
    """As a table for people, and as JSON."""
    monkeypatch.setattr(simulate, "LENGTH_S", 21.0)
    monkeypatch.setattr(simulate, "SCENARIOS", {"step": SCENARIOS["step"]})
    monkeypatch.setattr(
        simulate, "RULES", {"none": {}, "throttle": {"probabilistic_throttle": 2.0}}
    )
    app = typer.Typer()
    app.command()(simulate.main)
    found = json.loads(CliRunner().invoke(app, ["--json"]).stdout)
    assert [line["controller"] for line in found] == ["none", "throttle"]
    assert {"goodput", "settling_s", "overshoot"} <= set(found[0])
    assert "throttle" in CliRunner().invoke(app, []).stdout
