"""The night as a flow: whatever ends it early is reported."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelled, Crashed

from conf import compose, schema
from conf.compose import OverrideError
from flows import configure, nightly
from infra.errors import AppendError, DataError, DivergedError, PreemptedError, TransientError
from models.results import Registered, ShardResult
from tasks.nights import report
from tasks.nights.batch import RefusedDataError
from tasks.nights.history import Night, NightRecord
from tasks.nights.start import NightStart
from tasks.shard import ShardPlan

EMAIL = [
    f"nightly.alerts.email.{word}" for word in ("host=mail.example.org", "sender=a@example.org", "to=[b@example.org]")
]


def test_nights_of_one_model_on_several_data_sets_have_names_of_their_own() -> None:
    words = ["data@transfer.data=folder", "transfer.data.path=/images", "transfer.data.name=products"]
    assert nightly.describe_run(compose.compose(words)).startswith("nightly efficientnet-b0 on products ")


@pytest.mark.parametrize(
    ("words", "webhook", "host"),
    [
        ([], "OF_WORKER", None),
        (["nightly.alerts.webhook=OF_SCHEDULE"], "OF_SCHEDULE", None),
        (EMAIL, "OF_WORKER", "mail.example.org"),
        (["nightly.alerts.webhook=ftp://host", *EMAIL], "OF_WORKER", "mail.example.org"),
    ],
)
@pytest.mark.parametrize("wrong", [[], ["launch.nproc=2"]], ids=["", "also those of the worker"])
def test_a_night_whose_settings_are_wrong_is_reported_to_the_receivers_of_worker_and_schedule_that_are_right(
    words: list[str], webhook: str, host: str | None, wrong: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_worker = ["nightly.alerts.webhook=OF_WORKER", *wrong]
    monkeypatch.setenv(configure.VARIABLE, json.dumps(of_worker))
    monkeypatch.setattr(configure, "deployment_run", lambda: "as of a worker")
    reported: list[tuple[schema.Config, str]] = []

    async def report_error(config: schema.Config, night: None, outcome: str, error: str) -> None:
        assert night is None
        reported.append((config, f"{outcome}: {error}"))

    monkeypatch.setattr(nightly, "report_failure", report_error)
    with pytest.raises(OverrideError):
        asyncio.run(nightly.nightly.fn(["nightly.margn=1", *words, "transfer.data.name=products"], model="b3"))
    ((config, error),) = reported
    assert "no setting named" in error
    assert (config.nightly.alerts.webhook, config.nightly.alerts.email.host) == (webhook, host)
    assert (config.nightly.model, config.transfer.data.name) == ("b3", "products")


def test_the_hook_of_a_worker_reports_a_night_of_wrong_settings_and_none_that_has_not_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(configure.VARIABLE, "[]")
    reported: list[tuple[str | None, str, str]] = []
    monkeypatch.setattr(
        nightly,
        "report_lost",
        lambda config, run, outcome, _: reported.append((config.nightly.alerts.webhook, run, outcome)),
    )
    parameters = {"overrides": ["nightly.margn=1", "nightly.alerts.webhook=HOOK"]}
    run = FlowRun(flow_id=uuid4(), parameters=parameters)
    nightly._report_lost(nightly.nightly, run, Crashed())
    assert reported == [("HOOK", str(run.id), "crashed")]
    nightly._report_lost(nightly.nightly, run, Cancelled())
    run.start_time = datetime.now(UTC)
    nightly._report_lost(nightly.nightly, run, Cancelled())
    assert [outcome for *_, outcome in reported] == ["crashed", "cancelled"]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (asyncio.CancelledError(), "cancelled"),
        (PreemptedError("stopped by SIGTERM; its state is saved"), "cancelled"),
        (DivergedError("the loss is NaN"), "diverged"),
        (RefusedDataError("PSI 0.31"), "refused"),
        (DataError("a shard is damaged"), "failed"),
    ],
)
def test_a_night_that_ends_early_is_reported_with_how_it_ended(
    error: BaseException, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = Night("line", "uri", NightRecord("running"))
    reported: list[str] = []

    async def begin(*_: object) -> Night:
        return night

    async def end(*_: object) -> None:
        raise error

    async def report_end(_config: schema.Config, _night: Night, how: str, text: str) -> None:
        reported.extend((how, text))

    async def show(_config: schema.Config, line: str) -> None:
        reported.append(line)

    for name, function in (
        ("report_start", begin),
        ("run_night", end),
        ("report_failure", report_end),
        ("show_failure", show),
    ):
        monkeypatch.setattr(nightly, name, function)
    with pytest.raises(type(error)):
        asyncio.run(nightly.nightly.fn([]))
    assert reported[0] == outcome
    assert reported[1]
    assert reported[2:] == ["line"]


OUTCOME = Registered("b0-pets", 2, ("champion",), verdict="promoted: better", outcome="promoted")
SHARDS = ShardResult("pets", "file:///pets/manifest-0002.json", "sha", 2, 100, 10, 20, 3, False)
PLAN = ShardPlan("file:///pets", [], SHARDS, "pets", ("cat", "dog"))
NIGHT = Night("b0-pets", "file:///nights/b0-pets/2026-11-29.json", NightRecord("running"))


def replace_steps(monkeypatch: pytest.MonkeyPatch, **answers: object) -> None:
    """Replaces steps of the night by ones that return these values, or raise these errors."""

    def step(answer: object) -> Callable[..., Coroutine[Any, Any, object]]:
        async def run(*_: object) -> object:
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return run

    for name, answer in answers.items():
        monkeypatch.setattr(nightly, name, step(answer))


def test_a_night_whose_page_cannot_be_published_has_succeeded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    night = Night("line", "uri", NightRecord("running"))
    replace_steps(monkeypatch, report_start=night, run_night=(OUTCOME, SHARDS), report_night=None)

    async def publish(*_: object) -> str:
        raise TransientError("the store does not answer")

    monkeypatch.setattr(report, "publish_nights", publish)
    assert asyncio.run(nightly.nightly.fn([])) == OUTCOME
    assert "the page of the night is not renewed, the next night renews it: the store does not answer" in caplog.text


@pytest.mark.parametrize("given", [False, True])
def test_data_to_which_nothing_can_be_appended_begin_anew_unless_appending_was_asked_for(
    given: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start = NightStart("b0-pets", "b0-pets/1", True, schema.Data(name="pets"))
    fault = AppendError("pets: dog/0.png is in the data set as 'cat'")
    done = dataclasses.replace(PLAN, absent="begun anew")
    steps = {"refuse_overdue": None, "find_start": start, "open_batch": None, "report_age": None}
    replace_steps(monkeypatch, **steps, plan_shards=fault, plan_anew=done, find_reason_to_skip=OUTCOME)
    replace_steps(monkeypatch, close_batch=OUTCOME)
    config = compose.compose(["transfer.data.append=true"] if given else [])
    if given:
        with pytest.raises(AppendError):
            asyncio.run(nightly.run_night(config, NIGHT))
        return
    outcome, _ = asyncio.run(nightly.run_night(config, NIGHT))
    assert outcome.verdict.endswith("begun anew")
    assert "sharded anew, since nothing can be appended to them: pets: dog/0.png" in caplog.text


def test_every_verdict_names_the_versions_whose_images_are_withheld_and_counts_images_that_are_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = NightStart("b0-pets", "b0-pets/1", True, schema.Data(name="pets", append=True))
    refused = ("version 0002-5f0c9a31 was refused",)
    absent = "1 of the 100 images is gone"
    plan = dataclasses.replace(PLAN, version="0003-00000000", refused=refused, absent=absent)
    steps = {"refuse_overdue": None, "find_start": start, "plan_shards": plan, "open_batch": None, "report_age": None}
    steps["find_watched"] = None
    for skipped in (None, OUTCOME):
        replace_steps(monkeypatch, **steps, find_reason_to_skip=skipped, _train_challenger=OUTCOME, close_batch=OUTCOME)
        outcome, _ = asyncio.run(nightly.run_night(compose.compose([]), NIGHT))
        assert outcome.verdict == "promoted: better; version 0002-5f0c9a31 was refused; 1 of the 100 images is gone"


@pytest.mark.parametrize(
    ("data", "words", "continues", "reason"),
    [
        (schema.Data(name="pets", source="folder", append=True), [], True, ""),
        (schema.Data(name="pets", source="folder", append=False), ["nightly.watch_images=null"], True, ""),
        (schema.Data(name="pets", source="folder", append=False), [], False, ""),
        (schema.Data(name="pets", source="folder", append=False), [], True, "this night appends nothing to its data ("),
        (schema.Data(name="digits", source="digits"), [], True, "digits is a data set that does not grow"),
    ],
)
def test_the_verdict_says_where_a_champion_cannot_be_judged_again(
    data: schema.Data, words: list[str], continues: bool, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = NightStart("b0-pets", "b0-pets/1", continues, data)
    steps = {"refuse_overdue": None, "find_start": start, "open_batch": None, "report_age": None, "find_watched": None}
    replace_steps(monkeypatch, **steps, plan_shards=PLAN, close_batch=OUTCOME)
    replace_steps(monkeypatch, find_reason_to_skip=None, _train_challenger=OUTCOME)
    outcome, _ = asyncio.run(nightly.run_night(compose.compose(words), NIGHT))
    said = f"; b0-pets/1 was not judged again on images that came since: {reason}"
    assert outcome.verdict.startswith(f"{OUTCOME.verdict}{said if reason else ''}")
    assert ("judged again" in outcome.verdict) == bool(reason)


@pytest.mark.slow
def test_what_is_assumed_about_the_classes_of_the_champion_is_a_tag_of_the_challengers_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = NightStart("public-made", "public-made/1", True, compose.compose(["data=digits"]).data)
    shards = ShardResult("made", "file:///manifest.json", "0" * 64, 10, 20, 2, 12, 3, reused=True)
    registered = Registered("public-made", 2, ())
    tags: list[dict[str, str]] = []

    def answers(value: object) -> Callable[..., Coroutine[Any, Any, object]]:
        async def answer(*_: object) -> object:
            return value

        return answer

    async def train(_job: object, _config: object, _parent: str, given: dict[str, str]) -> None:
        tags.append(given)

    weights = ("file:///weights", "1" * 64)
    for name, value in {
        "check_data": None,
        "find_added": None,
        "fetch_registered": (schema.Model(), weights, "public-made/1"),
        "match_classes": (weights, "class names unknown: assumed in the order of made"),
        "register": registered,
        "find_withdrawn": None,
        "try_package": SimpleNamespace(fault=None, note=""),
        "judge_version": registered,
    }.items():
        monkeypatch.setattr(nightly, name, answers(value))
    monkeypatch.setattr(nightly, "train_task", train)
    monkeypatch.setattr(nightly, "train_job", lambda *_, **__: None)
    asyncio.run(nightly._train_challenger(compose.compose(["data@transfer.data=digits"]), start, shards))
    assert tags[0]["assumed"] == "public-made/1: class names unknown: assumed in the order of made"


def test_a_night_of_the_schedule_before_there_is_a_champion_is_recorded_as_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    night, waiting = Night("line", "uri", NightRecord("running")), Registered("b0-pets", 0, (), outcome="skipped")
    replace_steps(monkeypatch, report_start=night, find_reason_to_wait=waiting, run_night=(OUTCOME, SHARDS))
    recorded: list[Registered] = []

    async def report_night(_config: schema.Config, _night: Night, result: Registered) -> None:
        recorded.append(result)

    async def show_night(*_: object) -> str:
        return ""

    monkeypatch.setattr(nightly, "report_night", report_night)
    monkeypatch.setattr(nightly, "show_night", show_night)
    monkeypatch.setattr(nightly, "_flow_run", lambda: ("run", datetime(2026, 11, 30, 3, tzinfo=UTC)))
    assert asyncio.run(nightly.nightly.fn([])) == waiting
    monkeypatch.setattr(nightly, "_flow_run", lambda: ("run", None))  # someone has started it, who hears of an error
    assert asyncio.run(nightly.nightly.fn([])) == OUTCOME
    assert recorded == [waiting, OUTCOME]


def test_what_came_of_a_night_is_shown_on_the_page_of_its_flow_run(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[object, ...]] = []

    async def show(*said: object) -> None:
        shown.append(said)

    night = Night("b0-pets", "uri", NightRecord("running"))
    steps = {"report_start": night, "report_night": None, "report_failure": None, "show_failure": None}
    monkeypatch.setattr(nightly, "show_outcome", show)
    monkeypatch.setattr(nightly, "link_version", show)
    replace_steps(monkeypatch, **steps, run_night=(OUTCOME, SHARDS), show_night="night-b0-pets.html")
    assert asyncio.run(nightly.nightly.fn([])).page == "night-b0-pets.html"
    assert shown == [("b0-pets", "promoted", "promoted: better"), ("b0-pets", 2)]
    replace_steps(monkeypatch, run_night=DataError("a shard is damaged"))
    with pytest.raises(DataError):
        asyncio.run(nightly.nightly.fn([]))
    assert shown[2:] == [("b0-pets", "failed", "a shard is damaged")]
