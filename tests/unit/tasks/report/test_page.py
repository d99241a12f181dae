"""The report page: every number is read back out of the HTML and compared with what went in."""

import base64
import copy
import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import made_parts
import pytest
from made_parts import render_stored, trial
from matrix import with_slow_rest
from page_reader import Page

from models import paper
from models.results import Summary, result_from
from tasks.report.page import markdown_table
from tasks.report.results import read_stored

Json = dict[str, Any]
HOSTILE = "\"><script>alert(1)</script><img src=x onerror='alert(2)'>&{{ 7*7 }}"


def _summary() -> Json:
    trials = [trial(1.4, 1.2, 1.0, 94.25), trial(1.2, 1.1, 1.15, 96.25), trial(1.2, 1.0, 1.3, 96.5)]
    return {
        "wall_s": 2472.3,
        "jobs": 21,
        "jobs_found": 0,
        "profile": "laptop",
        "commit": "0f3c9a7d51e2b84c6a90d3e7f112233445566778",
        "started": "2025-11-23T20:31:02+00:00",
        "finished": "2025-11-23T21:12:14+00:00",
        "command": "make reproduce",
        "variants": [made_parts.variant(phi) for phi in range(8)],
        "search": {"trials": trials, "best": trials[2], "tied": [trials[1]], "budget": 2.0, "tolerance": 0.1},
        "transfer": [made_parts.fine_tuned("digits", 97.22, 360)],
        "data": [
            {
                "name": "mnist5k",
                "train": 3600,
                "minival": 400,
                "val": 1000,
                "classes": 10,
                "shards": 8,
                "manifest_sha256": "9b" * 32,
                "manifest_uri": "s3://effnet/data/mnist5k/manifest.json",
                "reused": False,
            }
        ],
        "machine": {
            "cpu": "a processor",
            "cores": "2",
            "memory_gb": "23.4",
            "gpu": "none",
            "python": "3.11.7",
            "torch": "2.13.0",
        },
        "services": {
            "prefect": "http://127.0.0.1:4200/api",
            "mlflow": "http://127.0.0.1:5000",
            "s3": "http://127.0.0.1:8333",
        },
        "workers": ["gpu-one", "gpu-two"],
    }


def _table(summary: Json) -> str:
    return markdown_table(read_stored(Summary, summary, "summary.json").result)


def test_every_number_of_a_network_stands_in_its_row_beside_the_paper_s() -> None:
    summary = _summary()
    page, base = Page(render_stored(summary)), summary["variants"][0]
    for phi, entry in enumerate(summary["variants"]):
        printed = paper.table2(entry["name"])
        share = entry["top1"] / 100
        expected = [
            entry["params"],
            entry["params"] / base["params"],
            entry["multiply_adds"],
            entry["multiply_adds"] / base["multiply_adds"],
            entry["resolution"],
            entry["top1"],
            100 * math.sqrt(share * (1 - share) / 1000),
            entry["top5"],
            1000,
            printed.params_m,
            printed.flops_b,
            printed.top1,
            printed.top5,
            entry["paper_params"],
            entry["paper_params"] / base["paper_params"],
            entry["paper_multiply_adds"],
            entry["paper_multiply_adds"] / base["paper_multiply_adds"],
            entry["minutes"],
            12,
            entry["images_per_s"],
        ]
        numbers, words = page.row(f"B{phi}")
        assert numbers == pytest.approx(expected, rel=1e-12)
        assert f"efficientnet-b{phi} v3" in words
        assert f"{phi}f2a91bc" in words


