"""The experiments' sections of the report: numbers are read back out of the HTML and compared with what went in."""

import json
import math
import re
from itertools import pairwise
from typing import Any

import made_parts
import pytest
from made_parts import render_stored
from matrix import with_slow_rest
from page_reader import Page

from models import paper
from models.experiments import scaling_study

Json = dict[str, Any]
HOSTILE = "\"><script>alert(1)</script><img src=x onerror='alert(2)'>&{{ 7*7 }}"


def _page(**parts: Json) -> Page:
    return Page(render_stored({}, parts))


def _close(numbers: list[float], expected: list[Any]) -> None:
    assert numbers == pytest.approx([value for value in expected if value is not None], rel=1e-12)


def _error(percent: float | None, n: float) -> float | None:
    """By the definition: the root of p (1 - p) / n, in points."""
    return None if percent is None else 100 * math.sqrt(percent / 100 * (1 - percent / 100) / n)


def _point_cells(point: Json) -> list[Any]:
    numbers = [
        point[key] for key in ("depth", "width", "resolution", "resolution_px", "params", "multiply_adds", "top1")
    ]
    return [*numbers, _error(point["top1"], point["n_val"]), point["n_val"]]


def test_the_standard_error_on_the_page_is_the_hand_worked_one() -> None:
    """90 % of 100 images: sqrt(0.9 * 0.1 / 100) is 0.03, so three points; 50 % of 2500: one point."""
    part = made_parts.scaling()
    part["points"] = part["points"][:2]
    part["points"][0] |= {"top1": 90.0, "n_val": 100}
    part["points"][1] |= {"top1": 50.0, "n_val": 2500}
    rows = [numbers for numbers, _ in _page(scaling=part).read_rows("data-point")]
    assert [numbers[6:9] for numbers in rows] == [pytest.approx([90, 3, 100]), pytest.approx([50, 1, 2500])]


def test_every_point_of_the_scaling_study_stands_beside_its_row_of_table_3() -> None:
    part = made_parts.scaling()
    page = _page(scaling=part)
    names = {"mobilenet_w1": "MobileNetV1", "mobilenetv2_w1": "MobileNetV2", "resnet50": "ResNet-50"}
    printed = {(row.base, row.method): row for row in scaling_study.TABLE3}
    for point in (p for p in part["points"] if p["network"] in names):
        base = names[point["network"]]
        row = printed.get((base, point["dimension"]))
        theirs = [row.depth, row.width, row.resolution, row.flops_b, row.top1] if row else []
        numbers, words = page.row(f"{base} {point['dimension']}", "data-scaled")
        _close(numbers, [*_point_cells(point), *theirs, point["paper"]["multiply_adds"]])
        assert ("not in the paper" in words) == (row is None)
    assert page.row("ResNet-50 compound", "data-scaled")[1].startswith("compound not run")
    assert "— 1,000" in page.row("ResNet-50 resolution", "data-scaled")[1], "it failed: a dash, never a zero"


COMPARED = {"network": "efficientnet_b0", "compound_top1": 95.5, "single_top1": 96.75, "cost_ratio": 1.03}


def test_compound_scaling_stands_against_single_dimensions_with_a_verdict_in_words() -> None:
    lead = {"value": -1.25, "lower": -2.5, "upper": -0.5, "p": 0.004, "n": 1000, "seeds": 3}
    rows = [COMPARED | {"dimension": "resolution", "lead": lead}, COMPARED | {"dimension": "width", "lead": None}]
    verdict = "efficientnet_b0: compound loses to resolution"
    page = _page(scaling=made_parts.scaling() | {"comparisons": rows, "verdicts": [verdict], "seeds": 3})
    (numbers, _), (_, words) = page.read_rows("data-comparison")
    assert numbers == pytest.approx([95.5, 96.75, -1.25, -2.5, -0.5, 0.004, 1.03, 3])
    assert "not compared" in words
    assert f"{verdict}." in page.text()
    assert "over 3 seeds" in page.text()


