"""Rules that admit everything, for measuring what asking them costs."""

from __future__ import annotations

from shield import Shield


def wide_shield(destination: str) -> Shield:
    """Return a Shield with a quota and a bound that admit all that a benchmark sends there."""
    rule = {
        "name": "bench",
        "match": destination,
        "quota": {"rate": "1000000000/s"},
        "in_flight": {"messages": 10_000_000, "bytes": "64GiB"},
        "over_limit": ["raise"],
    }
    return Shield({"shield": {"producer": "bench"}, "rules": [rule]})
