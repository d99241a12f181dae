"""The confusion matrix and the pictures of a model card as SVG."""

import base64
import xml.etree.ElementTree as ElementTree

from tasks.report.charts.answers import COLUMNS, Tile, draw_confusion, draw_tiles

SVG = "{http://www.w3.org/2000/svg}"


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)  # noqa: S314 - written by the code under test


def texts(svg: str) -> list[str]:
    return [text.text or "" for text in parse(svg).iter(f"{SVG}text")]


def test_a_matrix_has_a_cell_for_each_pair_that_occurs_and_darker_ones_for_larger_shares() -> None:
    svg = draw_confusion([[8, 2, 0], [0, 5, 0], [0, 0, 0]], ["cat", "<b>dog</b>", "a class with a long name"])
    cells = [rect.attrib for rect in parse(svg).iter(f"{SVG}rect") if "fill-opacity" in rect.attrib]
    assert [cell["fill-opacity"] for cell in cells] == ["0.820", "0.280", "1.000"]
    assert cells[0]["fill"] == cells[2]["fill"] != cells[1]["fill"]
    assert cells[0]["y"] == cells[1]["y"] < cells[2]["y"]  # the first row is the first true class
    shown = texts(svg)
    assert shown.count("cat") == 2  # a row and a column
    assert "<b>dog</b>" in shown
    assert "a class with a …" in shown
    assert [text for text in shown if text.isdigit()] == ["8", "2", "5"]


def test_tiles_hold_their_pictures_and_lie_in_the_drawing_without_overlaps() -> None:
    tiles = [Tile((b"one", b"two"), f"title {i}", "a note " * 20, i % 2 == 0) for i in range(COLUMNS + 1)]
    root = parse(draw_tiles(tiles))
    images = list(root.iter(f"{SVG}image"))
    pictures = [base64.b64decode(image.attrib["href"].partition("base64,")[2]) for image in images]
    assert pictures == [b"one", b"two"] * len(tiles)
    boxes = [[float(image.attrib[key]) for key in ("x", "y", "width", "height")] for image in images]
    assert all(
        abs(a[0] - b[0]) >= a[2] or abs(a[1] - b[1]) >= a[3] for i, a in enumerate(boxes) for b in boxes[i + 1 :]
    )
    assert max(x + w for x, _, w, _ in boxes) < float(root.attrib["width"])
    assert max(y + h for _, y, _, h in boxes) < float(root.attrib["height"])
    assert len({text.attrib["fill"] for text in root.iter(f"{SVG}text") if "fill" in text.attrib}) == 2