def test_leads_over_folds_say_so_on_the_page() -> None:
    lead = {"value": 6.0, "lower": 1.0, "upper": 11.0, "p": 0.02, "n": 2624, "seeds": 3, "folds": 3}
    scaled = made_parts.scaling() | {
        "comparisons": [COMPARED | {"dimension": "width", "lead": lead}],
        "verdicts": ["a"],
        "seeds": 3,
    }
    tuned = made_parts.transfer()
    tuned["rows"][0]["random_start"] = {"tuned_top1": [1.0] * 3, "random_top1": [1.0] * 3, "lead": lead}
    frozen = made_parts.linear()
    for row in frozen["comparisons"]:
        row["lead"] |= {"folds": 3}
    text = _page(scaling=scaled, transfer=tuned, linear=frozen).text()
    assert "over 3 seeds of each network, which run over 3 folds of the images" in text
    assert text.count("Student’s t over images and folds, with Nadeau and Bengio’s correction") == 3
    assert "ImageNet’s weights are tested in each of 3 folds" in text
    assert "Nadeau" not in _page(scaling=scaled | {"comparisons": []}, linear=made_parts.linear()).text()


def test_fine_tuning_stands_against_random_weights_with_a_verdict_in_words() -> None:
    lead = {"value": 11.5, "lower": 8.25, "upper": 14.75, "p": 0.002, "n": 1050, "seeds": 3}
    start = {"tuned_top1": [83.0, 84.0, 85.0], "random_top1": [72.0, 72.5, 73.0], "lead": lead}
    part = made_parts.transfer()
    assert _page(transfer=part).read_rows("data-start") == []
    first, second, *_ = part["rows"]
    first["random_start"], second["random_start"] = start, start | {"lead": None}
    page = _page(transfer=part)
    (numbers, _), (_, words) = page.read_rows("data-start")
    assert numbers[-8:] == pytest.approx([84.0, 72.5, 11.5, 8.25, 14.75, 0.002, 1050, 3])
    assert "not compared" in words
    said = "fine-tuned on cifar10 beats training from random weights (+11.50 points, +8.25 to +14.75, p 0.002)."
    assert said in page.text()


def test_frozen_features_show_every_network_and_every_lead_with_its_verdict() -> None:
    part = made_parts.linear()
    page = _page(linear=part)
    for row in part["rows"]:
        numbers, words = page.row(f"efficientnet_lite0 {row['weights']}", "data-linear")
        _close(numbers[-4:], [row["top1"], _error(row["top1"], 1050), 1050, len(row["seed_top1"])])
        assert row["weights"] in words
    (numbers, words), *others = page.read_rows("data-features")
    assert numbers[-5:] == pytest.approx([6.85, 4.25, 9.5, 0.001, 2], abs=6e-4)
    assert "with random weights" in words
    assert others == []
    assert f"{part['verdicts'][0]}." in page.text()


def test_every_other_point_of_the_scaling_study_stands_on_the_page_once() -> None:
    part = made_parts.scaling()
    points = [p for p in part["points"] if p["network"] == "efficientnet_b0"]
    rows = _page(scaling=part).read_rows("data-point")
    assert len(rows) == len(points)
    for (numbers, _), point in zip(rows, points, strict=True):
        _close(numbers, [*_point_cells(point), point["paper"]["multiply_adds"]])


