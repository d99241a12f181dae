"""What is recorded of a night, and which nights cause an alert."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from serving import serving

from conf import compose
from conf.schema import Config
from infra import store
from infra.errors import EffnetError, TransientError
from infra.services import prefect_api
from infra.tracking import registry
from infra.tracking.registry import Version
from models.results import Registered, ShardResult
from tasks.nights import alerts, history, line, record
from tasks.nights.history import CANCELLED, CRASHED, FAILED, Night, read_nights
from tasks.nights.record import describe_delay

TONIGHT = datetime(2026, 11, 29, 3, 0, tzinfo=UTC)
LINE = "b0-pets"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setattr(record, "name_line", lambda _: LINE)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    # The version of the line was made before any of these nights.
    old = Version(LINE, 2, "", (), {"promotion": "promoted"}, created=0.0)
    monkeypatch.setattr(registry, "resolve_version", lambda _: old)
    return compose.compose([f"storage=file://{tmp_path}"])


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []

    def send(_: object, text: str) -> bool:
        texts.append(text)
        return True

    monkeypatch.setattr(alerts, "send", send)
    return texts


def result(outcome: str, verdict: str = "why") -> Registered:
    return Registered(LINE, 2, ("challenger",), verdict=verdict, outcome=outcome)


def begin(config: Config, day: int = 0, run: str = "run") -> Night:
    return record._open(config, run, TONIGHT + timedelta(days=day))


def run_night(config: Config, outcome: str, verdict: str = "why", day: int = 0) -> None:
    record._close(config, begin(config, day), result(outcome, verdict))


def recorded(config: Config) -> list[tuple[str, str, str]]:
    return [(date, night.outcome, night.verdict) for date, night in read_nights(config.storage, LINE, 10)]


def test_a_night_whose_record_a_user_deletes_while_it_runs_is_recorded_at_its_end(
    config: Config, sent: list[str]
) -> None:
    night = begin(config)
    store.delete(night.uri)
    record.report_event(config, night, "late")
    store.delete(night.uri)
    record._close(config, night, result("promoted", "better"))
    assert recorded(config) == [("2026-11-29", "promoted", "better")]
    assert len(sent) == 1


def test_a_night_is_recorded_by_line_and_date_from_its_start_on(config: Config, sent: list[str]) -> None:
    night = begin(config)
    assert recorded(config) == [("2026-11-29", "running", "")]
    record._close(config, night, result("promoted"))
    body = store.read_json(f"{config.storage}/nights/{LINE}/2026-11-29.json")
    assert (body["outcome"], body["verdict"], body["version"]) == ("promoted", "why", 2)
    assert body["started"] == "2026-11-29 03:00:00 UTC"
    assert body["finished"]
    run_night(config, "skipped")  # the same night again
    assert store.read_json(f"{config.storage}/nights/{LINE}/2026-11-29.json") == body
    assert sent == []


def test_a_record_of_an_earlier_version_of_effnet_is_read(config: Config, sent: list[str]) -> None:
    uri = f"{config.storage}/nights/{LINE}/2026-11-29.json"
    store.ensure_root(config.storage)
    store.write_json(uri, {"outcome": "tied", "verdict": "not better", "version": 2})
    assert recorded(config) == [("2026-11-29", "tied", "not better")]
    run_night(config, "skipped")
    assert recorded(config) == [("2026-11-29", "tied", "not better")]


def test_a_refusal_is_reported_once_with_its_reason(config: Config, sent: list[str]) -> None:
    run_night(config, "refused", "not promoted, it is worse")
    run_night(config, "refused", "judged before: not promoted, it is worse", day=1)
    (text,) = sent
    assert text.startswith("effnet nightly efficientnet-b0 on ")
    assert text.endswith(": refused: b0-pets/2: not promoted, it is worse")


def test_a_version_that_waits_for_approval_is_reported_once(config: Config, sent: list[str]) -> None:
    run_night(config, "waiting", "passed the gate")
    run_night(config, "waiting", "judged before: passed the gate", day=1)
    (text,) = sent
    assert text.endswith(": waits for approval: b0-pets/2: passed the gate")


def test_every_third_skip_in_a_row_is_reported(config: Config, sent: list[str]) -> None:
    outcomes = ["promoted", *["skipped"] * 2, "tied", *["skipped"] * 7]
    counts = []
    for day, outcome in enumerate(outcomes):
        for _ in range(2):  # repeated on the same date
            run_night(config, outcome, day=day)
        counts.append(len(sent))
    assert counts == [0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2]
    assert sent[0].endswith(": skipped 3 times in a row: why")
    assert sent[1].endswith(": skipped 6 times in a row: why")


def test_a_night_without_anything_to_fine_tune_is_recorded_as_skipped_without_a_version(
    config: Config, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "resolve_version", lambda _: pytest.fail("there is no version"))
    waiting = Registered(LINE, line.NO_VERSION, (), verdict="skipped: nothing to fine-tune yet", outcome="skipped")
    record._close(config, begin(config), waiting)
    ((_, night),) = read_nights(config.storage, LINE, 10)
    assert (night.outcome, night.verdict, night.version) == ("skipped", "skipped: nothing to fine-tune yet", None)
    assert night.finished


def test_only_the_default_model_may_have_no_champion_yet(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    champions = {"b3": Version("b3", 1, "", (), {})}
    monkeypatch.setattr(registry, "champion", champions.get)
    waiting = line._find_reason_to_wait(config)
    assert waiting is not None
    assert (waiting.name, waiting.outcome) == ("efficientnet-b0-digits", "skipped")
    assert waiting.verdict.startswith("skipped: nothing to fine-tune yet: no efficientnet-b0 has been promoted; ")
    for model in ("b3", "b4"):  # that b4 has none is an error, with a hint
        assert line._find_reason_to_wait(compose.compose([f"nightly.model={model}"])) is None
    champions["efficientnet-b0"] = Version("efficientnet-b0", 1, "", (), {})
    assert line._find_reason_to_wait(config) is None


def test_a_retry_loses_no_alert_of_the_third_skip(
    config: Config, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in range(2):
        run_night(config, "skipped", day=day)
    night = begin(config, day=2)
    read, lost = history.read_record, [f"{config.storage}/nights/{LINE}/2026-11-29.json"]

    def read_busy(uri: str) -> history.NightRecord | None:
        if uri in lost:
            lost.remove(uri)
            raise TransientError("the store does not answer")
        return read(uri)

    monkeypatch.setattr(history, "read_record", read_busy)
    with pytest.raises(TransientError):
        record._close(config, night, result("skipped"))
    record._close(config, night, result("skipped"))
    (text,) = sent
    assert text.endswith(": skipped 3 times in a row: why")


def test_a_late_night_sends_no_alert_before_it_is_recorded(config: Config, sent: list[str], tmp_path: Path) -> None:
    (tmp_path / "nights").write_text("a file in place of the folder")
    expected = datetime.now(UTC) - timedelta(hours=9)
    with pytest.raises(EffnetError):
        asyncio.run(record.report_start.fn(config, "run", expected))
    assert sent == [], "Prefect repeats the task if the store does not answer"
    (tmp_path / "nights").unlink()
    asyncio.run(record.report_start.fn(config, "run", expected))
    assert len(sent) == 1


@pytest.mark.parametrize(
    "text", ['{"outcome": 3}', "no JSON", '{"outcome": "skipped", "verdict": "why", "weather": "of a newer effnet"}']
)
def test_a_record_that_cannot_be_read_stops_no_night_and_is_named(
    text: str, config: Config, sent: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    run_night(config, "skipped")
    uri = f"{config.storage}/nights/{LINE}/2026-11-30.json"
    store.write(uri, text.encode())
    assert [date for date, _ in read_nights(config.storage, LINE, 1)] == ["2026-11-29"]
    run_night(config, "skipped", day=2)
    run_night(config, "skipped", day=3)
    record.report_lost(config, "run", CRASHED, "killed")
    assert [date for date, *_ in recorded(config)] == ["2026-12-02", "2026-12-01", "2026-11-29"]
    assert len(sent) == 1, "three skips in a row, but for the one that nobody can read"
    assert f"{uri} is skipped: not the record of a night" in caplog.text
    assert "; delete it, or upgrade" in caplog.text
    run_night(config, "tied", day=1)
    assert len(recorded(config)) == 4, "a night of the same date replaces it"


def test_refusals_of_one_date_are_not_kept_in_another(config: Config, sent: list[str]) -> None:
    for reason in ("PSI 0.31", "PSI 0.41", "PSI 0.51"):
        record._fail(config, begin(config), "refused", reason)
    body = store.read_json(f"{config.storage}/nights/{LINE}/2026-11-29.json")
    assert (body["verdict"], "earlier" in body) == ("PSI 0.51", False)


def test_a_night_that_failed_is_recorded_with_its_reason_and_replaced_by_one_that_succeeds(
    config: Config, sent: list[str]
) -> None:
    record._fail(config, begin(config), FAILED, "the disk is full")
    assert recorded(config) == [("2026-11-29", "failed", "the disk is full")]
    assert sent[-1].endswith(": failed: the disk is full")
    run_night(config, "skipped")
    assert recorded(config) == [("2026-11-29", "skipped", "why")]


def test_data_that_were_refused_stay_on_record_when_the_same_night_is_repeated(config: Config, sent: list[str]) -> None:
    record._fail(config, begin(config), "refused", "the data pets are refused: PSI 0.31, 0.2 is allowed")
    run_night(config, "skipped", "skipped: no new data")
    assert recorded(config) == [("2026-11-29", "refused", "the data pets are refused: PSI 0.31, 0.2 is allowed")]
    run_night(config, "promoted", "better")  # after the folder was corrected
    assert recorded(config) == [("2026-11-29", "promoted", "better")]


def test_a_night_that_judged_its_version_and_was_killed_is_recorded_with_that_verdict(
    config: Config, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(config)  # killed after the gate
    created = (TONIGHT + timedelta(minutes=20)).timestamp()
    made = Version(LINE, 2, "", (), {"promotion": "refused", "promotion_reason": "it is worse"}, created=created)
    monkeypatch.setattr(registry, "resolve_version", lambda _: made)
    record._close(config, begin(config, run="another"), result("refused", "judged before: it is worse"))
    assert recorded(config) == [("2026-11-29", "refused", "it is worse")]
    (text,) = sent
    assert text.endswith(": refused: b0-pets/2: it is worse")


def test_a_night_that_was_killed_right_after_its_champion_was_set_is_recorded_as_promoted(
    config: Config, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(config)
    created = (TONIGHT + timedelta(minutes=20)).timestamp()
    made = Version(LINE, 2, "", (), {"promotion": "pending", "promotion_reason": "better"}, created=created)
    monkeypatch.setattr(registry, "resolve_version", lambda _: made)
    record._close(config, begin(config, run="another"), result("skipped", "skipped: no new data"))
    assert recorded(config) == [("2026-11-29", "promoted", "better")]


def test_of_nights_that_run_at_the_same_time_one_sends_the_alert(config: Config, sent: list[str]) -> None:
    first, second = begin(config, run="a"), begin(config, run="b")
    for night in (first, second):
        record._close(config, night, result("refused", "it is worse"))
    assert len(sent) == 1


class _Prefect(BaseHTTPRequestHandler):
    """The states of the flow runs that the test sets."""

    states: ClassVar[dict[str, str]] = {}

    def do_GET(self) -> None:
        state = self.states.get(self.path.rpartition("/")[2])
        body = json.dumps({"state_type": state} if state else {}).encode()
        self.send_response(int(state) if state and state.isdecimal() else 200 if state else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Prints nothing."""


