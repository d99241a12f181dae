"""Which version becomes champion, with a real MLflow: results are made up, networks are as small as they can be."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from made_set import write_set
from torch import nn

from conf import compose, schema
from conf.data_set import EvalTransform
from infra import store
from infra.errors import ArtifactError, ConfigError
from infra.services.stack import Addresses
from infra.tracking import champions, registration, registry, runs
from infra.tracking import client as mlflow_client
from infra.tracking.registry import CONFIG, WEIGHTS
from models.data.shards import manifest as manifests
from models.networks import export
from models.networks.description import config_json
from models.results import EvalResult, Registered, ShardResult, TrainResult
from models.training import per_image
from tasks import classes
from tasks.nights.approval import _refuse_overdue
from tasks.nights.infra_gate import PackageTrial, _try_package
from tasks.registry import verdict
from tasks.registry.promote import _judge_step, _refuse, champion_if_first
from tasks.registry.register import _fetch, _register
from tasks.registry.verdict import FIRST_TAGS

pytestmark = pytest.mark.services
N, SIDE = 120, 32
LIMITS = schema.Nightly()
GOOD, BETTER, WORSE = 95, 110, 4  # images of 120 that are right


@pytest.fixture(scope="module")
def storage(mlflow_uri: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"file://{tmp_path_factory.mktemp('promote')}"


@functools.cache
def data(storage: str, name: str = "made", classes: str = "class") -> ShardResult:
    """A data set; another ``classes`` renames the classes, another ``name`` is another night's images."""
    made = write_set(f"{storage}/data/{name}", {"train": [8], "minival": [8], "val": [N]})
    names = tuple(f"{classes} {i}" for i in range(10))
    sha256 = manifests.save(replace(made.manifest, name=name, classes=names), f"{storage}/data/{name}")
    return ShardResult(name, made.uri, sha256, 10, 8, 8, N, 3, False)


def answers(right: int) -> np.ndarray:
    return np.arange(N) < right


def job(storage: str, key: str, right: int, weights: bytes = b"") -> dict[str, Any]:
    """A finished job's run folder, and what its result says."""
    uri = f"{storage}/jobs/{key}"
    store.write(f"{uri}/weights.safetensors", weights)
    result = {
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "top1": 100 * right / N,
        "class_total": [N],
        "correct_sha256": per_image.write(uri, answers(right)),
        "class_correct": [right],
    }
    store.write_json(f"{uri}/result.json", result)
    return result


def registered(ref: str) -> tuple[str, str]:
    """Digest-named weights of a version in the store of the test."""
    version = registry.resolve_version(ref)
    job_uri = version.tags["job_uri"]
    return f"{job_uri}/weights.safetensors", store.read_json(f"{job_uri}/result.json")["weights_sha256"]


def match(storage: str, ref: str, shards: ShardResult) -> tuple[str, str]:
    return classes._match_classes(registered(ref), ref, shards, storage)[0]


class Small(nn.Sequential):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool, self.flat = nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.classifier = nn.Linear(4, 10)


def made_version(
    storage: str, name: str, seed: int, right: int, shards: ShardResult, folder: Path, **tags: str
) -> Registered:
    """A version as ``register`` leaves it, of a network that packs in a second."""
    torch.manual_seed(seed)
    network = Small().eval()
    export.save_weights(network.state_dict(), folder / WEIGHTS)
    key = f"{name}-{seed}"
    job(storage, key, right, (folder / WEIGHTS).read_bytes())
    names = manifests.load(shards.manifest_uri)[1].classes
    described = config_json(
        schema.Model(), resolution=SIDE, class_names=names, mean=[0.5], std=[0.2], transform=EvalTransform(0)
    )
    (folder / CONFIG).write_text(described)
    images = export.example(SIDE)
    version = registration.register(
        runs.start_run("promote", key, key, params={}, tags={}),
        name,
        load=lambda: registration.Loaded(network, images, export.logits(network, images)),
        files=folder,
        tags={"data_manifest_sha256": shards.manifest_sha256, "job_uri": f"{storage}/jobs/{key}", **tags},
        first_tags=FIRST_TAGS,
    )
    champions.move_challenger(storage, name, version.version, "registered")
    aliases = registry.resolve_version(f"{name}/{version.version}").aliases
    return Registered(name, version.version, aliases, version.reused)


