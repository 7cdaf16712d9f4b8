"""Draws docs/over_limit.svg, the ways of a message over the limit: `python docs/ways.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

PICTURE = Path(__file__).with_name("over_limit.svg")

ROW, TOP, LEFT, MIDDLE, RIGHT = 46, 96, 40, 260, 620
BLUE, GREEN, RED, GREY = "#1f6feb", "#1a7f37", "#cf222e", "#57606a"


@dataclass(frozen=True)
class Way:
    """One row: an action, what happens there, and where the message ends."""

    action: str
    meanwhile: str
    end: str
    colour: str


WAYS = (
    Way("wait 200ms", "the caller stands in line", "at its destination", GREEN),
    Way("retry 3", "the caller pauses and asks again", "at its destination", GREEN),
    Way("buffer", "in memory, behind those before it", "at its destination", GREEN),
    Way("spool 2GiB", "on disk, in order for each key", "at its destination", GREEN),
    Way("overflow D", "sent to D, and confirmed", "at D, until it is redriven", BLUE),
    Way("drop", "or: its future is done at once", "gone, and counted", RED),
    Way("raise", "or: OverLimitError", "with its caller", RED),
)
FINAL = {"drop", "raise"}
"""These never hand on: a chain ends with one of them, or as if with `raise`."""


def picture() -> str:
    """Return the picture."""
    height = TOP + ROW * len(WAYS) + 56
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 980 {height}" '
            'font-family="system-ui, sans-serif" font-size="15">',
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            *_heading(),
            *(part for number, way in enumerate(WAYS) for part in _row(number, way)),
            _text(
                LEFT,
                height - 28,
                "An action that declines, or whose send fails, hands on to the next one in the "
                "chain; a chain that runs out raises.",
                GREY,
            ),
            "</svg>\n",
        ]
    )


def _heading() -> Iterator[str]:
    yield _text(LEFT, 34, "A message", "#1f2328", bold=True)
    yield _text(LEFT + 106, 34, "all policies admit it: it is sent at once.", GREEN)
    yield _text(
        LEFT + 106, 56, "one refuses: the chain of that policy's rule acts, first to last:", RED
    )


def _row(number: int, way: Way) -> Iterator[str]:
    y = TOP + ROW * number
    if number and WAYS[number - 1].action not in FINAL:
        yield _arrow(LEFT + 70, y - 10, LEFT + 70, y + 2, GREY)
    yield (
        f'<rect x="{LEFT}" y="{y + 2}" width="140" height="32" rx="6" fill="#f6f8fa" '
        f'stroke="{way.colour}"/>'
    )
    yield _text(LEFT + 14, y + 23, way.action, "#1f2328", bold=True)
    yield _arrow(LEFT + 140, y + 18, MIDDLE - 8, y + 18, way.colour)
    yield _text(MIDDLE, y + 23, way.meanwhile, "#1f2328")
    yield _arrow(MIDDLE + 270, y + 18, RIGHT - 8, y + 18, way.colour)
    yield _text(RIGHT, y + 23, way.end, way.colour, bold=True)


def _text(x: int, y: int, text: str, colour: str, *, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x}" y="{y}" fill="{colour}"{weight}>{escape(text)}</text>'


def _arrow(x1: int, y1: int, x2: int, y2: int, colour: str) -> str:
    tip = f"{x2},{y2} "
    tip += (
        f"{x2 - 8},{y2 - 4} {x2 - 8},{y2 + 4}"
        if y1 == y2
        else f"{x2 - 4},{y2 - 8} {x2 + 4},{y2 - 8}"
    )
    return (
        f'<path d="M{x1} {y1} L{x2} {y2}" stroke="{colour}" stroke-width="1.5"/>'
        f'<polygon points="{tip}" fill="{colour}"/>'
    )


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