def test_every_trial_stands_in_the_ranking_with_its_verdict() -> None:
    summary = _summary()
    html = render_stored(summary)
    rows = [row for row in Page(html).rows if row[0].get("class") == "trial"]
    trials = sorted(summary["search"]["trials"], key=lambda row: -row["minival_top1"])
    for (_, numbers, _), row in zip(rows, trials, strict=True):
        sizes = ("product", "counted_cost", "params", "multiply_adds", "resolution")
        keys = ("alpha", "beta", "gamma", *sizes, "minival_top1")
        error = math.sqrt(row["minival_top1"] * (100 - row["minival_top1"]) / 400)
        assert numbers == pytest.approx([*(row[key] for key in keys), error, 400], rel=1e-12)  # and two dashes
    texts = [" ".join(" ".join(words).split()) for _, _, words in rows]
    verdicts = [re.sub(r".* 400 |ab12cd34|\N{EM DASH}", "", text).strip() for text in texts]
    assert verdicts == ["best", "within 1 s.e. the paper’s choice", ""]
    assert "Not distinguished from it: 1 other point" in Page(html).text()


def test_trials_that_were_compared_on_the_same_images_show_the_lead_of_the_best() -> None:
    summary = _summary()
    search = summary["search"]
    behind = {"value": 0.75, "lower": -0.5, "upper": 2.0, "p": 0.25, "n": 400, "seeds": 3}
    for row in search["trials"]:
        row |= {"equal_cost_top1": row["minival_top1"] - 1}
    search["trials"][1]["behind"] = behind
    search |= {"seeds": 3, "exponent": -0.07, "equal_cost_verdict": "at equal counted cost the other leads, a tie"}
    page = Page(render_stored(summary))
    rows = {numbers[0]: (numbers, words) for (_, numbers, words) in page.rows if _.get("class") == "trial"}
    numbers, words = rows[search["trials"][1]["alpha"]]
    assert numbers[-4:] == pytest.approx([search["trials"][1]["minival_top1"] - 1, 0.75, -0.5, 2.0])
    assert "tie" in " ".join(words)
    assert "At equal counted cost the other leads, a tie." in page.text()
    assert "over 3 seeds" in page.text()


def test_the_rest_of_the_summary_stands_on_the_page() -> None:
    summary = _summary()
    html = render_stored(summary)
    page = Page(html)
    text = page.text()
    strings = [*summary["machine"].values(), *summary["services"].values(), summary["commit"]]
    strings += [summary["command"], summary["data"][0]["manifest_sha256"], summary["data"][0]["manifest_uri"]]
    strings += ["Jobs ran on gpu-one, gpu-two", "41 min 12 s", "23 Nov 2025, 21:12 UTC", "8 of 8", "digits", "mnist5k"]
    assert [word for word in strings if word not in text] == []
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    urls = [entry["mlflow_url"] for key in ("variants", "transfer") for entry in summary[key]]
    assert set(urls) | set(summary["services"].values()) <= set(links)
    [(transfer, _)] = page.read_rows("data-moved")
    assert transfer == pytest.approx([97.22, math.sqrt(97.22 * 2.78 / 360), 97.22, 99.72, 360, 0.6])
    data, _ = page.row("mnist5k", "data-set-of-run")
    assert data == [3600, 400, 1000, 10, 8]


def test_a_repetition_that_found_all_jobs_does_not_replace_the_time_that_they_took() -> None:
    summary = {**_summary(), "wall_s": 18.0, "jobs_found": 21, "first_wall_s": 505.0}
    assert "Took 8 min 25 s ; repeated in 18 s , all 21 jobs found" in " ".join(
        Page(render_stored(summary)).text().split()
    )


def test_a_small_run_says_that_it_is_not_comparable_and_the_paper_s_own_profile_does_not() -> None:
    summary = _summary()
    small = Page(render_stored(summary)).text()
    assert "Not comparable with ImageNet. The networks are shrunken (B0 has 72,434 parameters" in small
    assert "data (mnist5k) is a stand-in" in small
    whole = _summary() | {"variants": [made_parts.variant(0) | {"params": 5_288_548}]}
    assert "shrunken" not in Page(render_stored(whole)).text()
    assert "is a stand-in" in Page(render_stored(whole)).text()
    assert "Not comparable" not in Page(render_stored(summary | {"profile": "paper"})).text()


