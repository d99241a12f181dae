"""The report page in a real browser: no complaint, no request, no sideways scroll.

Runs where Playwright and a Chromium are installed; the project depends on neither.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import made_parts
import pytest
from made_parts import render_stored
from PIL import Image

from models import paper
from models.results.nights import NightsResult
from tasks.report.page import render_night
from tasks.report.results import read_stored


def _summary() -> dict[str, Any]:
    """A full run with long names and digests, so that whatever can overflow does."""
    run = {"mlflow_run": "3f2a91bc" * 4, "mlflow_url": f"http://127.0.0.1:5000/#/runs/{'3f2a91bc' * 4}"}
    registered = {"registered_name": "efficientnet-b0-on-a-data-set-with-a-long-name", "registered_version": 12}
    trial = made_parts.trial(1.2, 1.1, 1.15, 96.2)
    names = [row.name for row in paper.EFFICIENTNETS]
    data = {
        "name": "a-data-set-with-a-long-name",
        "train": 1_281_167,
        "minival": 25_022,
        "val": 50_000,
        "classes": 1000,
        "shards": 1024,
        "manifest_sha256": "9b" * 32,
        "manifest_uri": f"s3://bucket/{'long-prefix/' * 12}manifest.json",
        "reused": False,
    }
    return {
        "wall_s": 2472.3,
        "profile": "laptop",
        "commit": "0f3c9a7d51" * 4,
        "command": "effnet reproduce " * 12,
        "variants": [made_parts.variant(0) | run | registered | {"name": name} for name in names],
        "search": made_parts.grown_search(
            {"trials": [trial | run] * 12, "best": trial, "tied": [], "budget": 2.0, "tolerance": 0.1}
        ),
        "transfer": [made_parts.fine_tuned(data["name"], 95.4, 1000) | run | {"name": name} for name in names],
        "data": [data],
        "machine": {"cpu": "x" * 90},
        "services": {"s3": f"http://{'long.' * 30}example"},
        "missing": [f"efficientnet_b6: {'no_room_to_break_a_line_' * 10}"],
    }


def _short_names() -> dict[str, Any]:
    """The same run with names and addresses of usual length."""
    summary = _summary()
    names = {"name": "mnist5k", "manifest_uri": "s3://effnet/data/mnist5k/0f39f785f8666ac0/manifest.json"}
    return summary | {
        "variants": [
            row | {"registered_name": row["name"].replace("_", "-"), "registered_version": 1}
            for row in summary["variants"]
        ],
        "data": [summary["data"][0] | names],
        "transfer": [row | {"data": "digits"} for row in summary["transfer"]],
        "command": "effnet reproduce profile=laptop",
        "machine": made_parts.ORIGIN["machine"],
    }


@dataclass(frozen=True)
class _Seen:
    messages: list[str]
    requests: list[str]
    scroll_width: int
    boxes_that_scroll: int
    background: str


def _look(browser: Any, path: Path, width: int, scheme: str) -> _Seen:
    messages: list[str] = []
    requests: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_load_state("networkidle")
    seen = _Seen(
        messages,
        requests,
        page.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"),
        page.evaluate("[...document.querySelectorAll('.box')].filter(b => b.scrollWidth > b.clientWidth).length"),
        page.evaluate("getComputedStyle(document.documentElement).backgroundColor"),
    )
    page.close()
    return seen


def _written(folder: Path) -> Path:
    path = folder / "report.html"
    path.write_text(render_stored(_summary(), made_parts.everything()), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [320, 400, 1280])
def test_the_page_is_quiet_alone_and_no_wider_than_the_window(browser: Any, tmp_path: Path, width: int) -> None:
    path = tmp_path / "report.html"
    for summary, parts in ((_summary(), made_parts.everything()), ({}, {})):
        path.write_text(render_stored(summary, parts), encoding="utf-8")
        seen = _look(browser, path, width, "light")
        assert seen.messages == []
        assert [url for url in seen.requests if not url.startswith("data:")] == [path.as_uri()]
        assert seen.scroll_width <= width
        if width <= 400:
            assert seen.boxes_that_scroll >= 1, "a wide table scrolls inside its own box"


def test_at_1440_px_every_table_and_the_contents_fit(browser: Any, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    for summary, parts in ((_short_names(), made_parts.everything()), (_short_names(), {})):
        (tmp_path / "report.html").write_text(render_stored(summary, parts), encoding="utf-8")
        page.goto((tmp_path / "report.html").as_uri())
        page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")
        wide = page.evaluate(
            """[...document.querySelectorAll('.box, nav ol')].filter(b => b.scrollWidth > b.clientWidth)
                .map(b => `${b.getAttribute('aria-label')}: ${b.scrollWidth} of ${b.clientWidth} px`)"""
        )
        assert wide == []
    page.close()


def test_at_400_px_a_table_that_scrolls_shows_it_at_the_edge_where_more_is(browser: Any, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 400, "height": 900}, color_scheme="light")
    page.goto(_written(tmp_path).as_uri())
    for place in ("#table2 .box", "nav ol"):
        box = page.locator(place).first
        box.scroll_into_view_if_needed()
        page.mouse.move(2, 2)
        assert box.evaluate("b => b.scrollWidth > b.clientWidth"), place
        assert _darkness_at_the_right(box) > 40, place
        box.evaluate("b => b.scrollTo({ left: b.scrollWidth })")
        assert _darkness_at_the_right(box) < 10, f"{place}: nothing more to the right"
    page.close()


def _darkness_at_the_right(box: Any) -> int:
    """How much darker than the page a column of pixels at the right edge is, from 0 to 255: the median of its rows."""
    picture = Image.open(io.BytesIO(box.screenshot())).convert("L")
    edge = picture.crop((picture.width - 2, 0, picture.width - 1, picture.height))
    return 253 - sorted(edge.tobytes())[picture.height // 2]


def test_what_was_not_run_is_folded_and_a_link_to_it_opens_it(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_stored(_summary()), encoding="utf-8")
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(path.as_uri())
    folded = page.locator("#not-run > details")
    assert folded.count() == 7
    assert max(fold.bounding_box()["height"] for fold in folded.all()) < 40, "one line each"
    page.locator(".claim a[href='#latency']").click()
    page.locator("#latency").wait_for()
    assert page.locator("#latency").is_visible()
    page.close()


def test_the_page_of_a_night_is_quiet_and_no_wider_than_the_window(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "night.html"
    part = made_parts.nights() | {"line": "efficientnet-b0-" + 12 * "a-long-name-"}
    path.write_text(render_night(read_stored(NightsResult, part, "nights.json")), encoding="utf-8")
    for width in (320, 400, 1440):
        seen = _look(browser, path, width, "light")
        assert seen.messages == []
        assert [url for url in seen.requests if not url.startswith("data:")] == [path.as_uri()]
        assert seen.scroll_width <= width


def test_the_page_follows_the_reader_s_colour_scheme(browser: Any, tmp_path: Path) -> None:
    path = _written(tmp_path)
    light, dark = (_look(browser, path, 1280, scheme).background for scheme in ("light", "dark"))
    assert sum(map(int, light[4:-1].split(","))) > 600
    assert sum(map(int, dark[4:-1].split(","))) < 150


def test_all_names_and_marks_of_a_chart_are_drawn_inside_it(browser: Any, tmp_path: Path) -> None:
    path = _written(tmp_path)
    for width in (375, 1280):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.goto(path.as_uri())
        outside = page.evaluate(
            """[...document.querySelectorAll('svg.chart, svg.parallel')].flatMap(svg => {
                const room = svg.getBoundingClientRect();
                return [...svg.querySelectorAll('text, circle, .mark')].filter(part => {
                    const box = part.getBoundingClientRect();
                    return box.left < room.left - 1 || box.right > room.right + 1
                        || box.top < room.top - 1 || box.bottom > room.bottom + 1;
                }).map(part => part.textContent);
            })"""
        )
        assert outside == []
        page.close()


def test_a_mark_shows_its_exact_value_under_the_pointer_and_under_the_arrow_keys(browser: Any, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(_written(tmp_path).as_uri())
    tip = page.locator(".tip")
    assert not tip.is_visible()
    first = page.locator("#figures svg.chart").nth(1)
    first.locator(".dot circle:not(.hit)").nth(2).hover()
    assert tip.inner_text() == "B2: top-1 80.1 %, 9.20\N{NO-BREAK SPACE}M parameters"
    page.mouse.move(2, 2)
    assert not tip.is_visible()
    first.focus()
    seen = []
    for _ in range(3):
        page.keyboard.press("ArrowRight")
        seen.append(tip.inner_text().partition(":")[0])
    assert seen == ["B0", "B1", "B2"]
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    page.close()


def test_a_range_of_an_axis_keeps_the_trials_in_it_until_all_are_shown_again(browser: Any, tmp_path: Path) -> None:
    summary = _summary()
    for number, trial in enumerate(summary["search"]["trials"]):
        trial["alpha"] = 1.0 + 0.1 * number
    path = tmp_path / "report.html"
    path.write_text(render_stored(summary), encoding="utf-8")
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(path.as_uri())
    faded = page.locator("tr.trial.out")
    page.locator("svg.parallel").scroll_into_view_if_needed()
    axis = page.locator(".brush").first.bounding_box()
    across = axis["x"] + axis["width"] / 2
    page.mouse.move(across, axis["y"] + 1)
    page.mouse.down()
    page.mouse.move(across, axis["y"] + axis["height"] / 2)
    page.mouse.up()
    kept = [float(row.locator("th").inner_text()) for row in page.locator("tr.trial:not(.out)").all()]
    assert kept
    assert min(kept) >= 1.5
    assert faded.count() == 12 - len(kept)
    page.get_by_role("button", name="Show all").click()
    assert faded.count() == 0
    page.close()


def test_on_paper_everything_is_unfolded_and_nothing_is_cut_off(browser: Any, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(_written(tmp_path).as_uri())
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("[...document.querySelectorAll('details')].every(each => each.open)")
    assert not page.locator("nav").is_visible()
    cut = page.evaluate(
        "[...document.querySelectorAll('.tall')].filter(b => b.scrollHeight > b.clientHeight + 1).length"
    )
    assert cut == 0
    page.close()


def test_without_its_script_the_page_shows_the_same(browser: Any, tmp_path: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(_written(tmp_path).as_uri())
    assert page.locator("svg .dot title").count() > 60, "the browser's own tooltips"
    assert page.locator("svg.parallel .thread").count() > 20
    assert not page.locator(".scripted").is_visible()
    context.close()
