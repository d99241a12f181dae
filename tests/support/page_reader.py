"""Reads the report page as a browser would: rows with the exact numbers in them, tags, text."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "line", "circle", "rect", "path", "polyline"}
Attributes = dict[str, str | None]


class Page(HTMLParser):
    """All rows of all tables, each with its attributes, its numbers and its words."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, Attributes]] = []
        self.rows: list[tuple[Attributes, list[float], list[str]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"tags left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append((dict(attrs), [], []))
        if tag == "data" and "tr" in self.open:
            self.rows[-1][1].append(float(dict(attrs)["value"] or "nan"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)
            if "tr" in self.open:
                self.rows[-1][2].append(data)

    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def read_rows(self, attribute: str, value: str | None = None) -> list[tuple[list[float], str]]:
        """Numbers and words of the rows with the attribute; of that value, where one is given."""
        rows = [row for row in self.rows if attribute in row[0] and value in (None, row[0][attribute])]
        return [(numbers, " ".join(" ".join(words).split())) for _, numbers, words in rows]

    def row(self, value: str, attribute: str = "data-network") -> tuple[list[float], str]:
        """Numbers and words of the one row whose attribute has the value."""
        rows = self.read_rows(attribute, value)
        assert len(rows) == 1, f"{attribute}={value} has {len(rows)} rows"
        return rows[0]