def test_networks_of_table_3_and_figures_that_were_not_run_are_folded_into_one_line() -> None:
    part = made_parts.scaling()
    networks = ("efficientnet_b0", "mobilenetv2_w1")
    settings = ((1, 1, 1), (4, 1, 1))  # too few widths for Figure 4
    part["points"] = [
        p for p in part["points"] if p["network"] in networks and (p["depth"], p["width"], p["resolution"]) in settings
    ]
    html = render_stored({}, {"scaling": part})
    shown, folded = html[html.index('<section id="scaling">') :].split("Not run: MobileNetV1, ResNet-50, Figure 4.", 1)
    folded = folded[: folded.index("</details>")]
    for base in ("MobileNetV1", "ResNet-50"):
        assert (f'data-scaled="{base}' in shown, f'data-scaled="{base}' in folded) == (False, True)
        assert f"The paper: {base}" in folded
    assert ('data-scaled="MobileNetV2' in shown, 'data-scaled="MobileNetV2' in folded) == (True, False)
    assert ("Figure 4 of the paper" in shown, "Figure 4 of the paper" in folded) == (False, True)
    part["points"] = [p for p in part["points"] if p["network"] == "efficientnet_b0"]
    html = render_stored({}, {"scaling": part})
    assert html.count("The paper: MobileNetV2</h3>") == 1
    assert "Not run: MobileNetV1, MobileNetV2, ResNet-50, Figure 4." in html
    assert "Not run: MobileNetV1" not in render_stored({}, {"scaling": made_parts.scaling()})
    assert 'data-scaled="MobileNetV1' in render_stored({}, {}), "without a part the whole section is folded"


def test_multipliers_are_those_over_the_network_s_own_baseline() -> None:
    """The laptop's baseline is a quarter as wide: its width 0.5 is the paper's w = 2."""
    part = made_parts.scaling()
    for point in part["points"]:
        point["width"] *= 0.25
    numbers, _ = _page(scaling=part).row("MobileNetV2 width", "data-scaled")
    assert numbers[:3] == [1, 2, 1]


def test_the_figures_hold_every_measured_point_and_no_other() -> None:
    part = made_parts.scaling()
    html = render_stored({}, {"scaling": part})
    hovers = re.findall(r"<title>([^<]*)</title>", html)
    for point in part["points"]:
        shown = [text for text in hovers if f"{point['multiply_adds']:,.0f} multiply-adds" in text]
        assert bool(shown) == (point["top1"] is not None), point
    section = html[html.index("Figure 3 of the paper") - 9000 : html.index("Figure 8 of the paper")]
    assert section.count('<svg class="chart"') >= 3
    legend = re.findall(r'<span class="key setting-\d">d <data value="([\d.]+)">.*?r <data value="([\d.]+)">', html)
    assert [(float(d), float(r)) for d, r in legend] == list(scaling_study.FIGURE4)


def test_every_trial_of_the_architecture_search_stands_on_the_page_with_its_verdict() -> None:
    part = made_parts.architecture()
    page = _page(architecture=part)
    for trial in part["trials"]:
        numbers, words = page.row(f"#{trial['number']}", "data-trial")
        error = None if trial["accuracy"] is None else _error(trial["accuracy"], trial["n"])
        _close(
            numbers,
            [
                trial["number"],
                trial["params"],
                trial["multiply_adds"],
                trial["accuracy"],
                error,
                trial["n"],
                trial["reward"],
            ],
        )
        assert ("front" in words) == trial["pareto"]
        assert trial["state"] == "complete" or f"{trial['state']}: {trial['reason']}" in words
        assert all(block in words for block in trial["blocks"])
    numbers, words = page.row("B0", "data-trial")
    assert numbers[:3] == [126_822, 359_792, 89.6]
    assert (
        "Trials: 30 trained, 3 refused before any training (too expensive, or the network of another trial), 1 failed"
        in page.text()
    )


def test_the_front_is_drawn_as_a_staircase_with_b0_and_the_refused_beside_it() -> None:
    html = render_stored({}, {"architecture": made_parts.architecture()})
    [chart] = re.findall(r'<svg class="chart"[^>]*Accuracy over multiply-adds of the trials.*?</svg>', html, re.DOTALL)
    [points] = re.findall(r'<polyline class="curve front" points="([^"]*)"', chart)
    corners = [tuple(map(float, pair.split(","))) for pair in points.split()]
    front = [t for t in made_parts.architecture()["trials"] if t["pareto"]]
    assert len(corners) == 2 * len(front) - 1
    assert all(a[0] == b[0] or a[1] == b[1] for a, b in pairwise(corners))
    assert chart.count('class="dot front"') == len(front)
    assert chart.count('class="dot base"') == 1
    assert chart.count('class="stroke"') == 3
    assert "T = 400" in chart


