"""A part as it is read from the store for display."""

from __future__ import annotations

import json
from pathlib import Path

import made_parts
import pytest

from conf.compose import compose
from infra import machine, store
from models.results import LatencyResult, PhotographNetwork, PhotographsResult, Provenance, ScalingResult
from tasks.report.results import digest, load_lines, load_parts, publish_part, read_stored, request_of, reusable_part


def test_a_part_comes_with_its_provenance() -> None:
    stored = read_stored(LatencyResult, made_parts.latency(), "latency.json")
    assert (stored.result.threads, stored.provenance.commit) == (1, made_parts.ORIGIN["commit"])
    assert stored.provenance.config["recipe"] == {"epochs": 8, "lr_per_256": 0.016}
    assert stored.problems == ()


def test_what_is_no_object_is_an_empty_result_with_one_problem() -> None:
    stored = read_stored(LatencyResult, [], "latency.json")
    assert (stored.result, stored.provenance) == (LatencyResult(), Provenance())
    assert stored.problems == ("latency.json does not hold a JSON object but a list",)


@pytest.mark.parametrize("text", [b"{", b"[]", b"\xff"])
def test_a_part_that_cannot_be_read_is_a_problem_of_itself_and_is_made_again(text: bytes, tmp_path: Path) -> None:
    config = compose([f"storage=file://{tmp_path}"])
    publish_part(config, "scaling", ScalingResult(data="pets"))
    for name in ("latency", "nights", "nights/b0-pets"):
        store.write(f"{config.storage}/reports/{config.profile}/{name}.json", text)
    parts, lines = load_parts(config), load_lines(config)
    assert parts["scaling"].result == ScalingResult(data="pets")
    assert parts["latency"].result == LatencyResult()
    for stored in (parts["latency"], parts["nights"], lines["b0-pets"]):
        assert len(stored.problems) == 1
        assert f"{config.storage}/reports/" in stored.problems[0]
    assert reusable_part(config, LatencyResult, {}) is None


def test_half_a_surrogate_pair_is_replaced_so_that_the_page_can_be_written() -> None:
    data = read_stored(ScalingResult, {"data": "a\ud800b", "machine": {"\udfff": "x"}}, "s.json")
    assert (data.result.data, data.provenance.machine) == ("a?b", {"?": "x"})
    html = made_parts.render_stored({}, {"scaling": made_parts.scaling() | {"data": "a\ud800b", "command": "\udfff"}})
    assert html.encode()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e31, -1e31, 10**400])
def test_a_number_beyond_use_is_missing(number: float) -> None:
    assert read_stored(LatencyResult, {"n": number}, "l.json").result == LatencyResult(n=None)


def test_json_nested_deeper_than_any_that_is_written_cannot_break_the_page() -> None:
    deep = json.loads('{"x":' * 700 + "1" + "}" * 700)
    html = made_parts.render_stored({"config": deep}, {"latency": made_parts.latency() | {"config": deep}})
    assert "a made-up processor" in html


def test_a_password_in_an_address_is_hidden_wherever_it_is() -> None:
    part = {"command": "effnet x services.s3=https://me:s3cret@host", "config": {"s3": ["s3://k:s3cret@b/c"]}}
    assert "s3cret" not in repr(read_stored(ScalingResult, part, "s.json"))


def test_a_published_request_holds_no_address_of_alerts() -> None:
    config = compose(["nightly.alerts.webhook=https://hooks.example/SECRET"])
    assert "SECRET" not in json.dumps(request_of(config))
    assert digest(request_of(config)) == digest(request_of(compose(["prune.older_than_days=60"])))


@pytest.mark.parametrize(
    ("word", "weights", "commit", "missing", "is_reused"),
    [
        ("experiment=effnet", "a", "c0ffee", (), True),
        ("photographs.images=[/p/cat.jpg]", "a", "c0ffee", (), False),
        ("experiment=effnet", "b", "c0ffee", (), False),
        ("experiment=effnet", "a", "decade", (), False),
        ("experiment=effnet", "a", "c0ffee", ("lite1: no such file",), False),
    ],
    ids=["the same", "other settings", "other weights", "another commit", "a network is missing"],
)
def test_a_part_is_reused_where_settings_inputs_and_commit_are_the_same_and_it_is_whole(
    word: str,
    weights: str,
    commit: str,
    missing: tuple[str, ...],
    is_reused: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["profile=laptop", f"storage=file://{tmp_path}"]
    made = PhotographsResult(networks=(PhotographNetwork(name="lite0"),), missing=missing)
    monkeypatch.setattr(machine, "commit", lambda: "c0ffee")
    publish_part(compose(words), "photographs", made, {"weights": "a"})
    monkeypatch.setattr(machine, "commit", lambda: commit)
    kept = reusable_part(compose([*words, word]), PhotographsResult, {"weights": weights})
    assert kept == (made if is_reused else None)


@pytest.mark.parametrize("commit", ["", "c0ffee-dirty"])
def test_a_part_is_made_again_by_code_that_no_commit_names(
    commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose(["profile=laptop", f"storage=file://{tmp_path}"])
    monkeypatch.setattr(machine, "commit", lambda: commit)
    publish_part(config, "photographs", PhotographsResult(), {})
    assert reusable_part(config, PhotographsResult, {}) is None
