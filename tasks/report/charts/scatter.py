"""Charts as inline SVG for the report: no script, no image; colors come from the page's style sheet.

A name goes into the SVG through ``Markup.format`` only, which escapes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from tasks.report.charts.labels import Box, Name, Place, around, place_names, samples
from tasks.report.numbers import tick as tick_text

Interval = tuple[float, float]  # low, high
Scale = tuple[Interval, Interval]  # the values at the edges of the plot, of x and of y

WIDTH, HEIGHT = 460.0, 340.0
LEFT, TOP, RIGHT, BOTTOM = 42.0, 30.0, 446.0, 296.0  # the plot inside it
INTERVAL_WIDTH, INTERVAL_PAD = 190.0, 8.0


# Marker shape of a series, so that color is not the only difference; a circle by default.
SHAPES = {
    "width": "M{:.1f} {:.1f}m-3.2-3.2h6.4v6.4h-6.4z",
    "depth": "M{:.1f} {:.1f}m0-4.4l4.2 7.4h-8.4z",
    "resolution": "M{:.1f} {:.1f}m0-4.6l4.6 4.6-4.6 4.6-4.6-4.6z",
}
SHAPES |= {"setting-2": SHAPES["width"], "setting-3": SHAPES["depth"], "setting-4": SHAPES["resolution"]}


@dataclass(frozen=True)
class Dot:
    """One network in a chart.

    Attributes:
        label: Its short name, drawn beside the dot; empty for a dot without one.
        x: Parameters or multiply-adds, > 0.
        y: Top-1 in percent.
        se: Standard error of ``y`` in points, drawn as a whisker; 0 draws none.
        series: The style, as in the style sheet.
        hover: Text of the tooltip.
    """

    label: str
    x: float
    y: float
    se: float
    series: str
    hover: str


@dataclass(frozen=True)
class Line:
    """A line through values, in the style of a series."""

    series: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Mark:
    """Something with a size and no accuracy: a short stroke on the axis, or with a ``label`` one through the plot."""

    x: float
    hover: str
    label: str = ""


def joined(series: str, dots: Iterable[Dot]) -> Line:
    """The line through dots in their order."""
    return Line(series, [(dot.x, dot.y) for dot in dots])


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


def _symbol(series: str, x: float, y: float) -> Markup:
    if series in SHAPES:
        return Markup('<path class="mark" d="{}"/>').format(SHAPES[series].format(x, y))
    return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3.5"/>').format(x, y)


def _dot(dot: Dot, place: Place, name: Name | None, scale: Scale) -> Markup:
    x, y = place
    parts = [Markup('<g class="dot {}"><title>{}</title>').format(dot.series, dot.hover)]
    if dot.se > 0:
        _, top, _, bottom = _whisker(dot, scale)
        parts.append(Markup('<path d="M{:.1f} {:.1f}V{:.1f}"/>').format(x, top, bottom))
    if name and name.line:
        parts.append(Markup('<path class="leader" d="M{:.1f} {:.1f}L{:.1f} {:.1f}"/>').format(*name.line))
    parts.append(Markup('<circle class="hit" cx="{:.1f}" cy="{:.1f}" r="11"/>').format(x, y))
    parts.append(_symbol(dot.series, x, y))
    if name:
        left, _, right, bottom = name.box
        # The box is as wide as the name may get, so a shorter name keeps to the side of its dot.
        anchor, edge = ("middle", (left + right) / 2)
        if left >= x or right <= x:
            anchor, edge = ("start", left) if left >= x else ("end", right)
        text = Markup('<text text-anchor="{}" x="{:.1f}" y="{:.1f}">{}</text>')
        parts.append(text.format(anchor, edge, bottom - 3, dot.label))
    return Markup("").join(parts) + Markup("</g>")


def _mark(mark: Mark, scale: Scale) -> Markup:
    x = _at(scale, mark.x, scale[1][0])[0]
    if not mark.label:
        stroke = Markup('<g class="stroke"><title>{}</title><path d="M{:.1f} {:.1f}v-9"/></g>')
        return stroke.format(mark.hover, x, BOTTOM)
    return Markup(
        '<g class="limit"><title>{}</title><path d="M{x:.1f} {:.1f}V{:.1f}"/>'
        '<text class="tick" text-anchor="middle" x="{x:.1f}" y="{:.1f}">{}</text></g>'
    ).format(mark.hover, TOP, BOTTOM, TOP - 5, mark.label, x=x)


def _scale(dots: Sequence[Dot], marks: Sequence[Mark]) -> Scale:
    sizes = [dot.x for dot in dots] + [mark.x for mark in marks]
    bottom, top = percent_range((dot.y, dot.se) for dot in dots)
    air = 0.07 * (top - bottom)  # so that no dot sits on the axis
    return (min(sizes) / 1.3, max(sizes) * 2), (bottom - air, top + air)


def scatter(
    dots: Sequence[Dot], x_label: str, description: str, lines: Sequence[Line] = (), marks: Sequence[Mark] = ()
) -> Markup:
    """Draws accuracy over size: logarithmic x, linear y, every dot with its name; empty without a dot."""
    shown = [dot for dot in dots if dot.x > 0]
    if not shown:
        return Markup("")
    scale = _scale(shown, [mark for mark in marks if mark.x > 0])
    (low, high), (bottom, top) = scale
    places = [_at(scale, dot.x, dot.y) for dot in shown]
    curves = [(line.series, [_at(scale, x, y) for x, y in line.points if x > 0]) for line in lines]
    taken = [around(*place, 5) for place in places]
    taken.extend(_whisker(dot, scale) for dot in shown if dot.se > 0)
    ends = [pair for _, curve in curves for pair in pairwise(curve)]
    named = [index for index, dot in enumerate(shown) if dot.label]
    placed = place_names(
        [shown[index].label for index in named],
        [places[index] for index in named],
        (LEFT, TOP - 10, WIDTH, BOTTOM),
        taken,
        [box for start, end in ends for box in samples(start, end, 2)],
    )
    names = dict(zip(named, placed, strict=True))
    body = [*_axes(scale, _log_ticks(low, high), ticks(bottom, top), x_label)]
    body.extend(_mark(mark, scale) for mark in marks if mark.x > 0)
    for series, curve in curves:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in curve)
        body.append(Markup('<polyline class="curve {}" points="{}"/>').format(series, points))
    body.extend(_dot(dot, places[index], names.get(index), scale) for index, dot in enumerate(shown))
    head = Markup('<svg class="chart" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">')
    return head.format(WIDTH, HEIGHT, description) + Markup("").join(body) + Markup("</svg>")


def _along(value: float, span: Interval) -> float:
    share = (min(max(value, span[0]), span[1]) - span[0]) / (span[1] - span[0])
    return INTERVAL_PAD + share * (INTERVAL_WIDTH - 2 * INTERVAL_PAD)


def interval(value: float, ends: Interval, span: Interval, band: Interval | None, hover: str) -> Markup:
    """Draws one estimate between its ``ends`` as a table cell; ``band`` is shaded behind it."""
    shade = Markup("")
    if band:
        left, right = _along(band[0], span), _along(band[1], span)
        rect = Markup('<rect class="band" x="{:.1f}" y="0" width="{:.1f}" height="24"/>')
        shade = rect.format(left, right - left)
    return Markup(
        '<svg class="interval" viewBox="0 0 {:g} 24" role="img" aria-label="{hover}"><title>{hover}</title>{}'
        '<path d="M{:.1f} 12H{:.1f}"/><circle cx="{:.1f}" cy="12" r="3.5"/></svg>'
    ).format(INTERVAL_WIDTH, shade, *(_along(end, span) for end in (*ends, value)), hover=hover)


def interval_axis(span: Interval) -> Markup:
    """Draws the common axis of :func:`interval`, for the head of its column."""
    mark = Markup('<text class="tick" text-anchor="middle" x="{:.1f}" y="11">{:g}</text>')
    texts = Markup("").join(mark.format(_along(value, span), value) for value in ticks(*span, about=3))
    head = Markup('<svg class="interval" viewBox="0 0 {:g} 14" role="img" aria-label="axis">').format(INTERVAL_WIDTH)
    return head + texts + Markup("</svg>")