def chain(shards: ShardResult) -> str:
    """The storage of the audit chain."""
    return shards.manifest_uri.partition("/data/")[0]


def judge(version: Registered, shards: ShardResult, **evaluations: EvalResult) -> Registered:
    judged = _judge_step(
        version, shards, chain(shards), LIMITS, {ref.replace("__", "/"): e for ref, e in evaluations.items()}
    )
    assert isinstance(judged, Registered), judged
    return judged


FIRST = "79.17 % of 120 images (95 % interval 71.90 to 86.43): promoted, there was no champion"  # GOOD


def champion(name: str) -> int | None:
    found = registry.champion(name)
    return None if found is None else found.version


def evaluated(storage: str, ref: str, right: int) -> EvalResult:
    """The result of an evaluation job of another night's images."""
    result = job(storage, f"evaluate-{ref.replace('/', '-v')}", right)
    uri = f"{storage}/jobs/evaluate-{ref.replace('/', '-v')}"
    return EvalResult("key", ref, "made", 0.0, 0.0, N, (right,), (N,), result["correct_sha256"], uri)


def test_the_first_is_champion_a_worse_one_is_not_and_a_better_one_is_with_both_numbers_on_it(
    storage: str, tmp_path: Path
) -> None:
    shards = data(storage)
    first = judge(made_version(storage, "steps", 0, GOOD, shards, tmp_path), shards)
    assert (first.aliases, first.verdict) == (("challenger", "champion"), FIRST)
    worse = judge(made_version(storage, "steps", 1, WORSE, shards, tmp_path), shards)
    assert worse.aliases == ("challenger",)
    assert "challenger 3.33 %, champion 79.17 % of the same 120 images" in worse.verdict
    assert "(nightly.chance_margin); to promote it anyway: effnet promote steps/2 --why TEXT" in worse.verdict
    tie = judge(made_version(storage, "steps", 2, GOOD, shards, tmp_path), shards)
    assert tie.aliases == ("challenger",)
    assert champion("steps") == 1
    better = judge(made_version(storage, "steps", 3, BETTER, shards, tmp_path), shards)
    assert better.aliases == ("challenger", "champion")
    assert better.verdict.startswith("challenger 91.67 %, champion 79.17 % of the same 120 images, difference +12.50 (")
    tags = registry.resolve_version("steps@champion").tags
    assert (tags["promotion"], tags["promotion_reason"], tags["compared_with"]) == ("promoted", better.verdict, "1")
    assert registry.resolve_version("steps/2").tags["promotion"] == "refused"
    assert registry.resolve_version("steps/3").tags["promotion"] == "tied"


def test_a_better_version_whose_probabilities_are_far_off_is_refused(storage: str, tmp_path: Path) -> None:
    shards = data(storage)
    labels = manifests.Samples(manifests.load(shards.manifest_uri)[1], ["val"]).rows["label"]

    def with_answers(seed: int, right: int, probability: float) -> Registered:
        version = made_version(storage, "sure", seed, right, shards, tmp_path)
        uri = f"{storage}/jobs/sure-{seed}"
        made = np.zeros(N, per_image.ANSWER)
        made["label"], made["probability"] = np.where(answers(right), labels, labels + 1), probability
        sha256 = per_image.write_answers(uri, made)
        store.write_json(f"{uri}/result.json", store.read_json(f"{uri}/result.json") | {"answers_sha256": sha256})
        return version

    judge(with_answers(0, GOOD, GOOD / N), shards)
    refused = judge(with_answers(1, BETTER, 0.3), shards)
    assert (refused.outcome, champion("sure")) == ("refused", 1)
    assert (
        "its calibration error of 61.67 % exceeds the champion's 0.00 % by 61.67 points, 5 are allowed"
        in refused.verdict
    )
    assert judge(with_answers(2, BETTER, BETTER / N), shards).outcome == "promoted"


def test_a_first_version_at_chance_is_refused_and_the_next_good_one_is_the_first_champion(
    storage: str, tmp_path: Path
) -> None:
    shards = data(storage)
    junk = judge(made_version(storage, "junk", 0, WORSE, shards, tmp_path), shards)
    assert (junk.aliases, champion("junk")) == (("challenger",), None)
    assert junk.verdict.startswith("not promoted, and there is no champion: of 120 images, 3.33 % is not more than 5")
    assert registry.resolve_version("junk/1").tags["promotion"] == "refused"
    good = judge(made_version(storage, "junk", 1, GOOD, shards, tmp_path), shards)
    assert (good.verdict, champion("junk")) == (FIRST, 2)


