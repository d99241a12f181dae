"""Flows on real services: what their last steps would refuse ends them before their first job."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
from checkout import ROOT
from made_archives import write_archive
from PIL import Image

from conf.overrides import replace
from infra import store
from infra.services.stack import Addresses
from infra.tracking.client import library

pytestmark = [pytest.mark.services, pytest.mark.torchrun]
STORAGE = "s3://effnet/refused-early"
SMALL = [
    "data=digits",
    "data.limit=300",
    f"storage={STORAGE}",
    "experiment=refused-early",
    "variants=[efficientnet_b0]",
]


@pytest.fixture(scope="module")
def lacking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images whose val lacks a class of train: enough for training, too little for transfer."""
    return write_images(tmp_path_factory.mktemp("lacking"), {"train/cat": 20, "train/dog": 20, "val/cat": 4})


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images of one class."""
    return write_images(tmp_path_factory.mktemp("single"), {"cat": 60})


@pytest.fixture(scope="module")
def remote(single: Path, services: Addresses) -> str:
    """The same folder in the object store."""
    uri = "s3://effnet-single/images"
    store.ensure_root(uri)
    for path in single.rglob("*.png"):
        store.upload(path, f"{uri}/{path.relative_to(single)}")
    return uri


@pytest.fixture(scope="module")
def shards(single: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images as a WebDataset shard."""
    members = [
        (f"{path.stem}.{end}", path.read_bytes() if end == "png" else b"3")
        for path in single.rglob("*.png")
        for end in ("cls", "png")
    ]
    return write_archive(tmp_path_factory.mktemp("shards") / "0.tar", members)


@pytest.fixture(scope="module")
def theirs(services: Addresses) -> str:
    """A registered model that effnet did not make."""
    client = library().MlflowClient()
    client.create_registered_model("theirs")
    client.create_model_version("theirs", "s3://elsewhere/model")
    return services.mlflow


def write_images(root: Path, folders: dict[str, int]) -> Path:
    noise = np.random.default_rng(0)
    for folder, count in folders.items():
        (root / folder).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(noise.integers(0, 255, (32, 32, 3), np.uint8)).save(root / folder / f"{number}.png")
    return root


SLOW = pytest.mark.slow
TO_LACKING = ["data@transfer.data=folder", "transfer.data.path={lacking}"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ["shard", "data=folder", "data.path=s3://nowhere/images"],
            2,
            "s3://nowhere/images: there is no bucket 'nowhere' at",
        ),
        pytest.param(["reproduce", "explain.images=[9999]"], 2, "digits: val has no image 9999", marks=SLOW),
        pytest.param(
            ["reproduce", "explain.models=[{registered:nobody@champion}]"],
            2,
            "no registered model 'nobody'",
            marks=SLOW,
        ),
        pytest.param(["reproduce", "photographs.images=[/nowhere.jpg]"], 2, "no file /nowhere.jpg", marks=SLOW),
        (["reproduce", *TO_LACKING], 3, "classes have no image in test: dog"),
        pytest.param(["transfer", *TO_LACKING], 3, "classes have no image in test: dog", marks=SLOW),
        pytest.param(["transfer", "transfer.sets=[digits,digits]"], 2, "repeated data set 'digits'", marks=SLOW),
        pytest.param(["transfer", "model_ref=nobody@champion"], 2, "no registered model 'nobody'", marks=SLOW),
        pytest.param(
            ["transfer", "data@transfer.data=digits", "transfer.recipe.global_batch=4096"],
            2,
            "recipe.global_batch 4096 is larger than the",
            marks=SLOW,
        ),
        pytest.param(["train", "register=my model"], 2, "register must be 1 to 63 of", marks=SLOW),
        (["train", "data=folder", "data.name=one", "data.path={single}"], 2, "one has a single class"),
        (["train", "data=folder", "data.name=one", "data.path={remote}"], 2, "one has a single class"),
        pytest.param(
            ["train", "data=webdataset", "data.name=one", "data.path={shards}"], 2, "one has a single class", marks=SLOW
        ),
        pytest.param(["train", "register=theirs"], 2, "MLflow has a model theirs that is not effnet's", marks=SLOW),
        pytest.param(["transfer", "register=theirs"], 2, "MLflow has a model theirs that is not effnet's", marks=SLOW),
        pytest.param(["register", "no-such-job"], 2, "no-such-job", marks=SLOW),
        pytest.param(["evaluate", "model_ref=nobody@champion"], 2, "no registered model 'nobody'", marks=SLOW),
        pytest.param(["report"], 2, "nothing to report", marks=SLOW),
    ],
)
@pytest.mark.usefixtures("theirs")
def test_what_a_last_step_refuses_is_refused_before_the_first_job(
    services_dir: Path,
    lacking: Path,
    single: Path,
    remote: str,
    shards: Path,
    words: list[str],
    code: int,
    message: str,
) -> None:
    places = {"{lacking}": lacking, "{single}": single, "{remote}": remote, "{shards}": shards}
    verb, *given = [reduce(lambda text, key: text.replace(key, str(places[key])), places, word) for word in words]
    argv = [sys.executable, "-m", "flows", verb, *replace(SMALL, [*given, f"run_dir={services_dir}"])]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    last = ended.stderr.splitlines()[-1]
    assert (ended.returncode, message in last) == (code, True), ended.stderr
    assert "Traceback" not in ended.stderr
    assert store.list_uris(f"{STORAGE}/jobs") == []
    if "single class" in message:
        assert not any(uri.endswith("manifest.json") for uri in store.list_uris(f"{STORAGE}/data/{last.split()[1]}"))