@pytest.fixture
def states(config: Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    server = HTTPServer(("127.0.0.1", 0), _Prefect)
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.server_port}/api")
    _Prefect.states.clear()
    with serving(server):
        yield _Prefect.states


def test_a_night_that_crashed_is_recorded_and_reported_by_the_next_one(
    config: Config, sent: list[str], states: dict[str, str]
) -> None:
    begin(config, run="lost")
    states["lost"] = "RUNNING"
    begin(config, day=1, run="next")
    assert recorded(config)[1][1] == "running", "Prefect says that it runs"
    states["lost"] = "CRASHED"
    begin(config, day=1, run="next")
    date, outcome, verdict = recorded(config)[1]
    assert (date, outcome) == ("2026-11-29", "crashed")
    assert verdict.startswith("the night of 2026-11-29 03:00:00 UTC did not record its end")
    (text,) = sent
    assert ": crashed: the night of 2026-11-29 03:00:00 UTC" in text


def test_a_night_whose_run_prefect_does_not_know_is_given_up_after_a_day(
    config: Config, sent: list[str], states: dict[str, str]
) -> None:
    begin(config, run="unknown")
    record._open(config, "b", TONIGHT + timedelta(hours=23))
    assert sent == []
    record._open(config, "c", TONIGHT + timedelta(hours=25))
    assert len(sent) == 1