def test_b0_s_own_blocks_stand_once_where_they_are_one_of_the_trials() -> None:
    part = made_parts.architecture()
    part["baseline"] = part["trials"][4]
    page = _page(architecture=part)
    assert page.read_rows("data-trial", "#4") == []
    assert page.row("B0", "data-trial")[0][0] == part["trials"][4]["params"]
    assert len(page.read_rows("data-trial")) == len(part["trials"])


def test_every_latency_stands_beside_the_paper_s_and_a_pair_that_was_not_measured_says_so() -> None:
    part = made_parts.latency()
    page = _page(latency=part)
    for row, name in zip(part["rows"], ("B1", "resnet152", "B4", "senet154"), strict=True):
        keys = (
            "resolution",
            "params",
            "multiply_adds",
            "batch1_ms",
            "batch1_ms_low",
            "batch1_ms_high",
            "images_per_s",
            "throughput_batch",
            "paper_top1",
            "paper_latency_s",
        )
        _close(page.row(name, "data-latency")[0], [row[key] for key in keys])
        assert page.row(f"{name} on all cores", "data-latency")[0][3] == pytest.approx(0.6 * row["batch1_ms"])
    assert page.row("B1", "data-pair") == ([6.577, 5.7, 0.098, 0.554], "B1 ResNet-152 ×6.58 ×5.7 0.098 0.554")
    assert page.row("B7", "data-pair") == ([6.1, 3.1, 19.0], "B7 GPipe not measured ×6.1 3.1 19")
    assert page.row("B4", "data-pair")[0] == [3.163]


def test_what_a_reproduction_fine_tuned_stands_on_the_page_once() -> None:
    """Its transfers leave rows of the part too; from a store that lost the part they stand alone."""
    moved = made_parts.fine_tuned("digits", 95.18, 539)
    other = moved | {"data": "mnist5k"}
    page = Page(render_stored({"transfer": [moved, other]}, {"transfer": made_parts.transfer()}))
    assert len(page.read_rows("data-moved")) == 1
    assert "mnist5k" in page.row("efficientnet_b0", "data-moved")[1]
    assert len(Page(render_stored({"transfer": [moved, other]}, {})).read_rows("data-moved")) == 2


def test_every_transfer_result_stands_in_its_row_of_table_5_and_table_6() -> None:
    part = made_parts.transfer()
    page = _page(transfer=part)
    for row, title in zip(part["rows"], ("CIFAR-10", "Flowers", "digits"), strict=True):
        quoted = next((r for r in paper.TABLE5 if r.data == title), None)
        theirs: list[Any] = []
        for pair, ratio in ((("public", "ours_public"), "public_ratio"), (("best", "ours_best"), "best_ratio")):
            for key in pair if quoted else ():
                theirs += [getattr(quoted, key).accuracy, getattr(quoted, key).params_m]
            theirs.append(getattr(quoted, ratio, None))
        error = row["standard_error"] or _error(row["value"], row["n"])
        mean = [row["top1"]] if row["metric"] == "mean per class" else []
        numbers, words = page.row(title, "data-transfer")
        _close(
            numbers, [*mean, row["value"], error, row["n"], row["params"], row["multiply_adds"], 0.016, 1e-5, *theirs]
        )
        assert row["metric"] in words
        sizes = next(([r.train, r.test, r.classes] for r in paper.TABLE6 if r.data == title), [])
        _close(page.row(title, "data-set")[0], [*sizes, row["train"], row["n"], row["classes"]])
    for title in ("CIFAR-100", "Food-101"):
        assert "not run" in page.row(title, "data-transfer")[1]
    assert "Not run: CIFAR-100, Birdsnap, Stanford Cars, FGVC Aircraft, Oxford-IIIT Pets, Food-101." in page.text()
    grid = [number for numbers, _ in page.read_rows("class", "grid") for number in numbers]
    points = part["rows"][0]["grid"]
    assert all(any(number == pytest.approx(p["value"]) for number in grid) for p in points)
    assert "9 points of learning rate and weight decay, 3 stopped early" in page.text()


