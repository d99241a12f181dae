"""The last lines of a command, for every type of result."""

from __future__ import annotations

import json
import re
from pathlib import Path

import made_parts
import pytest

from conf.compose import compose
from conf.schema import Services
from flows.cli.summary import describe_result, services, to_json
from infra.services.stack import Addresses
from models.results import EvalResult, GalleryModel, GalleryResult, SearchResult, StudyResult, Summary, result_from

TRIAL = made_parts.trial(1.2, 1.1, 1.15, 96.25)
SEARCH = made_parts.grown_search({"trials": [TRIAL], "best": TRIAL, "found": 1, "failed": ["trial 1 1 2: diverged"]})


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "scaling",
            [
                "points     36, 1 of them missing, 0 from earlier runs",
                "missing    resnet50 resolution 2.0: the loss was not finite at step 41",
            ],
        ),
        ("architecture", ["trials     30 trained, 3 refused, 1 failed; 0 from earlier runs"]),
        (
            "linear",
            [
                "efficientnet_lite0   random     200,000,000 multiply-adds, top-1 77.25 %",
                "tested on 1050 images of elpv; their most frequent class has 68.7 %",
                "verdict    efficientnet_lite0 beats efficientnet_lite0 with random weights "
                "(+6.85 points, +4.25 to +9.50, p < 0.001)",
            ],
        ),
        (
            "photographs",
            [
                "efficientnet_lite0   efficientnet-lite0-lukemelas/1",
                "china                efficientnet_lite1   palace 0.500, bell cote 0.350",
            ],
        ),
        ("maps", ["missing    image-2 of efficientnet_b0 compound: the map is flat"]),
        (
            "latency",
            [
                "efficientnet_b1 is 6.58 times as fast as resnet152 (paper: 5.7)",
                "efficientnet_b4 is 3.16 times as fast as senet154",
            ],
        ),
    ],
)
def test_a_part_of_the_report_is_described_by_its_type(name: str, lines: list[str]) -> None:
    described = describe_result(made_parts.result(name), compose())
    assert [line for line in lines if line not in described] == []


def test_a_search_names_its_best_point_and_what_was_refused_or_failed() -> None:
    described = describe_result(result_from(SearchResult, SEARCH, "search.json"), compose())
    assert described[0] == f"trials     1 trained, {len(SEARCH['refused'])} refused, 1 failed; 1 from earlier runs"
    assert described[1] == "search     alpha 1.2, beta 1.1, gamma 1.15: best of 1 trials (paper: 1.2, 1.1, 1.15)"
    assert described[-1] == "failed     trial 1 1 2: diverged"


def test_a_network_that_was_not_fine_tuned_has_a_dash_in_the_table_of_the_family() -> None:
    summary = {
        "variants": [made_parts.variant(phi) for phi in (0, 1)],
        "transfer": [made_parts.fine_tuned("digits", 97.22, 539)],
        "search": SEARCH,
        "missing": ["efficientnet_b2: diverged"],
    }
    described = describe_result(result_from(Summary, summary, "summary.json"), compose())
    assert described[1].split()[-2:] == ["97.22%", "efficientnet-b0/3"]
    assert described[2].split()[-2:] == ["-", "efficientnet-b1/3"]
    assert "missing    efficientnet_b2: diverged" in described


def test_what_is_assumed_about_the_classes_of_a_model_is_in_its_result() -> None:
    assumed = "class names unknown: assumed in the order of mnist5k"
    result = EvalResult("job", "b0/1", "mnist5k", 50.0, 90.0, 2, (1, 0), (1, 1), assumed=assumed)
    assert describe_result(result, compose())[-1] == f"assumed    {assumed}"
    assert json.loads(to_json(result))["assumed"] == assumed


def test_what_is_assumed_about_a_network_is_said_with_its_maps() -> None:
    model = GalleryModel(
        name="public/1",
        dimension="baseline",
        network="efficientnet_b0",
        method="cam",
        params=1,
        multiply_adds=1,
        resolution=32,
        top1=50.0,
        n_val=2,
        assumed="class names unknown: assumed in the order of mnist5k",
    )
    described = describe_result(GalleryResult(models=(model,)), compose())
    assert "assumed    public/1: class names unknown: assumed in the order of mnist5k" in described


def test_a_study_is_described_by_its_parts() -> None:
    result = StudyResult({name: made_parts.result(name) for name in ("linear", "latency")}, "runs/latest/report.html")
    described = describe_result(result, compose())
    assert [line for line in described if not line.startswith("  ")] == [
        "linear:",
        "",
        "latency:",
        "",
        "report     runs/latest/report.html",
    ]
    assert "  efficientnet_b1 is 6.58 times as fast as resnet152 (paper: 5.7)" in described
    assert list(json.loads(to_json(result))["parts"]) == ["linear", "latency"]


def test_a_result_is_printed_as_json() -> None:
    result = EvalResult("job", "b0/1", "mnist5k", 50.0, 90.0, 2, (1, 0), (1, 1))
    assert json.loads(to_json(result))["class_correct"] == [1, 0]
    assert [row["top1"] for row in json.loads(to_json([result, result]))] == [50.0, 50.0]
    assert json.loads(to_json(Path("runs/latest/report.html"))) == "runs/latest/report.html"


def test_without_an_activated_environment_the_command_is_named_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / ".venv" / "bin" / "effnet"
    script.parent.mkdir(parents=True)
    script.touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.executable", str(script.with_name("python")))
    where = Addresses("http://127.0.0.1:8333", "http://127.0.0.1:4200/api", "http://127.0.0.1:5000")
    monkeypatch.setenv("PATH", "/usr/bin")
    assert "stop them  .venv/bin/effnet down " in services(where, Services())
    script.chmod(0o700)
    monkeypatch.setenv("PATH", str(script.parent))
    assert "stop them  effnet down " in services(where, Services())


def test_commands_about_services_name_a_run_folder_that_is_not_the_usual_one() -> None:
    where = Addresses("http://127.0.0.1:8333", "http://127.0.0.1:4200/api", "http://127.0.0.1:5000")
    lines = services(where, Services(), "my runs")
    assert re.search(r"log in     \S*effnet open prefect run_dir='my runs' or ", lines)
    assert re.search(r"stop them  \S*effnet down run_dir='my runs'$", lines)
    assert services(where, Services(), "runs") == services(where, Services())
