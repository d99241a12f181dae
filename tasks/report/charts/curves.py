"""The curves of a training as an SVG file of its own: training loss, and accuracy on minival."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

WIDTH, HEIGHT = 640.0, 220.0
LEFT, RIGHT, TOP, BOTTOM = 60.0, 620.0, 30.0, 190.0  # the plot inside one panel
PANELS = {"train_loss": "training loss", "minival_top1": "top-1 on minival, %"}
Point = tuple[float, float]  # step, value


def draw_curves(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draws one panel per metric that the rows of ``metrics.jsonl`` have; empty without any.

    Args:
        rows: The trainer's metrics, oldest first.
    """
    curves = {key: [(float(row["step"]), float(row[key])) for row in rows if key in row] for key in PANELS}
    drawn = [(title, curves[key]) for key, title in PANELS.items() if curves[key]]
    if not drawn:
        return ""
    last = max(step for _, points in drawn for step, _ in points)
    panels = [_panel(title, points, last, number * HEIGHT) for number, (title, points) in enumerate(drawn)]
    return str(
        Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {:g} {:g}" font-family="sans-serif" font-size="12">'
            '<rect width="100%" height="100%" fill="#fff"/>{}</svg>\n'
        ).format(WIDTH, HEIGHT * len(drawn), Markup("").join(panels))
    )


def _panel(title: str, points: Sequence[Point], last_step: float, top: float) -> Markup:
    low, high = min(value for _, value in points), max(value for _, value in points)
    span = (high - low) or 1.0

    def place(step: float, value: float) -> str:
        x = LEFT + (RIGHT - LEFT) * step / max(last_step, 1.0)
        return f"{x:.1f},{top + BOTTOM - (BOTTOM - TOP) * (value - low) / span:.1f}"

    path = " ".join(place(*point) for point in points)
    mark = Markup('<circle r="3" cx="{}" cy="{}" fill="#1f5fa8"/>').format(*place(*points[-1]).split(","))
    return Markup(
        '<text x="{left}" y="{title_y}" font-weight="bold">{title}</text>'
        '<text x="{edge}" y="{top}" text-anchor="end">{high:.4g}</text>'
        '<text x="{edge}" y="{bottom}" text-anchor="end">{low:.4g}</text>'
        '<text x="{right}" y="{below}" text-anchor="end">step {last:g}</text>'
        '<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#999"/>'
        '<polyline points="{path}" fill="none" stroke="#1f5fa8" stroke-width="1.5"/>{mark}'
    ).format(
        left=LEFT,
        right=RIGHT,
        edge=LEFT - 6,
        title=title,
        title_y=top + TOP - 12,
        top=top + TOP,
        bottom=top + BOTTOM,
        below=top + BOTTOM + 16,
        high=high,
        low=low,
        last=last_step,
        path=path,
        mark=mark,
    )
