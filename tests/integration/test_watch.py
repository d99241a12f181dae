"""The champion judged again on images that came since, with a real MLflow; answers are made up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from growing_folder import add, append_pending, shard

from conf import compose, schema
from conf.data_set import EvalTransform
from flows.cli import champions as by_hand
from flows.cli.command import Command
from infra import store
from infra.tracking import champions, registry, runs
from models.data.shards import acceptance
from models.data.shards import manifest as manifests
from models.networks import export
from models.networks.build import build_model
from models.results import EvalResult, ShardResult
from models.training import per_image
from tasks.nights import alerts, history, record, watch
from tasks.nights.history import Night, NightRecord
from tasks.nights.start import NightStart, accept_data
from tasks.nights.watch import Watched
from tasks.registry import promote
from tasks.registry.gate import PROMOTED, Verdict
from tasks.registry.register import WEIGHTS, describe_network, new_version

pytestmark = [pytest.mark.services, pytest.mark.slow]


@dataclass
class Line:
    """A line of two champions, and a night that has appended 200 images which neither was trained on."""

    name: str
    storage: str
    data: schema.Data
    folder: Path
    sent: list[str]
    came_with_second: ShardResult

    @property
    def config(self) -> schema.Config:
        return replace(compose.compose([]), storage=self.storage)

    def night(self, config: schema.Config | None = None) -> tuple[Watched | None, ShardResult]:
        """What a night appends, and by what it judges the champion again."""
        config, shards = config or self.config, append_pending(self.data, self.storage)
        champion = registry.champion(self.name)
        assert champion is not None
        start = NightStart(self.name, f"{self.name}/{champion.version}", True, self.data)
        return watch._find_watched(start, shards, config.nightly, config.storage), shards

    def judge(self, watched: Watched, right: int, right_before: int) -> str:
        """Judges the champion again, of which so many answers are right; the others are so of the one before."""
        answers = [
            self._answer(ref, number, watched.shards)
            for ref, number in ((watched.champion, right), (watched.previous, right_before))
        ]
        night = Night(self.name, f"{self.storage}/nights/{self.name}/2026-11-29.json", NightRecord("running"))
        history.write_record(night.uri, night.record)
        return watch._judge_again(watched, answers, self.config, night)

    def _answer(self, ref: str, right: int, shards: ShardResult) -> EvalResult:
        uri, n = f"{self.storage}/jobs/evaluate-{ref.replace('/', '-')}", shards.val
        sha256 = per_image.write(uri, np.arange(n) < right)
        return EvalResult("key", ref, "pets", 100 * right / n, 100.0, n, (right,), (n,), sha256, uri)

    def aliases(self) -> tuple[int, int]:
        """The versions that are champion and previous."""
        held = (registry.find_alias(self.name, alias) for alias in (registry.CHAMPION, champions.PREVIOUS))
        one, other = (0 if version is None else version.version for version in held)
        return one, other


@pytest.fixture
def line(mlflow_uri: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Line:
    folder, storage = tmp_path / "images", f"file://{tmp_path}/store"
    sent: list[str] = []
    monkeypatch.setattr(alerts, "send", lambda _, text: sent.append(text) or True)
    data = schema.Data(
        name="pets", source="folder", path=str(folder), minival_share=0.1, samples_per_shard=30, append=True
    )
    name = f"watch-{abs(hash(request.node.name)) % 10**8}"
    add(folder, 0, 100)
    _champion(name, shard(data, storage), storage, tmp_path)
    add(folder, 100, 130)
    second = shard(data, storage)
    _champion(name, second, storage, tmp_path)
    add(folder, 130, 330)
    return Line(name, storage, data, folder, sent, second)


def _champion(name: str, shards: ShardResult, storage: str, folder: Path) -> None:
    """A version that was trained on a data set and that the gate has promoted."""
    champion = registry.champion(name)
    number = 1 if champion is None else champion.version + 1
    uri = f"{storage}/jobs/{name}-{number}"
    job = schema.Job(
        "train", data_name="pets", manifest_uri=shards.manifest_uri, manifest_sha256=shards.manifest_sha256
    )
    store.write(f"{uri}/config.yaml", compose.to_yaml(job).encode())
    model = compose.compose([]).model
    torch.manual_seed(number)
    export.save_weights(build_model(model, 2).state_dict(), folder / WEIGHTS)
    classes = list(manifests.load(shards.manifest_uri)[1].classes)
    tags = {
        "dataset": "pets", "job_uri": uri, "top1": "95.0", "val_n": "100",
        "data_manifest_sha256": shards.manifest_sha256,
    }  # fmt: skip
    run = runs.start_run("watch", f"{name}-{number}", f"{name}-{number}", params={}, tags={})
    description = describe_network(model, 24, classes, EvalTransform(0))
    version = new_version(run, name, folder, description, tags, storage)
    assert promote.promote(version, Verdict(PROMOTED, f"better {number}: promoted"), champion, storage, False)


def first_data(line: Line) -> ShardResult:
    """The data of the first version of the line."""
    uri = line.came_with_second.manifest_uri.replace("-0002", "")
    return replace(line.came_with_second, train=manifests.load(uri)[1].samples("train"))


def test_a_champion_that_is_worse_on_images_that_came_since_is_taken_back_once_with_the_images_that_came_with_it(
    line: Line,
) -> None:
    watched, shards = line.night()
    assert watched is not None
    assert (watched.champion, watched.previous) == (f"{line.name}/2", f"{line.name}/1")
    n = watched.shards.val
    assert n == shards.train - line.came_with_second.train >= 100
    said = line.judge(watched, n - 30, n - 5)
    assert said.startswith("rolled back to version 1: version 2 is worse than version 1: ")
    assert f" of {n} images that came since, " in said
    assert "points less, 0.3 are allowed (nightly.margin)" in said
    assert line.aliases() == (1, 2)
    move = champions.read_history(line.storage, line.name)[-1]
    assert (move.who, move.old, move.new) == (champions.WATCH, 2, 1)
    assert move.why in said
    assert move.evidence["watched_n"] == str(n)
    (alert,) = line.sent
    assert "rolled back to version 1" in alert
    mark = acceptance.find(line.came_with_second.manifest_uri)
    assert mark is not None
    assert f"transfer.data.accept=[pets/{mark.version}]" in said
    assert registry.resolve_version(f"{line.name}/1").tags["promotion_reason"] == f"promoted by watch: {move.why}"

    assert line.judge(watched, n - 30, n - 5) == "version 2 is not champion any more"  # another night at the same time
    again, rest = line.night()  # the rest of the night, and its repetition
    assert again is None
    assert rest.train == shards.train - (line.came_with_second.train - first_data(line).train)
    assert line.aliases() == (1, 2)
    assert (len(champions.read_history(line.storage, line.name)), len(line.sent)) == (3, 1)


def test_a_night_that_is_killed_before_the_alias_has_moved_does_all_of_it_when_it_is_repeated(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, shards = line.night()
    assert watched is not None
    n = watched.shards.val

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(champions, "move_champion", die)
        with pytest.raises(KeyboardInterrupt):
            line.judge(watched, n - 30, n - 5)
    assert line.aliases() == (2, 1)
    accept_data(registry.resolve_version(f"{line.name}/2"))  # as the next night does first
    again, repeated = line.night()
    assert (again, repeated.manifest_sha256) == (watched, shards.manifest_sha256)
    assert line.judge(watched, n - 30, n - 5).startswith("rolled back to version 1")
    assert line.aliases() == (1, 2)


def test_a_champion_that_a_user_has_promoted_stays_and_that_it_is_worse_is_said(line: Line) -> None:
    command = Command("rollback", (line.name,), [], line.config)
    first, second = (registry.resolve_version(f"{line.name}/{number}") for number in (1, 2))
    by_hand._move(command, first, 2, "rollback of version 2")
    by_hand._move(command, second, 1, "I want it")
    watched, _ = line.night()
    assert watched is not None
    n = watched.shards.val
    said = line.judge(watched, n - 30, n - 5)
    assert said.startswith("version 2 is worse than version 1: ")
    assert said.endswith(f"it was promoted by a user and stays: effnet rollback {line.name} takes it back")
    assert line.aliases() == (2, 1)
    assert len(line.sent) == 1


def test_that_a_champion_was_taken_back_is_reported_by_the_next_night_if_no_receiver_answered(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, _ = line.night()
    assert watched is not None
    n = watched.shards.val
    monkeypatch.setattr(record, "name_line", lambda _: line.name)
    with monkeypatch.context() as silent:
        silent.setattr(alerts, "send", lambda *_: False)
        assert line.judge(watched, n - 30, n - 5).startswith("rolled back to version 1")
    for hour in (1, 2):
        record._open(line.config, "next", datetime(2026, 11, 30, hour, tzinfo=UTC))
    assert ["rolled back to version 1: " in text for text in line.sent] == [True, False], line.sent
    assert "did not record its end" in line.sent[1]


def test_a_champion_that_may_be_as_good_stays_and_one_is_not_judged_by_few_images_or_wrong_labels(line: Line) -> None:
    watched, _ = line.night()
    assert watched is not None
    n = watched.shards.val
    cases = {"equal": (5, 5), "chance": (12, 5), "better": (5, 30), "wrong labels": (120, 100)}
    for case, (lost, lost_before) in cases.items():
        assert line.judge(watched, n - lost, n - lost_before) == "", case
    assert (line.aliases(), line.sent) == ((2, 1), [])
    for word in ("nightly.watch_images=500", "nightly.watch_images=null"):
        assert line.night(replace(compose.compose([word]), storage=line.storage))[0] is None


def test_images_of_several_nights_that_promoted_nothing_are_judged_together(line: Line) -> None:
    accepted = shard(line.data, line.storage)  # a night that tied
    add(line.folder, 330, 360)
    watched, shards = line.night()
    assert watched is not None
    assert watched.shards.val == shards.train - line.came_with_second.train > shards.train - accepted.train
    assert watched.shards.manifest_uri.endswith("/added-0004-since-0002.json")
