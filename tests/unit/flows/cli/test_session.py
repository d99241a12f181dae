"""What a command refuses before it starts services."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from checkout import ROOT
from made_archives import photo, write_tree
from matrix import with_slow_rest

from conf import compose
from flows.cli import session
from flows.cli.verbs import VERBS
from infra.errors import ArtifactError, ConfigError, TransientError

NOWHERE, EXTERNAL = "s3://bucket", "services.s3=http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("verb", "words", "message"),
    with_slow_rest(
        [
            ("shard", ["data=imagenet"], "data=imagenet needs data.path=FOLDER"),
            ("train", ["data=folder", "data.path=/nonexistent"], "'/nonexistent' does not exist"),
            ("search", ["data=cifar10", "data.path=/nonexistent"], "/nonexistent"),
            ("reproduce", ["data=imagenet"], "data=imagenet needs data.path=FOLDER"),
            ("evaluate", ["data=folder", "data.path=/nonexistent"], "'/nonexistent' does not exist"),
            ("nightly", ["data@transfer.data=folder"], "transfer.data: data=folder needs data.path="),
            ("transfer", ["data@transfer.data=cars"], "transfer.data: data=cars needs data.path=FOLDER"),
            ("train", ["launch.engine=slurm"], "no sbatch on PATH; run this on a login node of the cluster"),
            (
                "train",
                ["launch.engine=slurm", "storage=s3://bucket/a b"],
                "characters that --comment of sbatch does not",
            ),
            ("search", ["launch.engine=kubernetes"], "no cluster is configured"),
            ("search", ["register=b0"], "register is for effnet train, transfer, register, not for effnet search"),
            ("transfer", ["transfer.sets=[foo]"], "transfer.sets: unknown data set 'foo'"),
            ("reproduce", ["transfer.sets=[pets]"], "transfer.sets needs transfer.path=FOLDER"),
            ("gate", [], "the gate checks the training on ImageNet, and the data are mnist5k"),
            ("scaling", ["scaling.points=[]"], "scaling.points is empty"),
            ("linear", [], "linear.networks is empty; use profile=study"),
            ("latency", ["latency.pairs=[{{ours:efficientnet_b9}}]"], "no network named 'efficientnet_b9'; did you"),
            ("study", ["profile=study", "data.path=/nonexistent"], "/nonexistent"),
            (
                "transfer",
                ["profile=study", "model_ref=b0@champion"],
                "transfer.network and model_ref both name the network",
            ),
            ("import", ["published.path=/nonexistent.pth"], "effnet import: no file /nonexistent.pth"),
            ("import", ["published.path=~nobody-here/x.pth"], "effnet import: no file ~nobody-here/x.pth"),
            ("import", ["published.path=https://host/x.pth"], "https://host/x.pth is neither a local file nor s3://"),
            ("import", [f"published.path={Path(__file__).parent}"], f"{Path(__file__).parent} is a folder, not a file"),
            (
                "import",
                ["published.path=hf-hub:timm/tf_efficientnet_b0.aa_in1k"],
                "`hf download timm/tf_efficientnet_b0.aa_in1k --local-dir FOLDER`, then published.path=FOLDER/model",
            ),
            ("import", ["published.path=timm/tf_efficientnet_b0.aa_in1k"], "is a name on the Hugging Face Hub"),
            ("import", ["published.path=file:///nonexistent.pth"], "effnet import: no file file:///nonexistent.pth"),
            (
                "photographs",
                ["photographs.images=[s3://bucket/x.jpg]"],
                "s3://bucket/x.jpg is no path of a local file; download it",
            ),
            (
                "train",
                ["data=webdataset", "data.path=s3://bucket/train-{{000..12.tar"],
                "data.path s3://bucket/train-{000..12.tar: a brace is missing; a range is written {000..123}",
            ),
            (
                "shard",
                ["data=webdataset", "data.path=gs://bucket/0.tar"],
                "data.path 'gs://bucket/0.tar' is neither a local",
            ),
            ("shard", ["data=webdataset", "data.path=s3:///0.tar"], "names no bucket: s3://BUCKET/FOLDER"),
            ("train", ["data=folder", "data.path=~nobody-here"], "data.path '~nobody-here' does not exist"),
            ("import", [f"published.path={__file__}", "published.class_file=/none"], "effnet import: no file /none"),
            ("shard", ["data=webdataset", "data.class_file=/none.txt"], "data.class_file /none.txt does not exist"),
            (
                "gate",
                ["profile=paper", "data.path=/", "gate.weights=[~/tf_efficientnet_b0_aa-1.pth]"],
                f"no file {Path.home()}/tf_",
            ),
            ("shard", ["data=webdataset", "data.path={tmp}"], "names no shards"),
            (
                "shard",
                ["data=webdataset", "data.path={tmp}/a-{{000..002}}.tar"],
                "none of the 3 shards exists, first /.*/a-00",
            ),
            ("train", ["data=webdataset", "data.path={tmp}/a.tar"], "a.tar: no such shard"),
            ("shard", ["data=webdataset", "data.path={tmp}/*.tar"], "names no shards"),
            (
                "shard",
                ["data=webdataset", "data.path={shards}", "data.val_path={tmp}/val.tar"],
                "val.tar: no such shard",
            ),
            (
                "shard",
                ["data=webdataset", "data.path={shards}"],
                "the names of some shards state a split, those of 1 do not",
            ),
            ("shard", ["data=webdataset", "data.path=https://host/a"], "no address of a shard"),
            (
                "shard",
                ["data=webdataset", f"data.path={NOWHERE}/a-{{{{0..9}}}}.tar", EXTERNAL],
                "^s3://bucket/a-0.tar: no usable cred",
            ),
            (
                "shard",
                ["data=webdataset", f"data.path={NOWHERE}/*.tar", EXTERNAL],
                "^s3://bucket: no usable credentials",
            ),
            (
                "train",
                ["data=folder", f"data.path={NOWHERE}/images", EXTERNAL],
                "^s3://bucket/images: no usable credentials for",
            ),
            (
                "shard",
                ["data=imagenet", f"data.path={NOWHERE}", EXTERNAL],
                "^s3://bucket: no usable credentials for ht",
            ),
            ("shard", ["data=folder", "data.path=s3://buc!ket/a", EXTERNAL], "'buc!ket' is no valid name of a bucket"),
            (
                "transfer",
                ["data@transfer.data=folder", f"transfer.data.path={NOWHERE}/images", EXTERNAL],
                "transfer.data: .*no usable credentials",
            ),
            (
                "train",
                ["data.path={tmp}"],
                r"^data.path=/.* would have no effect: data=mnist5k is part of a .*, and data=f",
            ),
            (
                "shard",
                ["data.path=s3://bucket/images"],
                "data=folder reads images of your own, data=webdataset shards of",
            ),
            (
                "reproduce",
                ["data=digits", "data.path={tmp}"],
                "data=digits is part of a Python package, and data=folder",
            ),
            ("transfer", ["data.path={tmp}"], "data=mnist5k is part of a Python package, and data=folder reads images"),
            (
                "nightly",
                ["transfer.data.path={tmp}"],
                r"^transfer.data.path=.* data@transfer.data=folder reads images of",
            ),
            ("gate", ["profile=paper", "data.path=/nonexistent"], "data.path /nonexistent is not a folder"),
            ("linear", ["model=b3"], "model=b3 would have no effect: the networks are those of linear.networks"),
            ("photographs", ["photographs.images=[/nonexistent.png]"], "effnet photographs: no file /nonexistent.png"),
            ("train", ["model.resolution=0.01"], "2 px are too few for efficientnet_b0"),
            ("train", ["recipe.global_batch=63"], "recipe.global_batch 63 cannot be divided into recipe.batch_slices"),
            ("train", ["launch.nproc_per_node=3"], "cannot be distributed evenly over 3 processes"),
            ("scaling", ["scaling.points=[{{network:b0}}]"], "no network named 'b0'; did you mean 'efficientnet_b0'"),
            ("study", ["profile=study", "scaling.points=[{{network:b1}}]"], "no network named 'b1'; did you mean"),
            (
                "explain",
                ["explain.models=[{{network:efficientnet_b9}}]"],
                "no network named 'efficientnet_b9'; did you mean",
            ),
            ("explain", ["explain.models=[{{resolution:0.01}}]"], "px are too few for efficientnet_b0"),
            ("search", ["model.name=b9"], "no network named 'b9'"),
            ("transfer", ["model.name=resnet51"], "no network named 'resnet51'; did you mean 'resnet50'"),
            ("architecture", ["architecture.storage=nosuch://h/x"], "^architecture.storage=nosuch://h/x: Can't load"),
            ("architecture", ["architecture.storage=mysql"], "^architecture.storage=mysql: Could not parse"),
            (
                "architecture",
                ["architecture.storage=postgresql://u:pw@h/x"],
                "architecture.storage must hold no password",
            ),
            ("search", ["search.alpha=[2.5]"], r"no point of the grid has alpha\*beta\^2\*gamma\^2 within"),
        ],
        plain=24,
    ),
)
def test_a_wrong_setting_is_refused_before_services_start(
    verb: str, words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("services started")

    for name in ("connect", "up"):
        monkeypatch.setattr(session.stack, name, refuse)
    for name in ("PATH", "KUBECONFIG", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "absent"))
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    write_tree(tmp_path / "shards", dict.fromkeys(("train-0.tar", "val-0.tar", "other-1.tar"), b""))
    (tmp_path / "empty").mkdir()
    places = {"tmp": tmp_path / "empty", "shards": tmp_path / "shards"}
    overrides = [*(word.format(**places) for word in words), f"run_dir={tmp_path}"]
    with pytest.raises(ConfigError, match=message):
        session.run(verb, compose.compose(overrides), overrides)


@pytest.fixture(scope="module")
def new_process() -> list[str]:
    """What a process shows that checks two commands, and then imports Prefect as a command does."""
    code = (
        "import logging, os, sys; from conf import compose; from flows.cli import session\n"
        "for verb in ('train', 'reproduce'):\n"
        "    session._check_early(verb, compose.compose(['data=digits'])); print(verb, 'prefect' in sys.modules)\n"
        "os.environ.update(session.QUIET)\n"
        "import prefect; from prefect.logging.configuration import setup_logging; setup_logging()\n"
        "print(logging.getLogger('prefect._internal.concurrency').isEnabledFor(logging.ERROR))"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return shown.splitlines()


@pytest.mark.slow
def test_the_early_checks_leave_prefect_to_be_imported_after_its_variables_are_set(new_process: list[str]) -> None:
    assert new_process[:2] == ["train False", "reproduce False"]


@pytest.mark.slow
def test_events_that_a_stopped_prefect_does_not_take_are_not_printed(new_process: list[str]) -> None:
    assert new_process[2:] == ["False"]


@pytest.mark.parametrize("verb", with_slow_rest(["report", "register", "latency"]))
def test_a_command_that_reads_no_data_set_needs_no_path(verb: str) -> None:
    session._check_early(verb, compose.compose(["data=imagenet"]))


def test_an_address_of_another_scheme_is_refused_before_services_start() -> None:
    words = ["data=folder", "data.path=https://example.org/images.zip"]
    with pytest.raises(ConfigError, match=r"images.zip' is neither a local path nor s3://"):
        session._check_early("shard", compose.compose(words))


@pytest.fixture
def folds(tmp_path: Path) -> Path:
    """A folder of images that can be read in two ways."""
    return write_tree(tmp_path / "folds", {f"fold{i}/{label}/1.jpg": photo(i) for i in (1, 2) for label in "ab"})


OPENING = [name for name, verb in VERBS.items() if verb.opens_data]


@pytest.mark.parametrize("verb", with_slow_rest(["reproduce", "transfer", *OPENING], plain=2))
def test_a_folder_that_can_be_read_in_two_ways_is_refused_before_services_start(
    verb: str, folds: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = "transfer.data" if verb == "transfer" else "data"
    group = "data@transfer.data=folder" if verb == "transfer" else "data=folder"
    monkeypatch.setattr("models.networks.packaged.check_networks", lambda _: None)
    words = [group, f"{key}.path={folds}", "transfer.sets=[]"]
    with pytest.raises(ConfigError, match="the folders fold1, fold2 look like numbered parts of one set, not like"):
        session._check_early(verb, compose.compose(words))
    with pytest.raises(ConfigError, match="look like numbered parts of one set"):
        session.check_given_paths(verb, compose.compose(words))
    session.check_given_paths(verb, compose.compose([*words, f"{key}.train_folders=[.]"]))
    assert caplog.text == ""  # the flow says what is unused


@pytest.mark.parametrize("verb", with_slow_rest(["train", "transfer", "search", "reproduce", "linear"], plain=2))
def test_a_folder_of_a_single_class_is_refused_before_services_start(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_tree(tmp_path / "single", {f"cat/{i}.jpg": photo(i) for i in range(4)})
    key, group = ("transfer.data", "data@transfer.data") if verb == "transfer" else ("data", "data")
    monkeypatch.setattr("models.networks.packaged.check_networks", lambda _: None)
    words = [f"{group}=folder", f"{key}.path={root}", "transfer.sets=[]"]
    with pytest.raises(ConfigError, match="folder has a single class; a classifier needs two or more"):
        session._check_early(verb, compose.compose(words))


def test_a_clone_without_its_images_is_refused_before_services_start(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    root = write_tree(tmp_path / "clone", {f"{label}/{i}.jpg": pointer for label in ("cat", "dog") for i in range(9)})
    with pytest.raises(ConfigError, match=r"18 of 18 files would not be used: 18 Git LFS pointer files \(git lfs pull"):
        session._check_early("train", compose.compose(["data=folder", f"data.path={root}"]))


@pytest.mark.parametrize("verb", ["shard", "evaluate"])
def test_images_of_a_single_class_may_be_sharded_and_evaluated(verb: str, tmp_path: Path) -> None:
    root = write_tree(tmp_path / "single", {f"cat/{i}.jpg": photo(i) for i in range(4)})
    session._check_early(verb, compose.compose(["data=folder", f"data.path={root}", "model_ref=pets@champion"]))


@pytest.mark.parametrize("verb", ["reproduce", "transfer"])
def test_a_folder_of_transfer_sets_without_any_set_is_refused(verb: str) -> None:
    config = compose.compose(["profile=laptop", "transfer.path=/sets"])
    with pytest.raises(ConfigError, match=r"transfer\.path=/sets is the folder of transfer\.sets, which names none"):
        session.check_settings(verb, config)


def test_a_plan_opens_no_archive_which_would_be_decompressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images.tar.gz").write_bytes(b"anything")
    monkeypatch.setattr("models.data.sources.catalog.open_source", lambda _: pytest.fail("opened the archive"))
    session.check_given_paths("train", compose.compose(["data=folder", f"data.path={tmp_path}/images.tar.gz"]))


def test_weights_that_cannot_be_read_are_refused_before_services_start(tmp_path: Path) -> None:
    path = tmp_path / "tf_efficientnet_b0_aa-827b6e33.pth"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(ArtifactError, match="is a web page or XML"):
        session._check_early("import", compose.compose([f"published.path={path}"]))


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (["optimizer.bin", "pytorch_model.bin", "random_states_0.pkl", "scheduler.bin"], "pytorch_model.bin"),
        (["snapshots/0a1b/model.safetensors", "snapshots/0a1b/a.bin"], "snapshots/0a1b/model.safetensors"),
        (["checkpoint-500/model.safetensors", "checkpoint-500/optimizer.pt"], "checkpoint-500/model.safetensors"),
    ],
)
def test_of_a_folder_of_weights_the_file_of_the_network_is_named(files: list[str], named: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=f"is a folder, not a file; it has {tmp_path / named}$"):
        session._check_early("import", compose.compose([f"published.path={tmp_path}"]))


def test_a_plan_refuses_an_address_of_which_the_store_has_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose.compose(["data=folder", f"data.path={NOWHERE}/images", EXTERNAL])
    monkeypatch.setattr("infra.store.list_entries", lambda uri, at_most: [])
    monkeypatch.setattr("infra.store.exists", lambda uri: False)
    with pytest.raises(ConfigError, match="there is no object of this name, and none below it"):
        session.check_given_paths("train", config)


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the object store has as ``s3://bucket/images``."""
    root = write_tree(tmp_path / "images", {f"cat/{i}.jpg": photo(i) for i in range(12)})
    monkeypatch.setattr("infra.store.exists", lambda uri: False)
    place = "models.data.sources.catalog.locate"
    monkeypatch.setattr(place, lambda path: f"file://{root}" if path == f"{NOWHERE}/images" else path)
    monkeypatch.setattr("models.data.sources.folders.folder.locate", lambda path: str(root))
    return root