def test_a_set_is_identified_by_its_source_whatever_its_name() -> None:
    row = made_parts.transfer()["rows"][1] | {"data": "my-flowers", "source": "flowers102"}
    numbers, words = _page(transfer={"rows": [row]}).row("Flowers", "data-transfer")
    assert numbers[:4] == [73.0, 71.25, 1.37, 612]
    assert "71.25 ± 1.37" in words


def test_a_set_is_identified_by_its_source_and_a_mean_without_its_error_gets_none() -> None:
    """A mean over classes has another error than a share of all images; without one nothing may be invented."""
    row = made_parts.transfer()["rows"][1] | {"data": "my-flowers", "source": "flowers102", "standard_error": None}
    numbers, words = _page(transfer={"rows": [row]}).row("Flowers", "data-transfer")
    assert numbers[:3] == [73.0, 71.25, 612]
    assert "±" not in words


def test_table_7_and_the_gallery_show_every_network_and_every_image() -> None:
    part = made_parts.maps()
    html = render_stored({}, {"maps": part})
    page = Page(html)
    for model, printed in zip(part["models"], scaling_study.TABLE7, strict=True):
        ours = [
            model["resolution"],
            model["params"],
            model["multiply_adds"],
            model["top1"],
            _error(model["top1"], 1000),
            1000,
        ]
        theirs = [printed.depth, printed.width, printed.resolution, printed.flops_b, printed.top1]
        _close(page.row(printed.method, "data-mapped")[0], [*ours, *theirs, (printed.counted_b or 0) * 1e9])
    for image in part["images"]:
        cells = [m for m in part["maps"] if m["image"] == image["id"]]
        numbers, words = page.row(str(image["id"]), "data-image")
        assert numbers == [cell["probability"] for cell in cells]
        assert words.endswith("missing") == (len(cells) < 5)
    sources = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert sorted(sources) == sorted(f"data:image/png;base64,{each['png']}" for each in part["images"] + part["maps"])
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")


def test_every_public_network_and_what_it_sees_in_every_photograph_is_shown() -> None:
    part = made_parts.photographs()
    html = render_stored({}, {"photographs": part})
    page = Page(html)
    for network in part["networks"]:
        numbers, words = page.row(network["name"], "data-public")
        _close(numbers, [network[key] for key in ("resolution", "params", "multiply_adds", "published_top1")])
        assert network["version"] in words
    for image in part["photographs"]:
        cells = [cell for cell in part["maps"] if cell["photograph"] == image["name"]]
        numbers, words = page.row(image["name"], "data-photograph")
        assert numbers == [p for cell in cells for p in cell["probabilities"]]
        assert words.count("palace") == words.count("bell cote") == len(cells)
        assert words.endswith("missing") == (len(cells) < 2)
    sources = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    shown = part["photographs"] + part["maps"]
    assert sorted(sources) == sorted(f"data:image/png;base64,{each['png']}" for each in shown)


@pytest.mark.parametrize(
    "text", ["javascript:alert(1)", "x", "", None, 3, "iVBORw0KGgo\"onerror='x'", "/9j/4AAQSkZJRg=="]
)
def test_what_is_no_png_is_no_picture(text: Any) -> None:
    part = made_parts.maps()
    part["maps"][0]["png"] = text
    part["images"][0]["png"] = text
    page = _page(maps=part)
    assert sum(tag == "img" for tag, _ in page.tags) == 3 + 14 - 2
    assert "no map" in page.row("0", "data-image")[1]