def test_a_version_that_another_process_cannot_load_is_refused_and_not_tried_again(
    storage: str, tmp_path: Path
) -> None:
    shards = data(storage)
    version = made_version(storage, "broken", 0, BETTER, shards, tmp_path)  # its config.json describes another network
    fault = _try_package("broken", 1, LIMITS).fault
    assert fault is not None
    assert "weights.safetensors does not fit" in fault
    judged = _refuse(version, fault)
    assert (judged.outcome, champion("broken")) == ("refused", None)
    assert judged.verdict.startswith("not promoted: weights.safetensors does not fit")
    assert _try_package("broken", 1, LIMITS) == PackageTrial()
    assert judge(version, shards).verdict.startswith("judged before: not promoted: weights.safetensors does not fit")


def test_a_champion_that_was_put_back_by_hand_stays_when_the_same_result_is_found_again(
    storage: str, tmp_path: Path
) -> None:
    shards = data(storage)
    judge(made_version(storage, "rolled-back", 0, GOOD, shards, tmp_path), shards)
    judge(made_version(storage, "rolled-back", 1, BETTER, shards, tmp_path), shards)
    assert champion("rolled-back") == 2
    registry.promote("rolled-back", 1, registry.CHAMPION)
    again = judge(made_version(storage, "rolled-back", 1, BETTER, shards, tmp_path), shards)
    assert (again.version, again.reused, champion("rolled-back")) == (2, True, 1)
    assert again.verdict.startswith("judged before: challenger 91.67 %")
    # What comes next is compared with the version that was put back, and does not bring back the one that was not.
    third = judge(made_version(storage, "rolled-back", 2, BETTER - 2, shards, tmp_path), shards)
    assert third.version == champion("rolled-back") == 3