@pytest.mark.parametrize("verb", ["train", "transfer"])
@pytest.mark.usefixtures("remote")
def test_a_remote_folder_of_a_single_class_is_refused_before_services_start(verb: str, tmp_path: Path) -> None:
    key, group = ("transfer.data", "data@transfer.data") if verb == "transfer" else ("data", "data")
    config = compose.compose([f"{group}=folder", f"{key}.path={NOWHERE}/images", EXTERNAL, "transfer.sets=[]"])
    prefix = "" if key == "data" else "transfer.data: "
    with pytest.raises(ConfigError, match=f"^{prefix}folder has a single class; a classifier needs two or more$"):
        session._check_places(verb, config, tmp_path)


def test_a_remote_folder_is_read_early_unless_it_is_large_or_only_sharded(
    remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose.compose(["data=folder", f"data.path={NOWHERE}/images", EXTERNAL])
    assert session._check_places("shard", config, tmp_path)
    monkeypatch.setattr("models.data.sources.catalog._FEW_OBJECTS", 12)
    monkeypatch.setattr("models.data.sources.catalog.open_source", lambda _: pytest.fail("opened"))
    assert session._check_places("train", config, tmp_path)


def test_a_large_folder_is_listed_once_by_its_flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_tree(tmp_path / "images", {f"cat/{i}.jpg": photo(i) for i in range(4)})
    words = ["data=folder", f"data.path={root}"]
    with pytest.raises(ConfigError, match="a single class"):
        session._check_early("train", compose.compose(words))
    monkeypatch.setattr("models.data.sources.catalog._FEW_FILES", 4)  # a folder and four images
    monkeypatch.setattr("models.data.sources.catalog.open_source", lambda _: pytest.fail("opened"))
    session._check_early("train", compose.compose(words))


def test_a_folder_of_new_images_of_one_class_may_be_appended(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "new", {f"cat/{i}.jpg": photo(i) for i in range(4)})
    session._check_early("train", compose.compose(["data=folder", f"data.path={root}", "data.append=true"]))


def test_a_plan_is_made_without_a_store_that_answers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("infra.store.list_entries", mock.Mock(side_effect=TransientError("the store does not answer")))
    session.check_given_paths("train", compose.compose(["data=folder", f"data.path={NOWHERE}/images", EXTERNAL]))
    assert caplog.messages == ["the store does not answer"]


def test_the_images_of_a_night_are_judged_by_its_flow_which_reports_it(folds: Path) -> None:
    words = ["data@transfer.data=folder", f"transfer.data.path={folds}"]
    session._check_early("nightly", compose.compose(words))


def test_data_sets_that_are_installed_or_remote_are_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.data.sources.catalog.open_source", lambda _: pytest.fail("opened"))
    for words in (["data=digits"], ["data=mnist5k"], ["data=imagenet", "data.path=s3://bucket/imagenet"]):
        session._check_early("train", compose.compose(words))


def test_shards_of_a_pattern_are_not_scanned_before_services_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.data.sources.catalog.open_source", lambda _: pytest.fail("opened"))
    (tmp_path / "train-0.tar").write_bytes(b"")
    words = ["data=webdataset", f"data.path={tmp_path}/train-{{0..9}}.tar"]
    session._check_early("train", compose.compose(words))


def test_logs_reach_prefect_before_an_interrupted_command_stops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect's client sends them every two seconds, and at the end of the process for a minute, in vain."""
    done: list[str] = []

    def drain_all(name: str, timeout: float) -> None:
        done.append(f"{name} sent within {timeout:.0f} s")

    def stop(*_: object, only: list[str], **__: object) -> list[str]:
        done.append(f"{only} stopped")
        return only

    def interrupt(flow: Coroutine[Any, Any, Any]) -> None:
        flow.close()
        raise KeyboardInterrupt

    for module, name in (("prefect.logging.handlers", "APILogWorker"), ("prefect.events.worker", "EventsWorker")):
        worker = type(name, (), {"drain_all": staticmethod(partial(drain_all, name))})
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{name: worker}))
    monkeypatch.setitem(sys.modules, "flows.train", SimpleNamespace(train=None))
    for name in ("connect", "check"):
        monkeypatch.setattr(session.stack, name, lambda *_, **__: None)
    monkeypatch.setattr(session.stack, "up", lambda *_, **__: SimpleNamespace(names=["prefect"]))
    monkeypatch.setattr(session.stack, "down", stop)
    monkeypatch.setattr(session.signals, "run_flow", interrupt)
    overrides = ["data=digits", f"run_dir={tmp_path}"]
    with mock.patch.dict("os.environ"), pytest.raises(KeyboardInterrupt):
        session.run("train", compose.compose(overrides), overrides)
    assert done == ["APILogWorker sent within 5 s", "EventsWorker sent within 5 s", "['prefect'] stopped"]
