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
from benchmarks.simulate import CAPACITY, RULES, SCENARIOS, Scenario, Simulation

ADAPTIVE = [name for name in RULES if name.startswith("adaptive")]
STEADY = ["step", "halved", "refuses"]
"""Scenarios whose last quarter is the same all the time, and more than the broker takes."""


trace_of = cache(simulate.simulate)
"""The run of a controller in a scenario, made when it is first asked for."""


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


PARTS = st.floats(0.1, 4.0)


@given(
    st.sampled_from(ADAPTIVE),
    st.lists(st.tuples(PARTS, PARTS), min_size=4, max_size=4),
    st.integers(0, 100),
)
@settings(max_examples=8, deadline=None)
def test_whatever_load_and_broker_do_the_bounds_hold_and_the_books_balance(name, parts, seed):
    """Four stretches of ten seconds, each with a load and a capacity of its own."""

    def part(at_s):
        return parts[min(3, int(at_s / 10))]

    scenario = Scenario(
        lambda at_s: part(at_s)[0] * CAPACITY / 4, lambda at_s: part(at_s)[1] * CAPACITY / 4
    )
    simulation = Simulation(RULES[name], scenario, seed)
    trace = simulation.run()
    assert 20 <= min(trace.limits) <= max(trace.limits) <= 1000
    assert simulation.shield.ledger().balanced
    assert simulation.shield.plugin_errors == {}


def test_the_same_run_twice_is_the_same():
    """Nothing in it is left to chance or to the machine."""
    assert simulate.simulate("adaptive + shed", "halved") == trace_of("adaptive + shed", "halved")


def test_the_table_has_a_line_for_each(monkeypatch):
    """As a table for people, and as JSON."""
    monkeypatch.setattr(simulate, "LENGTH_S", 21.0)
    monkeypatch.setattr(simulate, "SCENARIOS", {"step": SCENARIOS["step"]})
    monkeypatch.setattr(simulate, "RULES", {"none": {}, "throttle": {"throttle": 2.0}})
    app = typer.Typer()
    app.command()(simulate.main)
    found = json.loads(CliRunner().invoke(app, ["--json"]).stdout)
    assert [line["controller"] for line in found] == ["none", "throttle"]
    assert {"goodput", "settling_s", "overshoot"} <= set(found[0])
    assert "throttle" in CliRunner().invoke(app, []).stdout