def test_a_hostile_string_anywhere_comes_out_as_text() -> None:
    def poison(value: Any) -> Any:
        if isinstance(value, dict):
            poisoned = {key: poison(item) for key, item in value.items()}
            return poisoned | {HOSTILE: HOSTILE} if "cpu" in value or "s3" in value else poisoned
        if isinstance(value, list):
            return [poison(item) for item in value]
        return HOSTILE if isinstance(value, str) else value

    html = render_stored(poison(_summary()))
    page, benign = Page(html), Page(render_stored(_summary()))
    assert html.count("<script") == 1, "the page's own"
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in benign.tags}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert page.text().count("<script>alert(1)</script>") > 20
    assert "{{ 7*7 }}" in page.text()


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "file:///x", " http://x", "//x", ""])
def test_only_an_address_of_the_web_becomes_a_link(url: str) -> None:
    summary = _summary()
    summary["variants"][0]["mlflow_url"] = url
    summary["services"] = {"s3": url or None}
    page = Page(render_stored(summary))
    assert url not in [attrs.get("href") for tag, attrs in page.tags if tag == "a"]
    assert "0f2a91bc" in page.row("B0")[1]


def test_the_page_loads_nothing_and_forbids_everything_else() -> None:
    html = render_stored(_summary())
    page = Page(html)
    names = ("src", "srcset", "data", "action", "poster")
    loads = [(tag, name) for tag, attrs in page.tags for name in names if name in attrs]
    assert loads == []
    assert [attrs["href"] for tag, attrs in page.tags if tag != "a" and "href" in attrs] == ["data:,"]
    assert "@import" not in html
    assert "url(" not in html
    policies = [attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    [script] = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policies == [
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:"
    ], "only the page's own script may run"


def test_an_empty_summary_says_not_run_and_still_shows_the_paper() -> None:
    page = Page(render_stored({}))
    text = page.text()
    assert ["not run" in words for _, words in page.read_rows("data-network")] == [True] * 8
    sentences = [
        "Of 9 claims of the paper 9 were not run.",
        "B0 to B7: not run. effnet reproduce makes it.",
        "Not run: no network has",
        "The summary contains no trials",
        "Transfer: not run. effnet transfer makes it.",
        "lists no data",
        "an unrecorded profile",
        "The profile is not recorded",
        "84.3",
        "GPipe",
    ]
    assert [sentence for sentence in sentences if sentence not in text] == []


def test_a_network_that_did_not_run_is_shown_as_such_and_the_others_as_they_are() -> None:
    summary = _summary()
    del summary["variants"][3], summary["variants"][0]
    page = Page(render_stored(summary))
    assert page.row("B3") == ([12, 1.8, 81.6, 95.7], "B3 not run 12 M 1.8 B 81.6 95.7")
    b4 = summary["variants"][2]
    assert page.row("B4")[0][:2] == [b4["params"], b4["multiply_adds"]]
    assert "6 of 8" in page.text()


def test_what_failed_is_named_with_its_reason() -> None:
    text = Page(render_stored(_summary() | {"missing": ["efficientnet_b6: out of memory <at> step 3"]})).text()
    assert "Incomplete. This failed and is missing below: efficientnet_b6: out of memory <at> step 3" in text
    assert "Incomplete" not in Page(render_stored(_summary())).text()


def _without_one_key(value: Any) -> Iterator[Any]:
    """Every copy of a JSON value that lacks one key or holds null there; in a list, of its first entry."""
    if isinstance(value, dict):
        for key in value:
            yield {k: v for k, v in value.items() if k != key}
            yield value | {key: None}
            for smaller in _without_one_key(value[key]):
                yield value | {key: smaller}
    elif isinstance(value, list) and value:
        yield []
        for smaller in _without_one_key(value[0]):
            yield [smaller, *value[1:]]


@pytest.mark.slow  # 250 pages; those of the other parts: test_sections.py
def test_no_missing_key_breaks_the_page_or_the_table() -> None:
    summary = _summary()
    summary["variants"] = summary["variants"][:1]
    summary["search"]["trials"] = summary["search"]["trials"][:2]
    for smaller in _without_one_key(summary):
        Page(render_stored(smaller))
        assert _table(smaller).count("\n") == 10


_B0 = made_parts.variant(0) | {"params": 5, "multiply_adds": 1}
_TRIAL = trial(1.2, 1.1, 1.15, 50.0)


@pytest.mark.parametrize(
    "odd",
    with_slow_rest(
        [
            {"variants": None, "search": [], "transfer": {}, "data": "x", "machine": 3, "services": None},
            {"variants": [None, 3, {}], "search": {"trials": [{}], "best": {}, "tied": 5}, "wall_s": "long"},
            {"variants": [_B0 | {"params": 0, "multiply_adds": "1", "top1": 400.0, "n_val": 0}]},
            {"variants": [_B0 | {"params": -1, "top1": float("nan"), "n_val": float("inf")}]},
            {"variants": [_B0 | {"top1": 100.0, "n_val": 1}]},
            {"variants": [_B0 | {"top1": 0.0, "n_val": 9e9}]},
            {"variants": [_B0 | {"params": 10**400, "minutes": 10**400, "top1": 1e300}]},
            {"variants": [_B0 | {"name": "x" * 300, "params": 10**14, "multiply_adds": 10**14, "top1": 50.0}]},
            {"search": {"trials": [{"minival_top1": 0.0, "n_minival": 5}], "tied": [[1, 2, 3], [1], "x", None]}},
            {
                "search": {
                    "trials": [_TRIAL | {"minival_top1": 0.0, "n_minival": 5}, {}],
                    "best": _TRIAL | {"minival_top1": -3.0, "standard_error": 1e300},
                    "tied": [[1, 2, 3], [1], "x", None],
                }
            },
        ],
        plain=4,
    ),
)
def test_odd_values_break_nothing(odd: Json) -> None:
    Page(render_stored(odd))
    assert not re.search(r"\b(nan|inf|none)\b", Page(render_stored(odd)).text(), re.IGNORECASE)
    _table(odd)


def test_a_password_in_an_address_is_not_published() -> None:
    summary = _summary()
    summary["services"]["prefect"] = "postgresql://user:s3cret@db:5432/prefect"
    summary["command"] = "effnet reproduce services.mlflow=https://me:s3cret@mlflow.example"
    html = render_stored(summary)
    assert "s3cret" not in html
    assert "postgresql://***@db:5432/prefect" in html


def test_rendering_is_repeatable_and_leaves_its_input_alone() -> None:
    summary = _summary()
    before = copy.deepcopy(summary)
    assert render_stored(summary) == render_stored(json.loads(json.dumps(summary)))
    assert summary == before


def test_the_dataclass_of_a_run_renders_as_it_is() -> None:
    whole = _summary()
    assert (
        Page(render_stored(asdict(result_from(Summary, whole, "summary.json")))).row("B7")[0][0]
        == whole["variants"][7]["params"]
    )


def test_the_markdown_table_has_ours_beside_the_paper_s() -> None:
    summary = _summary()
    del summary["variants"][5]
    summary["variants"].append(made_parts.variant(0) | {"name": "a|b <script>\nc", "top1": 50.0, "n_val": 100})
    lines = _table(summary).splitlines()
    assert lines[2] == (
        "| B0 | 72,434 | 1,384,812 | 32 | 95.40 ± 0.66 | 99.60 | 1,000 | 0.8 | 5.3 M | 0.39 B | 77.1 | 93.3 |"
    )
    assert lines[7] == "| B5 | — | — | — | not run | — | — | — | 30 M | 9.9 B | 83.6 | 96.7 |"
    assert lines[10] == (
        r"| a\|b \<script\> c | 72,434 | 1,384,812 | 32 | 50.00 ± 5.00 | 99.60 | 100 | 0.8 | — | — | — | — |"
    )
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {13}