@pytest.mark.parametrize("answer", ["401", "503"])
def test_a_night_is_not_given_up_while_prefect_does_not_say_whether_it_has_ended(
    answer: str, config: Config, sent: list[str], states: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefect_api, "_BUSY_S", 0.0)
    begin(config, run="long")
    states["long"] = answer
    begin(config, day=3, run="next")
    assert recorded(config)[1][1] == "running"
    assert sent == []


def test_a_hook_reports_a_lost_night_once_and_leaves_one_that_has_ended(config: Config, sent: list[str]) -> None:
    begin(config, run="killed")
    for _ in range(2):
        record.report_lost(config, "killed", CRASHED, "exited with status code -9")
    assert recorded(config) == [("2026-11-29", "crashed", "exited with status code -9")]
    run_night(config, "promoted", day=1)
    record.report_lost(config, "run", CANCELLED, "cancelled")
    assert len(sent) == 1


def test_a_night_is_late_from_the_limit_on() -> None:
    assert describe_delay(None, TONIGHT, 60) is None
    assert describe_delay(TONIGHT, TONIGHT + timedelta(minutes=60), 60) is None
    line = describe_delay(TONIGHT, TONIGHT + timedelta(hours=2, minutes=5), 60)
    assert line == "late: it starts 2 h 5 min after 2026-11-29 03:00+00:00"


