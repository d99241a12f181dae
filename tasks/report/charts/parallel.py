"""Parallel coordinates as inline SVG: one upright axis for each variable, one thread for each trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tasks.report.charts.scatter import Interval, ticks

WIDTH, HEIGHT = 520.0, 270.0
LEFT, TOP, RIGHT, BOTTOM = 34.0, 34.0, 480.0, 252.0
SPREAD = 14.0  # largest height over which threads of equal value are spread
MOST_TICKS = 7


@dataclass(frozen=True)
class Axis:
    """One variable.

    Attributes:
        label: Its name.
        values: All values of the threads on this axis; at least one.
        band: A range to shade, such as a budget.
    """

    label: str
    values: Sequence[float]
    band: Interval | None = None

    @property
    def span(self) -> Interval:
        """The values at the ends of the axis; never an empty interval."""
        every = [*self.values, *(self.band or ())]
        low, high = min(every), max(every)
        return (low, high) if high > low else (low - 0.5, high + 0.5)

    def marks(self) -> list[float]:
        """The values themselves where they are few, else round ones."""
        distinct = sorted(set(self.values))
        return distinct if len(distinct) <= MOST_TICKS else ticks(*self.span)


@dataclass(frozen=True)
class Thread:
    """One trial.

    Attributes:
        values: One for each axis; None ends the thread, since nothing was measured there.
        series: The style, as in the style sheet.
        key: Key of its row in the table.
        hover: Text of the tooltip.
    """

    values: Sequence[float | None]
    series: str
    key: str
    hover: str


def _y(value: float, axis: Axis) -> float:
    low, high = axis.span
    return BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP)


def _heights(index: int, axis: Axis, threads: Sequence[Thread]) -> dict[int, float]:
    """The height of each thread on one axis; those of equal value in the order of their last one, side by side."""
    meeting: dict[float, list[int]] = {}
    for number, thread in enumerate(threads):
        value = thread.values[index]
        if value is not None:
            meeting.setdefault(value, []).append(number)
    heights = {}
    for value, numbers in meeting.items():
        numbers.sort(key=lambda number: threads[number].values[-1] or 0.0, reverse=True)
        step = min(2.5, SPREAD / len(numbers))
        for rank, number in enumerate(numbers):
            heights[number] = _y(value, axis) + (rank - (len(numbers) - 1) / 2) * step
    return heights


def _axis(axis: Axis, x: float) -> Markup:
    parts = []
    if axis.band:
        low, high = _y(axis.band[0], axis), _y(axis.band[1], axis)
        rect = Markup('<rect class="band" x="{:.1f}" y="{:.1f}" width="22" height="{:.1f}"/>')
        parts.append(rect.format(x - 11, high, low - high))
    parts.append(
        Markup('<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(TOP, BOTTOM, x=x)
    )
    return Markup("").join(parts)


def _texts(axis: Axis, x: float) -> Markup:
    """Its name and marks, which lie over the threads."""
    parts = [Markup('<text class="label" text-anchor="middle" x="{:.1f}" y="14">{}</text>').format(x, axis.label)]
    for value in axis.marks():
        y = _y(value, axis)
        mark = Markup('<text class="tick" text-anchor="end" x="{:.1f}" y="{:.1f}">{:g}</text>')
        parts.append(mark.format(x - 6, y + 3.5, round(value, 4)))
    return Markup("").join(parts)


def _brush(axis: Axis, x: float, width: float) -> Markup:
    """Where the page's script lets a range of the axis be chosen: six units beyond both of its ends."""
    rect = Markup(
        '<rect class="brush" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" data-low="{:g}" data-high="{:g}"/>'
    )
    return rect.format(x - width / 2, TOP - 6, width, BOTTOM - TOP + 12, *axis.span)


def parallel(axes: Sequence[Axis], threads: Sequence[Thread], description: str) -> Markup:
    """Draws the threads over the axes, the later ones on top; empty without a thread."""
    if not threads:
        return Markup("")
    step = (RIGHT - LEFT) / (len(axes) - 1)
    across = [LEFT + step * index for index in range(len(axes))]
    heights = [_heights(index, axis, threads) for index, axis in enumerate(axes)]
    body = []
    for number, thread in enumerate(threads):
        places = [(x, height[number]) for x, height in zip(across, heights, strict=True) if number in height]
        # A flat piece on each axis, so that a bend shows which value it turns at.
        points = " ".join(f"{x + side:.1f},{y:.1f}" for x, y in places for side in (-3, 3))
        values = ",".join("" if value is None else f"{value:g}" for value in thread.values)
        line = Markup(
            '<g class="thread {}" data-key="{}" data-values="{}"><title>{}</title>'
            '<polyline class="hit" points="{points}"/><polyline points="{points}"/></g>'
        )
        body.append(line.format(thread.series, thread.key, values, thread.hover, points=points))
    placed = list(zip(axes, across, strict=True))
    under = [_axis(axis, x) for axis, x in placed]
    over = [_texts(axis, x) for axis, x in placed] + [_brush(axis, x, min(step, 44)) for axis, x in placed]
    head = Markup('<svg class="parallel" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">')
    return head.format(WIDTH, HEIGHT, description) + Markup("").join([*under, *body, *over]) + Markup("</svg>")