def test_a_grown_search_shows_what_it_refused_and_the_family_beside_the_published_one() -> None:
    trials = [made_parts.trial(1.2, 1.1, 1.15, 94.0, 500)]
    search = made_parts.grown_search({"trials": trials, "best": trials[0], "budget": 2.0, "tolerance": 0.1})
    html = render_stored({"profile": "laptop", "search": search})
    page = Page(html)
    refused = page.read_rows("class", "refused")
    assert [numbers[:3] for numbers, _ in refused] == [[p["alpha"], p["beta"], p["gamma"]] for p in search["refused"]]
    assert all(point["reason"] in words for (_, words), point in zip(refused, search["refused"], strict=True))
    rows = page.read_rows("class", "phi")
    assert len(rows) == 7
    for (numbers, words), row in zip(rows, search["family"], strict=True):
        keys = ("depth", "width", "resolution", "resolution_px", "params", "multiply_adds")
        ratios = [row["derived"][key] / row["hand_set"][key] for key in keys[4:]]
        _close(numbers, [row["phi"], *(row["derived"][k] for k in keys), *(row["hand_set"][k] for k in keys), *ratios])
        assert row["hand_set"]["name"] in words
    [chart] = re.findall(r'<svg class="parallel".*?</svg>', html, re.DOTALL)
    assert chart.count('class="thread refused"') == len(search["refused"])
    assert chart.count('class="thread best"') == 1


def test_a_part_that_was_not_run_is_one_line_with_the_command_that_makes_it() -> None:
    page = Page(render_stored({"profile": "paper"}))
    for verb in (
        "reproduce",
        "scaling",
        "architecture",
        "latency",
        "transfer",
        "explain",
        "linear",
        "photographs",
        "nightly",
    ):
        assert f"not run. effnet {verb} profile=paper makes it." in page.text()
    assert page.read_rows("data-part") == [page.read_rows("data-part", "Reproduction and grid search")[0]]
    folded = [attrs for tag, attrs in page.tags if tag == "details" and "data-not-run" in attrs]
    assert len(folded) == 11
    assert not [attrs for attrs in folded if "open" in attrs]
    whole = Page(render_stored({"profile": "paper"}, made_parts.everything()))
    names = [attrs["data-not-run"] for tag, attrs in whole.tags if "data-not-run" in attrs]
    assert names == ["table2", "figures", "search"], "the summary is there, if all but empty"


def test_parts_alone_make_a_page_of_their_profile() -> None:
    page = _page(latency=made_parts.latency())
    assert "What has been run so far with the profile laptop" in page.text()
    assert "B0 to B7: not run. effnet reproduce profile=laptop makes it." in page.text()
    assert [words.split()[0] for _, words in page.read_rows("data-part")] == ["Latency"]
    contents = [attrs["href"] for tag, attrs in page.tags if tag == "a" and "class" not in attrs]
    assert [link for link in contents if contents.count(link) == 1 or link == "#latency"][-4:] == [
        "#answer",
        "#latency",
        "#not-run",
        "#provenance",
    ]


def test_every_part_has_its_own_commit_date_configuration_and_data() -> None:
    parts = made_parts.everything()
    for number, part in enumerate(parts.values()):
        part |= {
            "commit": f"{number}" * 40,
            "finished": f"2026-11-2{number} 08:00:00 UTC",
            "config_sha256": f"{number}a" * 32,
        }
    page = Page(render_stored({}, parts))
    titles = {
        "scaling": "Scaling study",
        "architecture": "Architecture search",
        "transfer": "Transfer",
        "maps": "Activation maps",
        "latency": "Latency",
        "linear": "Frozen features",
        "photographs": "Photographs",
        "nights": "Nights",
    }
    for number, (name, part) in enumerate(parts.items()):
        words = page.row(titles[name], "data-part")[1]
        wanted = [
            part["commit"],
            f"2{number} Nov 2026, 08:00 UTC",
            part["config_sha256"][:16],
            "mnist5k 9b9b9b9b9b9b9b9b",
            "a made-up processor",
            "torch 2.13.0+cpu",
            part["command"],
        ]
        assert [word for word in wanted if word not in words] == []
    assert "recipe.lr_per_256=0.016" in page.text()


def test_what_failed_in_a_part_is_named_with_its_reason_and_a_long_list_is_folded() -> None:
    part = made_parts.scaling()
    assert part["missing"][0] in _page(scaling=part).text()
    part["missing"] = [f"network {number}: out of memory" for number in range(9)]
    text = _page(scaling=part).text()
    assert all(line in text for line in part["missing"])
    assert "and 5 more" in text


