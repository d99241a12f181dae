"""`effnet transfer` as a person starts it, on real pets and digits: a hopeless point, the part, mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkout import REAL_DATA

from infra import store
from infra.services.stack import Addresses
from models.statistics import mcnemar, mean_per_class

pytestmark = [pytest.mark.services, pytest.mark.torchrun]
PETS = REAL_DATA / "transfer" / "oxford-iiit-pet-37x10.tar"
STORAGE = "s3://effnet/transfer"
GRID = [
    "transfer=laptop_kornblith",
    "transfer.recipe.epochs=2",
    "transfer.lr_per_256=[0.1,1e30]",
    "transfer.weight_decay=[0.0001]",
    "transfer.data.val_share=0.5",
]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pets/ in it: the official layout, ten images of each breed."""
    if not PETS.exists():
        pytest.skip("no real images: ../shared/data is absent")
    folder = tmp_path_factory.mktemp("sets")
    (folder / "pets").mkdir()
    subprocess.run(["tar", "-xf", str(PETS), "-C", str(folder / "pets")], check=True)
    return folder


def transfer(services_dir: Path, *words: str, storage: str = STORAGE) -> subprocess.CompletedProcess[str]:
    small = [
        "data.limit=300",
        "recipe.epochs=1",
        f"storage={storage}",
        "experiment=transfer",
        f"run_dir={services_dir}",
    ]
    command = [sys.executable, "-m", "flows", "transfer", *small, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def pets(sets: Path) -> list[str]:
    return ["transfer.sets=[pets]", f"transfer.path={sets}", "transfer.data.allow_partial=true", *GRID]


@pytest.fixture(scope="module")
def tuned(services: Addresses, services_dir: Path, sets: Path) -> subprocess.CompletedProcess[str]:
    done = transfer(services_dir, *pets(sets))
    assert done.returncode == 0, done.stderr
    return done


def part() -> dict[str, Any]:
    found: dict[str, Any] = store.read_json(f"{STORAGE}/reports/laptop/transfer.json")
    return found


def result(job: str) -> dict[str, Any]:
    found: dict[str, Any] = store.read_json(f"{STORAGE}/jobs/{job}/result.json")
    return found


@pytest.mark.slow
def test_the_cost_is_said_before_anything_is_trained(tuned: subprocess.CompletedProcess[str]) -> None:
    lines = tuned.stderr.splitlines()
    [cost] = [number for number, line in enumerate(lines) if "3 jobs, 640 training and" in line]
    assert "epoch" in "".join(lines[cost + 1 :])
    assert "epoch" not in "".join(lines[:cost])


@pytest.mark.slow
def test_a_row_of_the_part_is_the_mean_per_class_of_the_job_s_own_counts_beside_table_5(
    tuned: subprocess.CompletedProcess[str],
) -> None:
    [row] = part()["rows"]
    final = result(row["job"])
    scored = mean_per_class(final["class_correct"], final["class_total"])
    assert (row["metric"], row["value"], row["standard_error"], row["n"]) == (
        "mean per class",
        scored.value,
        scored.standard_error,
        185,
    )
    assert (len(final["class_total"]), min(final["class_total"]) > 0, final["n_minival"]) == (37, True, 0)
    assert f"{row['value']:.2f} ± {row['standard_error']:.2f} % mean per class of 185 test images" in tuned.stdout
    assert (row["network"], row["source"], row["protocol"], row["paper"]) == (
        "efficientnet_b0",
        "pets",
        "kornblith",
        None,  # Table 5 has Pets with B4 and B6
    )
    assert (
        "Oxford-IIIT Pets: not fine-tuned here with Table 5's efficientnet_b4 and efficientnet_b6" in part()["missing"]
    )
    assert (row["params"] - row["feature_params"]) % 37 == 0


@pytest.mark.slow
def test_a_point_that_diverges_ends_alone_and_is_named(tuned: subprocess.CompletedProcess[str]) -> None:
    [row] = part()["rows"]
    good, bad = row["grid"]
    assert (good["lr_per_256"], good["stopped_at_epoch"], good["reason"], good["n"]) == (0.1, None, None, 18)
    assert (bad["lr_per_256"], bad["value"]) == (1e30, None)
    assert "loss" in bad["reason"]
    assert row["chosen"] == {"lr_per_256": 0.1, "weight_decay": pytest.approx(0.0001 / 0.025)}


@pytest.mark.slow
def test_the_same_command_again_trains_nothing_and_says_the_same(
    tuned: subprocess.CompletedProcess[str], services_dir: Path, sets: Path
) -> None:
    before, objects = part()["rows"], store.list_uris(f"{STORAGE}/jobs")
    again = transfer(services_dir, *pets(sets))
    assert again.returncode == 0, again.stderr
    assert "epoch 1/2" not in again.stderr.replace("rate 1e+30", "").partition("go on from")[2]
    after = part()["rows"]
    changing = ("jobs_found", "finished", "grid")
    assert [{k: v for k, v in row.items() if k not in changing} for row in after] == [
        {k: v for k, v in row.items() if k not in changing} for row in before
    ]
    assert {u for u in objects if u.endswith("result.json")} == {
        u for u in store.list_uris(f"{STORAGE}/jobs") if u.endswith("result.json")
    }


@pytest.mark.slow
def test_a_public_network_is_fine_tuned_and_compared_with_random_weights_image_by_image(
    services: Addresses, services_dir: Path
) -> None:
    words = ["transfer.network=efficientnet_lite0", "transfer.resolution=32", "transfer.random_seeds=1", "--json"]
    words += ["transfer.data.limit=400", "transfer.recipe.epochs=1"]
    done = transfer(services_dir, *words, storage="s3://effnet/public")
    assert done.returncode == 0, done.stderr
    [row] = json.loads(done.stdout)
    assert (row["network"], row["resolution"], row["n"]) == ("efficientnet_lite0", 32, 120)
    jobs = {uri.split("/")[-2] for uri in store.list_uris("s3://effnet/public/jobs") if uri.endswith("/result.json")}
    [scratch] = jobs - {row["job"]}
    assert (row["job"].split("-")[0], scratch.split("-")[0]) == ("finetune", "train")
    ours, theirs = (
        np.unpackbits(np.frombuffer(store.read(f"s3://effnet/public/jobs/{job}/val_correct.bin"), np.uint8), count=120)
        for job in (row["job"], scratch)
    )
    lead = row["random_start"]["lead"]
    assert lead["value"] == pytest.approx(100 * (ours.mean() - theirs.mean()))
    assert lead["p"] == pytest.approx(mcnemar(int((ours > theirs).sum()), int((theirs > ours).sum())))
    assert (row["random_start"]["tuned_top1"], row["cost"]["jobs"]) == ([pytest.approx(100 * ours.mean())], 2)
    again = transfer(services_dir, *words, storage="s3://effnet/public")
    assert json.loads(again.stdout)[0]["jobs_found"] == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            ["transfer.sets=[digits,pets]", "transfer.path={sets}"],
            3,
            "pets at {sets}/pets is incomplete: train: 370 of 3,680 images",
        ),
        pytest.param(
            ["transfer.sets=[digits,food101]", "transfer.path={sets}"], 2, "{sets}/food101", marks=pytest.mark.slow
        ),
        pytest.param(["transfer.data.limit=12"], 3, "of 10 classes have no image in", marks=pytest.mark.slow),
        pytest.param(
            ["transfer=kornblith", "transfer.data.limit=200"],
            2,
            "global_batch 256 is larger than the",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_mistake_is_one_clear_line_and_nothing_is_trained(
    words: list[str], code: int, said: str, services: Addresses, services_dir: Path, sets: Path
) -> None:
    before = store.list_uris(f"{STORAGE}/jobs"), store.list_uris(f"{STORAGE}/reports")
    done = transfer(services_dir, *(word.format(sets=sets) for word in words))
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (done.returncode, len(errors)) == (code, 1), done.stderr
    assert said.format(sets=sets) in errors[0]
    assert "Traceback" not in done.stderr
    assert (store.list_uris(f"{STORAGE}/jobs"), store.list_uris(f"{STORAGE}/reports")) == before
