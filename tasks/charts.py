"""Charts as inline SVG for the report: no script, no image; colours come from the page's style sheet.

A name goes into the SVG through ``Markup.format`` only, which escapes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

from markupsafe import Markup

from tasks.report_numbers import tick as tick_text

Box = tuple[float, float, float, float]  # left, top, right, bottom, in units of the view box
Place = tuple[float, float]
Interval = tuple[float, float]  # low, high
Scale = tuple[Interval, Interval]  # the values at the edges of the plot, of x and of y

WIDTH, HEIGHT = 460.0, 340.0
LEFT, TOP, RIGHT, BOTTOM = 42.0, 30.0, 446.0, 296.0  # the plot inside it
TURNS = (0, 8, 12, 4, 14, 2, 10, 6, 15, 1, 13, 3, 11, 5, 9, 7)  # sixteenths of a circle, the best first
# The style sheet sets names at 10.5 units on a wide screen and 12.5 on a phone; room is kept for the larger.
CHAR_WIDTH, LINE_HEIGHT = 7.0, 13.0
INTERVAL_WIDTH, INTERVAL_PAD = 190.0, 8.0


@dataclass(frozen=True)
class Dot:
    """One network in a chart.

    Attributes:
        label: Its short name, drawn beside the dot.
        x: Parameters or multiply-adds, > 0.
        y: Top-1 in percent.
        se: Standard error of ``y`` in points, drawn as a whisker; 0 draws none.
        series: The style: ``run`` and ``paper`` are joined by a line in the given order, ``rival`` is not.
        hover: What the pointer shows.
    """

    label: str
    x: float
    y: float
    se: float
    series: str
    hover: str


@dataclass(frozen=True)
class _Name:
    box: Box
    line: Box | None  # from its dot, where it stands too far off to be read as its own
    steps: list[Box]  # small boxes along that line


def _at(scale: Scale, x: float, y: float) -> Place:
    """From values to units of the view box: x logarithmic, y linear."""
    (left, right), (bottom, top) = scale
    across, up = math.log(x / left) / math.log(right / left), (y - bottom) / (top - bottom)
    return LEFT + across * (RIGHT - LEFT), BOTTOM - up * (BOTTOM - TOP)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values inside the range, at most about one more than ``about``; needs ``low < high``."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def percent_range(values: Iterable[tuple[float, float]]) -> Interval:
    """The range of ``(value, standard error)`` pairs in percent: never empty, never outside 0 to 100."""
    pairs = list(values)
    low = max(0.0, min(value - se for value, se in pairs))
    high = min(100.0, max(value + se for value, se in pairs))
    return (max(0.0, low - 1), min(100.0, high + 1)) if high - low < 0.5 else (low, high)


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 of each decade inside the range; its ends where fewer than two of them lie in it."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = [m * 10.0**d for d in decades for m in (1, 2, 5) if low <= m * 10.0**d <= high]
    return marks if len(marks) > 1 else [low * 1.05, high / 1.05]


def _overlaps(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _around(x: float, y: float, radius: float) -> Box:
    return x - radius, y - radius, x + radius, y + radius


def _samples(start: Sequence[float], end: Sequence[float], radius: float) -> list[Box]:
    """Small boxes along a line, so that names can keep clear of it."""
    count = max(1, round(math.dist(start, end) / 5))
    shares = [i / count for i in range(count + 1)]
    dx, dy = end[0] - start[0], end[1] - start[1]
    return [_around(start[0] + share * dx, start[1] + share * dy, radius) for share in shares]


def _candidates(x: float, y: float, label: str) -> list[_Name]:
    """Places for a name, nearest first: 16 directions at growing distance; a far one gets a leader line."""
    width = CHAR_WIDTH * len(label) + 2
    inside: list[_Name] = []
    outside: list[_Name] = []
    for gap, turn in product((7.0, 11.0, 18.0, 27.0, 38.0, 52.0, 68.0, 86.0), TURNS):
        dx, dy = math.cos(turn * math.pi / 8), math.sin(turn * math.pi / 8)
        left = x + gap * dx + (dx - 1) / 2 * width
        top = y + gap * dy + (dy - 1) / 2 * LINE_HEIGHT
        box = (left, top, left + width, top + LINE_HEIGHT)
        fits = box[0] > LEFT and box[1] > TOP - 10 and box[2] < WIDTH and box[3] < BOTTOM
        near = (min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3]))
        line = (x + 4 * dx, y + 4 * dy, *near) if gap > 11 else None
        steps = _samples(line[:2], line[2:], 0.5)[1:] if line else []
        (inside if fits else outside).append(_Name(box, line, steps))
    return inside or outside


def _place(dots: Sequence[Dot], places: Sequence[Place], taken: list[Box], curve: list[Box]) -> list[_Name]:
    """Finds a place for every name: fewest collisions, then the nearest; three passes, each mending the last.

    A leader line may cross the ``curve``, but no name may; neither may cover what is ``taken``.
    """
    options = [_candidates(*place, dot.label) for dot, place in zip(dots, places, strict=True)]
    chosen: dict[int, _Name] = {}
    for _, index in product(range(3), range(len(dots))):
        others = [name for other, name in chosen.items() if other != index]
        for_lines = taken + [name.box for name in others]
        for_names = for_lines + curve + [step for name in others for step in name.steps]
        fewest = math.inf
        for name in options[index]:
            hits = sum(_overlaps(name.box, other) for other in for_names)
            hits += sum(_overlaps(step, other) for step in name.steps for other in for_lines)
            if hits < fewest:
                fewest, chosen[index] = hits, name
            if hits == 0:
                break
    return [chosen[index] for index in range(len(dots))]


def _axes(scale: Scale, x_ticks: Iterable[float], y_ticks: Iterable[float], x_label: str) -> list[Markup]:
    parts = []
    for tick in y_ticks:
        y = _at(scale, scale[0][0], tick)[1]
        parts.append(
            Markup(
                '<line class="grid" x1="{:.1f}" x2="{:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
                '<text class="tick" text-anchor="end" x="{:.1f}" y="{:.1f}">{:g}</text>'
            ).format(LEFT, RIGHT, LEFT - 7, y + 3.5, tick, y=y)
        )
    for tick in x_ticks:
        x = _at(scale, tick, scale[1][0])[0]
        parts.append(
            Markup(
                '<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{:.1f}" y2="{:.1f}"/>'
                '<text class="tick" text-anchor="middle" x="{x:.1f}" y="{:.1f}">{}</text>'
            ).format(BOTTOM, BOTTOM + 4, BOTTOM + 17, tick_text(tick), x=x)
        )
    parts.append(
        Markup(
            '<line class="axis" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>'
            '<text class="label" x="4" y="14">top-1, %</text>'
            '<text class="label" text-anchor="end" x="{:.1f}" y="{:.1f}">{}</text>'
        ).format(LEFT, RIGHT, BOTTOM, BOTTOM, RIGHT, BOTTOM + 35, x_label)
    )
    return parts


def _whisker(dot: Dot, scale: Scale) -> Box:
    low, high = max(dot.y - dot.se, scale[1][0]), min(dot.y + dot.se, scale[1][1])
    (x, top), (_, bottom) = _at(scale, dot.x, high), _at(scale, dot.x, low)
    return x - 2, top, x + 2, bottom


def _dot(dot: Dot, place: tuple[float, float], name: _Name, scale: Scale) -> Markup:
    x, y = place
    parts = [Markup('<g class="dot {}"><title>{}</title>').format(dot.series, dot.hover)]
    if dot.se > 0:
        _, top, _, bottom = _whisker(dot, scale)
        parts.append(Markup('<path d="M{:.1f} {:.1f}V{:.1f}"/>').format(x, top, bottom))
    if name.line:
        parts.append(Markup('<path class="leader" d="M{:.1f} {:.1f}L{:.1f} {:.1f}"/>').format(*name.line))
    left, _, right, bottom = name.box
    # The box is as wide as the name may get, so a shorter name keeps to the side of its dot.
    anchor, edge = ("middle", (left + right) / 2)
    if left >= x or right <= x:
        anchor, edge = ("start", left) if left >= x else ("end", right)
    parts.append(
        Markup(
            '<circle class="hit" cx="{x:.1f}" cy="{y:.1f}" r="11"/>'
            '<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
            '<text text-anchor="{}" x="{:.1f}" y="{:.1f}">{}</text></g>'
        ).format(anchor, edge, bottom - 3, dot.label, x=x, y=y)
    )
    return Markup("").join(parts)


def scatter(dots: Sequence[Dot], x_label: str, description: str) -> Markup:
    """Draws accuracy over size: logarithmic x, linear y, every dot with its name; empty without a dot."""
    shown = [dot for dot in dots if dot.x > 0]
    if not shown:
        return Markup("")
    low, high = min(dot.x for dot in shown) / 1.3, max(dot.x for dot in shown) * 2
    bottom, top = percent_range((dot.y, dot.se) for dot in shown)
    air = 0.07 * (top - bottom)  # so that no dot sits on the axis
    scale = ((low, high), (bottom - air, top + air))
    places = [_at(scale, dot.x, dot.y) for dot in shown]
    line = [place for dot, place in zip(shown, places, strict=True) if dot.series != "rival"]
    taken = [_around(*place, 5) for place in places]
    curve = [box for start, end in pairwise(line) for box in _samples(start, end, 2)]
    taken.extend(_whisker(dot, scale) for dot in shown if dot.se > 0)
    names = _place(shown, places, taken, curve)
    body = [*_axes(scale, _log_ticks(low, high), ticks(bottom, top), x_label)]
    if len(line) > 1:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
        body.append(Markup('<polyline class="curve" points="{}"/>').format(points))
    body.extend(_dot(*each, scale) for each in zip(shown, places, names, strict=True))
    head = Markup('<svg class="chart" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">')
    return head.format(WIDTH, HEIGHT, description) + Markup("").join(body) + Markup("</svg>")


def _along(value: float, span: Interval) -> float:
    share = (min(max(value, span[0]), span[1]) - span[0]) / (span[1] - span[0])
    return INTERVAL_PAD + share * (INTERVAL_WIDTH - 2 * INTERVAL_PAD)


def interval(value: float, se: float, span: Interval, band: Interval | None, hover: str) -> Markup:
    """Draws one estimate with its standard error as a table cell; ``band`` is shaded behind it."""
    shade = Markup("")
    if band:
        left, right = _along(band[0], span), _along(band[1], span)
        rect = Markup('<rect class="band" x="{:.1f}" y="0" width="{:.1f}" height="24"/>')
        shade = rect.format(left, right - left)
    return Markup(
        '<svg class="interval" viewBox="0 0 {:g} 24" role="img" aria-label="{hover}"><title>{hover}</title>{}'
        '<path d="M{:.1f} 12H{:.1f}"/><circle cx="{:.1f}" cy="12" r="3.5"/></svg>'
    ).format(INTERVAL_WIDTH, shade, *(_along(value + k * se, span) for k in (-1, 1, 0)), hover=hover)


def interval_axis(span: Interval) -> Markup:
    """Draws the common axis of :func:`interval`, for the head of its column."""
    mark = Markup('<text class="tick" text-anchor="middle" x="{:.1f}" y="11">{:g}</text>')
    texts = Markup("").join(mark.format(_along(value, span), value) for value in ticks(*span, about=3))
    head = Markup('<svg class="interval" viewBox="0 0 {:g} 14" aria-hidden="true">').format(INTERVAL_WIDTH)
    return head + texts + Markup("</svg>")