def _poison(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: item if key == "png" else _poison(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_poison(item) for item in value]
    return HOSTILE if isinstance(value, str) else value


def test_a_hostile_string_in_a_part_comes_out_as_text() -> None:
    html = render_stored({}, _poison(made_parts.everything()))
    page, benign = Page(html), Page(render_stored({}, made_parts.everything()))
    assert html.count("<script") == 1, "the page's own"
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in benign.tags}
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert "{{ 7*7 }}" in page.text()


def _odd(value: Any, what: Any) -> Any:
    """Every number and every list of a JSON value replaced, one kind of nonsense at a time."""
    if isinstance(value, dict):
        return {key: _odd(item, what) for key, item in value.items()}
    if isinstance(value, list):
        return [_odd(item, what) for item in value]
    return what if isinstance(value, int | float) and not isinstance(value, bool) else value


@pytest.mark.parametrize(
    "what", with_slow_rest([None, 0, -1, 1e300, 10**400, 1e30, float("nan"), float("inf"), "x", [], True], plain=4)
)
def test_odd_numbers_in_a_part_break_nothing(what: Any) -> None:
    parts = _odd(made_parts.everything(), what)
    trials = [made_parts.trial(1.2, 1.1, 1.15, 94.0)]
    search = made_parts.grown_search({"trials": trials, "best": trials[0]})
    summary = {"search": _odd(search, what), "variants": [_odd(made_parts.variant(0), what)]}
    text = Page(render_stored(summary, parts)).text()
    assert not re.search(r"\b(nan|inf)\b", text, re.IGNORECASE)


@pytest.mark.parametrize("odd", [{}, [], "x", 3, None, {"points": None, "trials": 3, "rows": "x", "maps": {}}])
def test_odd_parts_break_nothing(odd: Any) -> None:
    Page(render_stored({}, dict.fromkeys(("scaling", "architecture", "transfer", "maps", "latency"), odd)))


@pytest.mark.slow
def test_no_missing_key_of_a_part_breaks_the_page() -> None:
    for name, part in made_parts.everything().items():
        lists = [key for key, value in part.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
        for key in lists:
            for inner in part[key][0]:
                smaller = [{k: v for k, v in part[key][0].items() if k != inner}, *part[key][1:3]]
                render_stored({}, {name: part | {key: smaller}})
        for key in part:
            render_stored({}, {name: {k: v for k, v in part.items() if k != key}})


def test_every_table_has_a_caption_and_every_heading_cell_a_scope() -> None:
    page = Page(render_stored({}, made_parts.everything()))
    tags = [tag for tag, _ in page.tags]
    assert tags.count("table") == tags.count("caption") > 10
    assert [attrs for tag, attrs in page.tags if tag == "th" and not attrs.get("scope")] == []
    charts = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert all(attrs.get("aria-label") or attrs.get("aria-hidden") for attrs in charts)


def test_the_page_is_the_same_for_the_same_parts_and_leaves_them_alone() -> None:
    parts = made_parts.everything()
    before = json.dumps(parts)
    assert render_stored({}, parts) == render_stored({}, json.loads(before))
    assert json.dumps(parts) == before


def test_every_night_stands_beside_the_champion_that_it_was_compared_with() -> None:
    part = made_parts.nights()
    page = _page(nights=part)
    numbers, words = page.row("2", "data-night")
    _close(numbers, [2, 91.5, _error(91.5, 400), 400, 1, 0.25, -0.48])
    assert "challenger" in words
    assert "tied" in words
    assert part["versions"][0]["reason"] in words
    assert "none 1" in page.row(part["moves"][0]["when"], "data-move")[1], "no champion before the first"
    assert "7 older versions are in the registry" in page.text()
    assert f"The last night of {part['line']} on digits: {part['verdict']}." in page.text()


def test_a_line_that_never_had_a_champion_has_a_section_without_tables() -> None:
    page = _page(nights=made_parts.nights() | {"versions": [], "moves": [], "versions_total": 0, "moves_total": 0})
    assert page.read_rows("data-night") == []
    assert page.read_rows("data-move") == []