@pytest.mark.slow
def test_with_approval_a_better_version_waits_until_a_user_promotes_it_or_its_time_is_over(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, services_dir: Path
) -> None:
    shards = data(storage)
    judge(made_version(storage, "approved", 0, GOOD, shards, tmp_path), shards)
    better, late = (made_version(storage, "approved", seed, BETTER, shards, tmp_path) for seed in (1, 2))
    limits = schema.Nightly(approval=True, approval_days=2)
    for version in (better, late, better):
        waits = _judge_step(version, shards, storage, limits, {})
        assert isinstance(waits, Registered)
        assert (waits.outcome, champion("approved")) == ("waiting", 1)
    first = _judge_step(made_version(storage, "approved-first", 3, GOOD, shards, tmp_path), shards, storage, limits, {})
    assert isinstance(first, Registered)
    assert (first.outcome, champion("approved-first")) == ("waiting", None)
    assert first.verdict.startswith(f"{FIRST.replace('promoted', 'passed the gate')}; it waits for approval until ")
    assert "of the same 120 images" in waits.verdict
    assert ": passed the gate; it waits for approval until " in waits.verdict
    assert waits.verdict.endswith("; to promote it: effnet promote approved/2 --why TEXT")

    words = ["promote", "approved/2", "--why", "tried", f"storage={storage}", f"run_dir={services_dir}"]
    done = subprocess.run([sys.executable, "-m", "flows", *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (champion("approved"), registry.resolve_version("approved/2").tags["promotion"]) == (2, "promoted")
    assert champions.read_history(storage, "approved")[-1].evidence["compared_n"] == "120"

    sent: list[str] = []
    monkeypatch.setattr("tasks.nights.alerts.send", lambda _, text: sent.append(text))
    for days, alerts in ((1, 0), (3, 1), (4, 1)):
        _refuse_overdue("approved", compose.compose([]), time.time() + days * 86400)
        assert len(sent) == alerts
    tags = registry.resolve_version("approved/3").tags
    assert (tags["promotion"], champion("approved")) == ("refused", 2)
    assert tags["promotion_reason"].startswith("not promoted, nobody approved it in time: challenger 91.67 %")
    assert "refused: approved/3: not promoted, nobody approved it in time: " in sent[0]


def test_a_version_that_was_found_again_and_never_judged_is_left_as_it_is(storage: str, tmp_path: Path) -> None:
    """As those are that were registered before verdicts were kept."""
    shards = data(storage)
    version = made_version(storage, "old", 0, GOOD, shards, tmp_path)
    client = mlflow_client.library().MlflowClient(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
    client.delete_model_version_tag("old", "1", verdict.STATE)
    assert judge(version, shards).verdict.startswith("judged before: registered before promotions were recorded")
    assert champion("old") is None


def test_a_registration_that_ended_before_its_verdict_is_judged_by_the_next(storage: str, tmp_path: Path) -> None:
    shards = data(storage)
    made_version(storage, "interrupted", 0, GOOD, shards, tmp_path)
    again = made_version(storage, "interrupted", 0, GOOD, shards, tmp_path)
    assert again.reused
    assert judge(again, shards).aliases == ("challenger", "champion")


def test_a_bad_night_is_compared_with_the_champion_on_the_new_images_and_refused(storage: str, tmp_path: Path) -> None:
    yesterday, today = data(storage), data(storage, "today")
    judge(made_version(storage, "night", 0, GOOD, yesterday, tmp_path), yesterday)
    poisoned = made_version(storage, "night", 1, WORSE, today, tmp_path)
    assert _judge_step(poisoned, today, chain(today), LIMITS, {}) == (
        "night/1",
    )  # only the champion has not answered these images
    judged = judge(poisoned, today, night__1=evaluated(storage, "night/1", GOOD - 3))
    assert judged.aliases == ("challenger",)
    assert "challenger 3.33 %, champion 76.67 % of the same 120 images" in judged.verdict
    assert champion("night") == 1
    good = made_version(storage, "night", 2, BETTER, today, tmp_path)
    judged = judge(good, today, night__1=evaluated(storage, "night/1", GOOD - 3))
    assert "difference +15.00" in judged.verdict
    assert champion("night") == 3


def test_results_of_before_there_were_bits_are_evaluated_again(storage: str, tmp_path: Path) -> None:
    shards = data(storage)
    judge(made_version(storage, "bits", 0, GOOD, shards, tmp_path), shards)
    second = made_version(storage, "bits", 1, BETTER, shards, tmp_path)
    for seed in (0, 1):
        uri = f"{storage}/jobs/bits-{seed}/result.json"
        store.write_json(uri, {k: v for k, v in store.read_json(uri).items() if k != "correct_sha256"})
    assert _judge_step(second, shards, chain(shards), LIMITS, {}) == ("bits/2", "bits/1")
    evaluations = {f"bits__{i}": evaluated(storage, f"bits/{i}", right) for i, right in ((1, GOOD), (2, BETTER))}
    assert judge(second, shards, **evaluations).aliases == ("challenger", "champion")


def test_a_champion_of_other_classes_stays_and_the_user_hears_how_to_promote(storage: str, tmp_path: Path) -> None:
    cats, dogs = data(storage, "cats", "cat"), data(storage, "dogs", "dog")
    judge(made_version(storage, "pets", 0, GOOD, cats, tmp_path), cats)
    judged = judge(made_version(storage, "pets", 1, BETTER, dogs, tmp_path), dogs)
    assert judged.aliases == ("challenger",)
    assert "the champion, version 1, cannot be compared on dogs: class 0 is 'cat 0' in the model" in judged.verdict
    assert "to promote it anyway: effnet promote pets/2 --why TEXT" in judged.verdict
    with pytest.raises(
        ConfigError, match=r"^pets/1 was trained on other classes than those of dogs: class 0 is 'cat 0'"
    ):
        match(storage, "pets/1", dogs)
    assert match(storage, "pets/2", dogs) == registered("pets/2")


@pytest.mark.parametrize("rows", [[3, 1, 2, 0, 4, 5, 6, 7, 8, 9], [7, 2]])
def test_classes_in_another_order_or_a_part_of_them_are_matched_by_name(
    rows: list[int], storage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"order-{len(rows)}"
    shards, other = data(storage), data(storage, name)
    body = manifests.load(other.manifest_uri)[1]
    names = tuple(f"class {row}" for row in rows)
    body.table["label"] %= len(rows)
    manifests.save(replace(body, classes=names), other.manifest_uri.rpartition("/")[0])
    made_version(storage, name, 0, GOOD, shards, tmp_path)
    with caplog.at_level("INFO", "effnet"):
        uri, sha256 = match(storage, f"{name}/1", other)
    matched = safetensors.torch.load(store.read(uri))["classifier.weight"]
    whole = safetensors.torch.load(store.read(registered(f"{name}/1")[0]))["classifier.weight"]
    assert torch.equal(matched, whole[rows])
    assert hashlib.sha256(store.read(uri)).hexdigest() == sha256
    said = "the same classes in another order" if len(rows) == 10 else "2 of its 10 classes"
    assert f"{name} has {said}; they are matched by name" in caplog.text
    version = registry.resolve_version(f"{name}/1")
    assert (classes.class_mismatch(version, other) is None) == (len(rows) == 10)  # a champion keeps all its classes


@pytest.mark.slow
def test_effnet_evaluate_refuses_a_data_set_with_other_classes_before_any_job(
    services: Addresses, services_dir: Path, storage: str, tmp_path: Path
) -> None:
    made_version(storage, "strangers", 0, GOOD, data(storage), tmp_path)
    words = [
        "model_ref=strangers/1",
        "data=digits",
        "data.limit=100",
        f"storage={storage}/cli",
        f"run_dir={services_dir}",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "flows", "evaluate", *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2, done.stderr
    said = "strangers/1 was trained on other classes than those of digits: class 0 is 'class 0' in the model and '0' in"
    assert said in done.stderr.splitlines()[-1]
    assert not store.list_uris(f"{storage}/cli/jobs/")


def test_imported_weights_have_classes_without_names_which_is_said(
    storage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shards, numbered = data(storage), replace(data(storage, "numbers", "n"))
    body = manifests.load(numbered.manifest_uri)[1]
    manifests.save(replace(body, classes=tuple(map(str, range(10)))), numbered.manifest_uri.rpartition("/")[0])
    made_version(storage, "imported", 0, GOOD, numbered, tmp_path, source_sha256="12")
    with caplog.at_level("INFO", "effnet"):
        assert match(storage, "imported/1", shards) == registered("imported/1")
    assert "imported/1: class names unknown: assumed in the order of made" in caplog.text
    part = data(storage, "two-numbers")
    body = manifests.load(part.manifest_uri)[1]
    body.table["label"] %= 2
    manifests.save(replace(body, classes=("3", "7")), part.manifest_uri.rpartition("/")[0])
    with pytest.raises(ConfigError, match=r"the model has 10 classes, the data 2; only the data has '3', '7'"):
        match(storage, "imported/1", part)
    made_version(storage, "digits", 0, GOOD, numbered, tmp_path)  # trained on classes that are called 0 to 9
    with pytest.raises(ConfigError, match=r"class 0 is '0' in the model and 'class 0' in the data"):
        match(storage, "digits/1", shards)


def test_an_import_is_champion_only_of_a_name_that_has_none(storage: str, tmp_path: Path) -> None:
    shards = data(storage)
    for seed, expected in ((0, ("challenger", "champion")), (1, ("challenger",))):
        made = made_version(storage, "public", seed, GOOD, shards, tmp_path)
        judged = champion_if_first(registry.resolve_version(f"public/{made.version}"), storage)
        assert judged.aliases == expected
    assert "version 1 is champion, and imported weights are not compared with it" in judged.verdict


def test_what_was_trained_without_a_part_of_its_data_is_never_champion(storage: str, tmp_path: Path) -> None:
    shards = data(storage)
    judged = judge(made_version(storage, "partial", 0, BETTER, shards, tmp_path, left_out_samples="8"), shards)
    assert "trained without 8 samples of its data" in judged.verdict
    assert champion("partial") is None


def test_weights_that_were_damaged_after_the_training_are_not_registered(storage: str, tmp_path: Path) -> None:
    shards = data(storage)
    judge(made_version(storage, "damaged", 0, GOOD, shards, tmp_path), shards)
    written = job(storage, "flipped", BETTER, (tmp_path / WEIGHTS).read_bytes())
    file = Path(f"{storage}/jobs/flipped/weights.safetensors".removeprefix("file://"))
    data_bytes = bytearray(file.read_bytes())
    data_bytes[-9] ^= 1
    file.write_bytes(data_bytes)
    uri = f"{storage}/jobs/flipped"
    result = TrainResult(
        "flipped",
        uri,
        "m",
        1,
        1,
        SIDE,
        10,
        1,
        1,
        91.7,
        99.0,
        N,
        0.0,
        0,
        1.0,
        1.0,
        f"{uri}/weights.safetensors",
        written["weights_sha256"],
    )
    with pytest.raises(ArtifactError, match=r"jobs/flipped/weights\.safetensors is damaged: sha256") as caught:
        _register("damaged", result, schema.Model(), schema.Data(), shards.manifest_uri, chain(shards))
    assert caught.value.exit_code == 5
    assert "\n" not in str(caught.value)
    assert [version.version for version in registry.versions("damaged")] == [1]
    assert champion("damaged") == 1


def test_a_damaged_object_under_the_weights_digest_is_written_again(storage: str, tmp_path: Path) -> None:
    made_version(storage, "fetched", 0, GOOD, data(storage), tmp_path)
    sha256 = registry.resolve_version("fetched/1").tags["weights_sha256"]
    store.write(f"{storage}/weights/{sha256}.safetensors", b"damaged")
    _, (uri, digest), _ = _fetch("fetched/1", storage)
    assert hashlib.sha256(store.read(uri)).hexdigest() == digest == sha256


def test_weights_that_the_store_has_are_not_read_from_the_registry(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_version(storage, "fetched-twice", 0, GOOD, data(storage), tmp_path)
    first = _fetch("fetched-twice/1", storage)
    monkeypatch.setattr(registry, "fetch_weights", lambda *_: pytest.fail("downloaded again"))
    assert _fetch("fetched-twice/1", storage) == first


def test_a_better_one_that_was_promoted_between_look_and_write_stays_champion(
    storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = data(storage)
    judge(made_version(storage, "raced", 0, GOOD, shards, tmp_path), shards)
    ours = made_version(storage, "raced", 1, BETTER - 5, shards, tmp_path)
    theirs = made_version(storage, "raced", 2, BETTER, shards, tmp_path)
    move, moves = champions.move_champion, []

    def delayed(storage: str, name: str, new: int, **options: Any) -> champions.AliasMove | None:
        moves.append(new)
        if moves == [2]:
            judge(theirs, shards)  # from beginning to end while our write is on its way
        return move(storage, name, new, **options)

    monkeypatch.setattr(champions, "move_champion", delayed)
    judged = judge(ours, shards)
    assert moves == [2, 3]
    assert champion("raced") == 3
    assert "challenger 87.50 %, champion 91.67 %" in judged.verdict
    tags = registry.resolve_version("raced/2").tags
    assert (tags["promotion"], tags["compared_with"]) == ("refused", "3")
    assert [(entry.old, entry.new) for entry in champions.read_history(storage, "raced")] == [(None, 1), (1, 3)]


def test_a_promotion_that_was_interrupted_after_the_alias_moved_is_completed(storage: str, tmp_path: Path) -> None:
    shards = data(storage)
    judge(made_version(storage, "half", 0, GOOD, shards, tmp_path), shards)
    second = made_version(storage, "half", 1, BETTER, shards, tmp_path)
    judge(second, shards)
    registry.set_tags("half", 2, {verdict.STATE: verdict.PENDING})
    assert judge(second, shards).verdict.startswith("challenger 91.67 %")
    assert registry.resolve_version("half/2").tags["promotion"] == "promoted"
    assert len(champions.read_history(storage, "half")) == 2


RACER = """
import json, sys
from conf import schema
from models.results import Registered, ShardResult
from tasks.registry.promote import _judge_step
from infra.tracking import registry
shards, version, storage = ShardResult(**json.loads(sys.argv[1])), int(sys.argv[2]), sys.argv[3]
registry.champion("crowd")  # everything is imported
print("ready", flush=True)
sys.stdin.readline()
_judge_step(Registered("crowd", version, ()), shards, storage, schema.Nightly(), {})
"""


@pytest.fixture
def racers(storage: str, tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    shards = data(storage)
    rights = [GOOD, GOOD + 10, BETTER + 8, GOOD + 5]
    versions = [made_version(storage, "crowd", i, right, shards, tmp_path) for i, right in enumerate(rights)]
    facts = json.dumps(vars(shards))
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, facts, str(each.version), storage],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for each in versions
    ]
    yield started
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_of_four_processes_that_promote_at_once_the_best_is_champion(racers: list[subprocess.Popen[str]]) -> None:
    for process in racers:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in racers:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in racers:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    assert champion("crowd") == 3
    states = {version.version: version.tags["promotion"] for version in registry.versions("crowd")}
    assert states[3] == "promoted"
    assert set(states.values()) <= {"promoted", "refused", "tied"}
