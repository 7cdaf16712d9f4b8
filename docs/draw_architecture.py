"""Draws docs/architecture.svg from the code's own imports: `python docs/draw_architecture.py`.

An arrow leads from a package to one that it imports, in whatever place and for whatever purpose,
types included. One that a longer way implies is left out. Packages that import each other, in a
circle, share a frame.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from html import escape
from pathlib import Path
from textwrap import wrap
from typing import TypeVar

ROOT = Path(__file__).parent.parent
PICTURE = Path(__file__).with_name("architecture.svg")

CONTRACTS, SHIELD = "contracts", "shield.py"
"""The modules at the top of shield/, and the one among them that puts everything together."""
CODE = {
    "shield": ROOT / "shield",
    **{path.parent.name: path.parent for path in sorted(ROOT.glob("adapters/*/__init__.py"))},
}

WIDTH, BOX_WIDTH, BOX_HEIGHT, ROW, GAP, BEND = 1160, 168, 92, 138, 20, 24
BLUE, DARK, GREY, RED = "#1f6feb", "#1f2328", "#57606a", "#cf222e"

Graph = dict[str, set[str]]
Group = frozenset[str]
Node = TypeVar("Node")


# --- what imports what --------------------------------------------------------------------------


@cache
def modules() -> dict[str, Path]:
    """Return the files of all modules by their dotted names; packages are their `__init__`."""
    found = {}
    for top, folder in CODE.items():
        for path in sorted(folder.rglob("*.py")):
            parts = (top, *path.relative_to(folder).with_suffix("").parts)
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports(module: str) -> set[str]:
    """Return the modules of ours that hold what this one imports."""
    found = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            found |= {_holder(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {_holder(str(node.module), alias.name) for alias in node.names}
    return found - {"", module}


def _holder(module: str, name: str) -> str:
    """Return where an imported name is defined: `from shield import Rule` leads to shield.rule."""
    if f"{module}.{name}" in modules():
        return f"{module}.{name}"
    return _gathered(module).get(name, module) if module in modules() else ""


@cache
def _gathered(module: str) -> dict[str, str]:
    """Return the names that a package's `__init__` only gathers, and where from."""
    if modules()[module].name != "__init__.py":
        return {}
    return {
        alias.asname or alias.name: _holder(str(node.module), alias.name)
        for node in _tree(module).body
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in CODE
        for alias in node.names
    }


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def package(module: str) -> str:
    """Return the box in which a module stands."""
    top, *rest = module.split(".")
    if top != "shield":
        return top
    if rest == ["shield"]:
        return SHIELD
    return rest[0] if rest and (CODE["shield"] / rest[0]).is_dir() else CONTRACTS


def packages() -> Graph:
    """Return which packages each one imports; what `shield/__init__` gathers is not its own."""
    graph: Graph = {}
    for module in modules().keys() - {"shield", "shield.__main__"}:
        own = graph.setdefault(package(module), set())
        own |= {package(other) for other in imports(module) - {"shield"}} - {package(module)}
    return graph


# --- order --------------------------------------------------------------------------------------


def groups(graph: Graph) -> list[Group]:
    """Return the packages, those together that lead to each other in a circle."""
    reach = {node: _reached(graph, node) for node in graph}
    found = {
        frozenset({node, *(other for other in reach[node] if node in reach[other])})
        for node in graph
    }
    return sorted(found, key=sorted)


def below(graph: Graph) -> dict[Group, set[Group]]:
    """Return which groups each group imports."""
    found = groups(graph)
    of = {node: group for group in found for node in group}
    return {
        group: {of[other] for node in group for other in graph[node]} - {group} for group in found
    }


def direct(under: dict[Group, set[Group]], group: Group) -> list[Group]:
    """Return those that a group imports and that no longer way leads to as well."""
    implied = {end for other in under[group] for end in _reached(under, other)}
    return sorted(under[group] - implied, key=sorted)


def rows(under: dict[Group, set[Group]]) -> list[list[Group]]:
    """Return the groups from the top row down, each right under the lowest that imports it."""
    over: dict[Group, set[Group]] = {group: set() for group in under}
    for group, others in under.items():
        for other in others:
            over[other].add(group)
    depth: dict[Group, int] = {}
    for group in TopologicalSorter(over).static_order():
        depth[group] = max((depth[other] + 1 for other in over[group]), default=0)
    found: list[list[Group]] = [[] for _ in range(max(depth.values()) + 1)]
    for group in sorted(under, key=sorted):
        found[depth[group]].append(group)
    return found


def _reached(graph: Mapping[Node, set[Node]], start: Node) -> set[Node]:
    found: set[Node] = set()
    ahead = [start]
    while ahead:
        new = graph[ahead.pop()] - found
        found |= new
        ahead += new
    return found


# --- the picture --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bend:
    """An arrow, where it passes a row between its ends."""

    start: Group
    end: Group


Item = Group | Bend