def test_data_that_have_not_grown_for_too_long_are_reported(config: Config, sent: list[str], tmp_path: Path) -> None:
    uri = f"{config.storage}/data/pets/0/manifest.json"
    store.write_json(uri, {})
    shards = ShardResult("pets", uri, "sha", 2, 100, 10, 20, 3, False)
    written, night = store.find_entry(uri).modified, begin(config)
    record._report_age(config, night, shards, written + 400 * 86400)
    assert sent == [], "there is no limit by default"
    config.nightly.max_age_days = 7
    record._report_age(config, night, shards, written + 6.9 * 86400)
    assert sent == []
    record._report_age(config, night, shards, written + 9.25 * 86400)
    (text,) = sent
    assert text.endswith(": late data: pets has had no new images for 9.2 days, 7 are allowed (nightly.max_age_days)")


@pytest.mark.parametrize("outcome", ["refused", "failed"])
def test_an_alert_that_a_kill_or_a_broken_receiver_has_kept_back_is_sent_by_the_next_night(
    outcome: str, config: Config, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(day: int) -> None:
        night = begin(config, day)
        if outcome == "failed":
            record._fail(config, night, FAILED, "the disk is full")
        else:
            record._close(config, night, result("refused", "it is worse"))

    with monkeypatch.context() as killed:

        def kill(*_: object) -> bool:
            raise KeyboardInterrupt

        killed.setattr(alerts, "send", kill)
        with pytest.raises(KeyboardInterrupt):
            end(0)
    with monkeypatch.context() as silent:
        silent.setattr(alerts, "send", lambda *_: False)
        end(1)
    assert sent == []
    begin(config, day=2)
    assert len(sent) == 2
    begin(config, day=3)
    assert [outcome in text for text in sent] == [True, True]
    assert [one for _, one, _ in recorded(config)][2:] == [outcome, outcome]


def test_a_hook_sends_the_alert_of_a_night_that_was_killed_between_its_record_and_its_alert(
    config: Config, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as silent:
        silent.setattr(alerts, "send", lambda *_: False)
        record._close(config, begin(config, run="killed"), result("refused", "it is worse"))
    for _ in range(2):
        record.report_lost(config, "killed", CRASHED, "exited with status code -9")
    (text,) = sent
    assert text.endswith(": refused: b0-pets/2: it is worse")


@pytest.mark.parametrize("first", ["promoted", "failed"])
def test_a_hook_reports_no_repetition_of_a_night_that_was_killed_after_it_had_ended(
    first: str, config: Config, sent: list[str]
) -> None:
    if first == "failed":
        record._fail(config, begin(config, run="a"), FAILED, "the disk is full")
    else:
        record._close(config, begin(config, run="a"), result("promoted"))
    sent.clear()
    record._close(config, begin(config, run="b"), result("skipped"))
    for run in ("a", "b"):
        record.report_lost(config, run, CRASHED, "exited with status code -9")
    assert sent == []
    assert [outcome for _, outcome, _ in recorded(config)] == ["promoted" if first == "promoted" else "skipped"]


def test_a_hook_says_that_another_flow_run_has_the_record_of_a_night_that_was_killed(
    config: Config, sent: list[str]
) -> None:
    begin(config, run="a")
    night = begin(config, run="b")
    record.report_lost(config, "a", CRASHED, "killed")
    (text,) = sent
    assert text.endswith(": crashed: killed; another flow run has taken over the record of this night")
    record._close(config, night, result("promoted"))
    record.report_lost(config, "a", CRASHED, "killed")
    assert len(sent) == 1, "another run has done what it was for"
    assert [outcome for _, outcome, _ in recorded(config)] == ["promoted"]


def test_a_hook_reports_a_night_that_was_killed_before_it_was_recorded(config: Config, sent: list[str]) -> None:
    run_night(config, "promoted")
    record.report_lost(config, "unrecorded", CRASHED, "exited with status code -9")
    (text,) = sent
    assert text.endswith(": crashed: exited with status code -9; it ended before it was recorded")
    assert recorded(config) == [("2026-11-29", "promoted", "why")]


@pytest.mark.parametrize("end", ["killed", "failed", "skipped", "refused"])
def test_alerts_from_before_the_end_of_a_night_are_kept_until_a_receiver_has_them(
    end: str, config: Config, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [f"late data: {day} days" for day in (9, 10)]
    with monkeypatch.context() as silent:
        silent.setattr(alerts, "send", lambda *_: False)
        night = begin(config)
        for text in (*events, events[0]):  # as a task that is retried
            record.report_event(config, night, text)
        if end == "failed":
            record._fail(config, night, FAILED, "why")
        elif end != "killed":
            record._close(config, night, result(end))
    for day in (1, 2):
        begin(config, day)
    ends = [text.partition("): ")[2] for text in sent if "did not record its end" not in text]
    assert ends[:2] == events[::-1]
    assert len(ends) == (3 if end in ("failed", "refused") else 2)


def test_the_alert_of_a_late_night_is_kept_until_a_receiver_has_it(
    config: Config, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as silent:
        silent.setattr(alerts, "send", lambda *_: False)
        asyncio.run(record.report_start.fn(config, "run", datetime.now(UTC) - timedelta(hours=9)))
    record._open(config, "next", datetime.now(UTC) + timedelta(days=1))
    assert "late: it starts 9 h 0 min after" in sent[0]


@pytest.mark.parametrize("outcome", ["failed", "skipped", "promoted", "refused"])
@pytest.mark.parametrize("first", ["failed", "refused"])
def test_no_alert_is_lost_when_a_date_is_repeated_while_the_receiver_does_not_answer(
    first: str, outcome: str, config: Config, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as silent:
        silent.setattr(alerts, "send", lambda *_: False)
        for end, reason in ((first, "the first"), (outcome, "the second")):
            if end == "failed":
                record._fail(config, begin(config), FAILED, reason)
            else:
                run_night(config, end, reason)
        begin(config)  # and killed
    begin(config, day=1)
    begin(config, day=2)
    reasons = ["the first", "the second"] if outcome in ("failed", "refused") else ["the first"]
    ends = [text.partition(" on ")[2].rpartition(": ")[2] for text in sent]
    assert [end for end in ends if not end.startswith("the night of")] == reasons
