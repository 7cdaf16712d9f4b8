"""The picture of the benchmark: goodput and latency over load, for both sides and both brokers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.overload.load import CAPACITY, LOADS
from benchmarks.overload.trial import BARE, SHIELD, Outcome

COLOURS = {BARE: "#c0392b", SHIELD: "#1f6f54"}
LABELS = {BARE: "the bare client", SHIELD: "with Shield"}
NAMES = {"kafka": "Kafka", "rabbitmq": "RabbitMQ"}
GREY = "#777777"


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write a PNG: a row for goodput, one for the critical messages' p99; a column per broker."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    brokers = list(dict.fromkeys(one.trial.broker for one in outcomes))
    figure, axes = plt.subplots(2, len(brokers), figsize=(9, 6), sharex=True, squeeze=False)
    for column, broker in enumerate(brokers):
        of_it = [one for one in outcomes if one.trial.broker == broker]
        _goodput(axes[0][column], of_it, NAMES[broker])
        _latency(axes[1][column], of_it)
    axes[0][0].set_ylabel("in time, messages a second")
    axes[1][0].set_ylabel("critical messages, p99")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=2, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.95))
    figure.savefig(path, dpi=110, format="png")
    plt.close(figure)


def _goodput(axis: Any, outcomes: Sequence[Outcome], title: str) -> None:
    axis.axhline(CAPACITY, color=GREY, linewidth=0.8, linestyle=":")
    axis.annotate("capacity", (LOADS[0], CAPACITY), (0, 4), textcoords="offset points", color=GREY)
    _lines(axis, outcomes, lambda one: one.goodput_per_s)
    axis.set_ylim(0, CAPACITY * 1.2)
    axis.set_title(title)


def _latency(axis: Any, outcomes: Sequence[Outcome]) -> None:
    _lines(axis, outcomes, lambda one: one.critical_p99_s * 1000)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(lambda ms, _: f"{ms / 1000:g} s" if ms >= 1000 else f"{ms:g} ms")
    axis.set_xlabel("offered, in capacities of the consumer")
    axis.set_xscale("log")
    axis.set_xticks(LOADS, [f"{load:g}x" for load in LOADS])
    axis.minorticks_off()


def _lines(axis: Any, outcomes: Sequence[Outcome], value: Any) -> None:
    for side, colour in COLOURS.items():
        points = sorted((o.trial.load, value(o)) for o in outcomes if o.trial.side == side)
        xs, ys = zip(*points, strict=True)
        axis.plot(xs, ys, color=colour, marker="o", markersize=4, label=LABELS[side])
    axis.grid(visible=True, alpha=0.3)
    for edge in ("top", "right"):
        axis.spines[edge].set_visible(False)