@dataclass(frozen=True)
class Box:
    """Where a group is drawn, in pixels; its packages stand side by side in it."""

    item: Item
    x: float
    y: float

    @property
    def width(self) -> float:
        """How wide; an arrow that passes takes a little room as well."""
        return 0 if isinstance(self.item, Bend) else len(self.item) * (BOX_WIDTH + GAP) - GAP

    @property
    def middle(self) -> float:
        """Where arrows begin and end."""
        return self.x + self.width / 2


def picture() -> str:
    """Return the picture."""
    under = below(packages())
    boxes = list(_places(rows(under), under))
    height = max(box.y for box in boxes) + BOX_HEIGHT + GAP
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" '
            'font-family="system-ui, sans-serif" font-size="12">',
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            *(line for arrow in _arrows(under) for line in _drawn_arrow(boxes, arrow)),
            *(line for box in boxes if isinstance(box.item, frozenset) for line in _drawn(box)),
            "</svg>\n",
        ]
    )


def _arrows(under: dict[Group, set[Group]]) -> Iterator[Bend]:
    for group in under:
        yield from (Bend(group, end) for end in direct(under, group))


def _places(lines: list[list[Group]], under: dict[Group, set[Group]]) -> Iterator[Box]:
    """Yield where groups and bends stand, each as near as can be below what leads to it."""
    arrows: dict[Bend, float] = {}
    for number, line in enumerate(lines):
        ended = {arrow: x for arrow, x in arrows.items() if arrow.end in line}
        passing: list[Item] = [arrow for arrow in arrows if arrow not in ended]
        wanted = {**arrows, **{group: _mean(group, ended) for group in line}}
        items = sorted([*line, *passing], key=lambda item: wanted[item])
        for box in _spread(items, number):
            yield box
            if isinstance(box.item, Bend):
                arrows[box.item] = box.x
            else:
                arrows |= {Bend(box.item, end): box.middle for end in direct(under, box.item)}
        arrows = {arrow: x for arrow, x in arrows.items() if arrow not in ended}


def _mean(group: Group, ended: dict[Bend, float]) -> float:
    own = [x for arrow, x in ended.items() if arrow.end == group]
    return sum(own) / len(own) if own else 0


def _spread(items: list[Item], number: int) -> Iterator[Box]:
    """Yield the boxes of one row, with even gaps."""
    wide = sum(Box(item, 0, 0).width for item in items)
    gap = (WIDTH - wide) / (len(items) + 1)
    x = gap
    for item in items:
        yield (box := Box(item, round(x), GAP + number * ROW))
        x += box.width + gap


def _drawn(box: Box) -> Iterator[str]:
    group = sorted(box.item)
    if len(group) > 1:
        yield _rect(box.x - 8, box.y - 18, box.width + 16, BOX_HEIGHT + 26, RED, "none")
        yield _text(box.x, box.y - 5, "a circle: each of these leads to every other", RED)
    for number, name in enumerate(group):
        x = box.x + number * (BOX_WIDTH + GAP)
        yield _rect(x, box.y, BOX_WIDTH, BOX_HEIGHT, BLUE, "#f6f8fa")
        yield _text(x + 10, box.y + 20, name, DARK, bold=True)
        for line, text in enumerate(wrap(about(name), 24, max_lines=4, placeholder=" …")):
            yield _text(x + 10, box.y + 37 + 15 * line, text, GREY)


def about(name: str) -> str:
    """Return what a package says of itself: the first line of its docstring."""
    if name == CONTRACTS:
        return "What plugins and adapters import: the files at the top of shield/"
    module = "shield.shield" if name == SHIELD else name if name in CODE else f"shield.{name}"
    first = (ast.get_docstring(_tree(module)) or "").partition("\n")[0]
    return first.replace("`", "").removesuffix(".")


def _rect(x: float, y: float, width: float, height: float, colour: str, fill: str) -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" '
        f'fill="{fill}" stroke="{colour}"/>'
    )


def _text(x: float, y: float, text: str, colour: str, *, bold: bool = False) -> str:
    weight = ' font-weight="600" font-size="14"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" fill="{colour}"{weight}>{escape(text)}</text>'


def _drawn_arrow(boxes: list[Box], arrow: Bend) -> Iterator[str]:
    """Yield an arrow's line, from row to row, and its head."""
    (start,) = (box for box in boxes if box.item == arrow.start)
    (end,) = (box for box in boxes if box.item == arrow.end)
    x, y = start.middle, start.y + BOX_HEIGHT
    line = f"M{x:g} {y:g}"
    for box in [*(box for box in boxes if box.item == arrow), end]:
        line += f" C{x:g} {y + BEND} {box.middle:g} {box.y - BEND:g} {box.middle:g} {box.y - 8:g}"
        x, y = box.middle, box.y + BOX_HEIGHT
        line += "" if box is end else f" L{x:g} {y:g}"
    yield f'<path d="{line}" stroke="{GREY}" fill="none"/>'
    y = end.y - 2
    yield f'<polygon points="{x:g},{y:g} {x - 4:g},{y - 8:g} {x + 4:g},{y - 8:g}" fill="{GREY}"/>'


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
