"""What a network answers, as SVG files of their own: its confusion matrix, and pictures with its predictions."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

CELL, LABEL_CHARS, CHAR_WIDTH = 34.0, 16, 6.6  # of the matrix; 12 px sans-serif is at most 6.6 wide on average
SIDE, GAP, LINE = 96.0, 8.0, 15.0  # of a picture, between two, of a line of text
COLUMNS = 3  # of tiles with two pictures, 656 px: the column of MLflow's pages
RIGHT_COLOR, WRONG_COLOR = "#1f5fa8", "#b3261e"


@dataclass(frozen=True)
class Tile:
    """Pictures side by side, as PNG files, with two lines of text below."""

    pictures: tuple[bytes, ...]
    title: str
    note: str
    right: bool


def draw_confusion(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """Draws a confusion matrix: one row per true class, one column per predicted class, darker for a larger share.

    Args:
        matrix: Images by true and predicted class.
        names: Class names.
    """
    margin = CHAR_WIDTH * min(LABEL_CHARS, max(map(len, names))) + 2 * GAP
    top = margin + 2 * LINE
    parts = [Markup('<text x="{}" y="14" font-weight="bold">true class by row, predicted by column</text>').format(GAP)]
    for i, (name, row) in enumerate(zip(names, matrix, strict=True)):
        x, y = margin + i * CELL, top + i * CELL
        parts.append(
            Markup(
                '<text x="{}" y="{}" text-anchor="end">{}</text>'
                '<text transform="translate({} {}) rotate(-90)">{}</text>'
            ).format(margin - GAP, y + CELL / 2 + 4, _short(name), x + CELL / 2 + 4, top - GAP, _short(name))
        )
        parts += [_cell(margin + j * CELL, y, count, sum(row), i == j) for j, count in enumerate(row)]
    side = len(names) * CELL + GAP
    return _document(margin + side, top + side, parts)


def draw_tiles(tiles: Sequence[Tile]) -> str:
    """Draws pictures with their text in rows of ``COLUMNS``; there is at least one."""
    width = max(len(tile.pictures) for tile in tiles) * (SIDE + GAP) + GAP
    chars = int(width / CHAR_WIDTH)
    height = SIDE + 2 * LINE + 2 * GAP
    parts = []
    for number, tile in enumerate(tiles):
        x, y = (number % COLUMNS) * width + GAP, (number // COLUMNS) * height + GAP
        for i, picture in enumerate(tile.pictures):
            data = base64.b64encode(picture).decode()
            parts.append(
                Markup('<image x="{}" y="{}" width="{}" height="{}" href="data:image/png;base64,{}"/>').format(
                    x + i * (SIDE + GAP), y, SIDE, SIDE, data
                )
            )
        color, below = RIGHT_COLOR if tile.right else WRONG_COLOR, y + SIDE
        parts.append(
            Markup(
                '<text x="{x}" y="{first}" fill="{color}">{title}</text><text x="{x}" y="{second}">{note}</text>'
            ).format(
                x=x,
                first=below + LINE,
                second=below + 2 * LINE,
                color=color,
                title=_short(tile.title, chars),
                note=_short(tile.note, chars),
            )
        )
    rows = -(-len(tiles) // COLUMNS)
    return _document(min(len(tiles), COLUMNS) * width, rows * height + GAP, parts)


def _cell(x: float, y: float, count: int, total: int, right: bool) -> Markup:
    if not count:
        return Markup("")
    share = count / total
    return Markup(
        '<rect x="{}" y="{}" width="{}" height="{}" fill="{}" fill-opacity="{:.3f}"/>'
        '<text x="{}" y="{}" text-anchor="middle" fill="{}">{}</text>'
    ).format(
        *(x, y, CELL - 1, CELL - 1, RIGHT_COLOR if right else WRONG_COLOR, 0.1 + 0.9 * share),
        *(x + CELL / 2, y + CELL / 2 + 4, "#fff" if share > 0.5 else "#000", count),
    )


def _short(text: str, chars: int = LABEL_CHARS) -> str:
    return text if len(text) <= chars else f"{text[: chars - 1]}…"


def _document(width: float, height: float, parts: Sequence[Markup]) -> str:
    return str(
        Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" width="{0:g}" height="{1:g}" viewBox="0 0 {0:g} {1:g}" '
            'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>{2}</svg>\n'
        ).format(width, height, Markup("").join(parts))
    )
