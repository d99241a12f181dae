"""Label placement for the dots of a chart: close to the dot, without overlaps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

Box = tuple[float, float, float, float]  # left, top, right, bottom, in units of the view box
Place = tuple[float, float]
BoxIndex = dict[tuple[int, int], list[Box]]

TURNS = (0, 8, 12, 4, 14, 2, 10, 6, 15, 1, 13, 3, 11, 5, 9, 7)  # sixteenths of a circle, the best first
# The style sheet sets names at 10.5 units on a wide screen and 12.5 on a phone; space is reserved for the larger.
CHAR_WIDTH, LINE_HEIGHT = 7.0, 13.0
CELL = 16.0


@dataclass(frozen=True)
class Name:
    """Position of a name."""

    box: Box
    line: Box | None  # leader line from the dot, if the name is too far away to be attributed to it

    @cached_property
    def steps(self) -> list[Box]:
        """Small boxes along the leader line."""
        return samples(self.line[:2], self.line[2:], 0.5)[1:] if self.line else []


def _overlaps(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def around(x: float, y: float, radius: float) -> Box:
    """The square around a point."""
    return x - radius, y - radius, x + radius, y + radius


def samples(start: Sequence[float], end: Sequence[float], radius: float) -> list[Box]:
    """Small boxes along a line, so that names can avoid it."""
    count = max(1, round(math.dist(start, end) / 5))
    fractions = [i / count for i in range(count + 1)]
    dx, dy = end[0] - start[0], end[1] - start[1]
    return [around(start[0] + fraction * dx, start[1] + fraction * dy, radius) for fraction in fractions]


def _cells(box: Box) -> Iterator[tuple[int, int]]:
    left, top, right, bottom = (int(edge // CELL) for edge in box)
    return product(range(left, right + 1), range(top, bottom + 1))


def _index_by_cell(boxes: Iterable[Box]) -> BoxIndex:
    """The boxes by the grid cells that they touch, so that a query does not scan all boxes."""
    index: BoxIndex = {}
    for box in boxes:
        for cell in _cells(box):
            index.setdefault(cell, []).append(box)
    return index


def _hits(box: Box, index: BoxIndex) -> int:
    return len({other for cell in _cells(box) for other in index.get(cell, ()) if _overlaps(box, other)})


def _candidates(x: float, y: float, label: str, room: Box) -> list[Name]:
    """Places for a name, nearest first: 16 directions at growing distance; a far one gets a leader line."""
    width = CHAR_WIDTH * len(label) + 2
    inside: list[Name] = []
    outside: list[Name] = []
    for gap, turn in product((7.0, 11.0, 18.0, 27.0, 38.0, 52.0, 68.0, 86.0), TURNS):
        dx, dy = math.cos(turn * math.pi / 8), math.sin(turn * math.pi / 8)
        left = x + gap * dx + (dx - 1) / 2 * width
        top = y + gap * dy + (dy - 1) / 2 * LINE_HEIGHT
        box = (left, top, left + width, top + LINE_HEIGHT)
        fits = box[0] > room[0] and box[1] > room[1] and box[2] < room[2] and box[3] < room[3]
        near = (min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3]))
        line = (x + 4 * dx, y + 4 * dy, *near) if gap > 11 else None
        (inside if fits else outside).append(Name(box, line))
    return inside or outside


def place_names(
    labels: Sequence[str], places: Sequence[Place], room: Box, taken: list[Box], curve: list[Box]
) -> list[Name]:
    """Finds a place for every name: fewest collisions, then the nearest; three passes of improvement.

    Args:
        labels: The names.
        places: Positions of their dots.
        room: Area that names are kept in, if any candidate position lies in it.
        taken: Boxes that neither a name nor its leader line may cover.
        curve: Boxes that a leader line may cross, but a name may not.
    """
    options = [_candidates(*place, label, room) for label, place in zip(labels, places, strict=True)]
    for_lines, for_names = _index_by_cell(taken), _index_by_cell(taken + curve)
    chosen: dict[int, Name] = {}
    for _, index in product(range(3), range(len(labels))):
        others = [name for other, name in chosen.items() if other != index]
        boxes = [name.box for name in others]
        steps = [step for name in others for step in name.steps]
        fewest = math.inf
        for name in options[index]:
            hits = _hits(name.box, for_names)
            if hits < fewest:  # else more of them decide nothing
                hits += sum(_overlaps(name.box, other) for other in boxes + steps)
            if hits < fewest:
                hits += sum(
                    _hits(step, for_lines) + sum(_overlaps(step, other) for other in boxes) for step in name.steps
                )
            if hits < fewest:
                fewest, chosen[index] = hits, name
            if hits == 0:
                break
    return [chosen[index] for index in range(len(labels))]
