"""The whole flow on real services at a small size, as a person starts it; then what lies in S3, Prefect, MLflow."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient

from conf import overrides
from infra import store
from infra.services.stack import Addresses
from infra.tracking.client import library
from models.data.shards import manifest as manifests

pytestmark = [pytest.mark.services, pytest.mark.torchrun]

SMALL = [
    "variants=[efficientnet_b0,efficientnet_b1]",
    "data.limit=600",
    "transfer.data.limit=300",
    "recipe.epochs=2",
    "search.recipe.epochs=1",
    "explain.recipe.epochs=1",
    "explain.models=[{},{width:2.0}]",
    "transfer.recipe.epochs=1",
    "nightly.chance_margin=-100",  # trained for a minute
    "search.alpha=[1.2,1.4]",
    "search.beta=[1.1,1.2]",
    "search.gamma=[1.0,1.15]",
    "storage=s3://effnet/e2e",
    "experiment=e2e",
]


def effnet(run_dir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows", *overrides.replace(words, [f"run_dir={run_dir}"])]
    return subprocess.run(command, capture_output=True, text=True, timeout=420)


@pytest.fixture(scope="module")
def reproduced(services: Addresses, services_dir: Path) -> subprocess.CompletedProcess[str]:
    done = effnet(services_dir, "reproduce", *SMALL)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def summary(reproduced: subprocess.CompletedProcess[str], services_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((services_dir / "latest" / "summary.json").read_text())
    return found


def test_a_good_run_prints_no_warning_and_ends_with_the_result_block(
    reproduced: subprocess.CompletedProcess[str],
) -> None:
    text = reproduced.stdout + reproduced.stderr
    for word in ("Warning", "warning", "Traceback", "deprecat", "ERROR", "guessed"):
        assert word not in text
    assert reproduced.stderr.index("all of it takes about ") < reproduced.stderr.index("step "), "known from the start"
    for word in ("efficientnet_b1", "report.html", "Prefect", "MLflow", "S3", "effnet down"):
        assert word in reproduced.stdout


def test_the_shards_in_the_store_are_plain_webdataset_and_match_the_manifest(
    summary: dict[str, Any], tmp_path: Path
) -> None:
    facts = {d["name"]: d for d in summary["data"]}["mnist5k"]
    assert facts["train"] + facts["minival"] + facts["val"] == 600
    _, manifest = manifests.load(facts["manifest_uri"])
    labels = []
    for shard in manifest.shards:
        store.download(store.join(facts["manifest_uri"].rpartition("/")[0], shard.name), tmp_path / shard.name)
        code = (
            "import sys, webdataset as wds; samples = wds.WebDataset(sys.argv[1], shardshuffle=False).decode('pil');"
            "print(*[label for image, label in samples.to_tuple('jpg', 'cls') if image.size == (28, 28)])"
        )
        argv = [sys.executable, "-c", code, str(tmp_path / shard.name)]
        labels += [int(word) for word in subprocess.check_output(argv, text=True).split()]
    assert labels == manifest.table["label"].tolist()


def test_every_job_has_its_checkpoint_weights_and_result_in_the_store(summary: dict[str, Any]) -> None:
    uris = store.list_uris("s3://effnet/e2e/jobs")
    jobs = {uri.split("/")[5] for uri in uris}
    assert len(jobs) == 2 + 2 + 2 + 2  # trials, variants, transfers, maps
    for job in jobs:
        names = {uri.partition(f"/{job}/")[2] for uri in uris if f"/{job}/" in uri}
        assert {"config.yaml", "status.json", "metrics.jsonl", "result.json", "weights.safetensors"} <= names
        assert any(name.startswith("checkpoints/step-") for name in names)


def test_mlflow_has_one_run_a_job_with_parameters_metrics_and_its_parent(summary: dict[str, Any]) -> None:
    client = library().MlflowClient()
    run = client.get_run(summary["variants"][0]["mlflow_run"])
    assert run.info.status == "FINISHED"
    assert run.data.params["recipe.epochs"] == "2"
    assert run.data.tags["data_manifest_sha256"] == summary["data"][0]["manifest_sha256"]
    assert "mlflow.source.git.commit" in run.data.tags
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert [m.step for m in losses] == [*range(1, 13)]
    history = client.get_metric_history(run.info.run_id, "minival/top1")
    assert [m.step for m in history] == [6, 12]  # 420 training images, 64 a step, two epochs
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert parent.data.tags["role"] == "reproduce"
    experiment = client.get_experiment_by_name("e2e")
    assert experiment is not None
    description = parent.data.tags["mlflow.note.content"]
    assert "[networks side by side](#/compare-runs?runs=" in description
    assert summary["variants"][1]["mlflow_run"] in description
    # Reproduction, search, maps, jobs, photographs, and the import of three networks.
    made = client.search_runs([experiment.experiment_id])
    assert len(made) == 1 + 1 + 1 + 8 + 1 + 3
    assert [one.info.run_id for one in made if "mlflow.parentRunId" not in one.data.tags] == [parent.info.run_id]


def test_each_variant_is_registered_once_as_champion_and_loads_in_a_clean_process(summary: dict[str, Any]) -> None:
    client = library().MlflowClient()
    for row in summary["variants"]:
        version = client.get_model_version_by_alias(row["registered_name"], "champion")
        assert int(version.version) == row["registered_version"]
        assert float(version.tags["top1"]) == pytest.approx(row["top1"], abs=0.005)
        assert f"{row['top1']:.2f} % top-1 on {row['n_val']} val images" in version.description
        model = client.get_logged_model(version.source.removeprefix("models:/"))
        assert {m.key: m.value for m in model.metrics}["val/top1"] == row["top1"]
        assert {f.path for f in client.list_logged_model_artifacts(model.model_id)} > {"card.md", "curves.svg"}
        family = client.get_registered_model(row["registered_name"])
        assert family.tags["variant"] == row["name"]
        assert "| 1, champion &emsp;| mnist5k &emsp;|" in family.description
        [read] = client.get_run(row["mlflow_run"]).inputs.dataset_inputs
        assert read.dataset.digest == summary["data"][0]["manifest_sha256"][:36]
    side = summary["variants"][1]["resolution"]
    code = (
        "import mlflow, numpy, pandas; m = mlflow.pyfunc.load_model('models:/efficientnet-b1@champion');"
        f"images = [numpy.zeros((3, {side}, {side}), 'float32'), numpy.zeros((40, 50, 3), 'uint8')];"
        "print([len(row) for row in m.predict(pandas.DataFrame({'image': images}))['logits']])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.stdout.strip() == "[10, 10]", done.stderr


def test_the_report_holds_the_transfers_and_the_maps_of_the_same_run(
    summary: dict[str, Any], services_dir: Path
) -> None:
    page = (services_dir / "latest" / "report.html").read_text()
    for row in summary["transfer"]:
        assert f"{row['value']:.2f}" in page
    maps = store.read_json("s3://effnet/e2e/reports/laptop/maps.json")
    assert [model["name"] for model in maps["models"]] == ["b0", "b0 w=2"]
    assert len(maps["maps"]) == 2 * len(maps["images"]) > 0
    assert all(each["png"] in page for each in maps["maps"])
    seen = store.read_json("s3://effnet/e2e/reports/laptop/photographs.json")
    assert [cell["classes"][0] for cell in seen["maps"] if cell["photograph"] == "china"] == ["palace"] * 3
    assert all(each["png"] in page for each in seen["maps"])
    assert summary["missing"] == []


def test_prefect_shows_the_flow_its_children_and_its_artifacts(summary: dict[str, Any], services: Addresses) -> None:
    completed = {"state": {"type": {"any_": ["COMPLETED"]}}}
    [flow] = [
        run
        for run in _post(services, "/flow_runs/filter", {"flow_runs": completed})
        if run["parent_task_run_id"] is None
    ]
    assert flow["name"].startswith("reproduce laptop")
    runs = _post(services, "/task_runs/filter", {"task_runs": completed, "limit": 200})
    names = {run["name"] for run in runs}
    assert {
        "search",
        "trial 1.2 1.1 1.15",
        "efficientnet_b0",
        "efficientnet_b1",
        "train b0 mnist5k",
        "train b1 mnist5k",
        "transfer efficientnet_b0",
        "transfer b1 to digits",
        "explain",
        "explain b0 w=2",
        "photographs",
    } <= names
    artifacts = {a["key"] for a in _post(services, "/artifacts/filter", {})}
    assert {"reproduction", "grid-search", "transfer", "model-registry", "mlflow-run", "report"} <= artifacts
    deployments = {d["name"] for d in _post(services, "/deployments/filter", {})}
    assert {"reproduce", "shard", "search", "train", "evaluate", "transfer", "nightly"} <= deployments


def test_a_second_run_finds_everything_and_registers_nothing_new(summary: dict[str, Any], services_dir: Path) -> None:
    began = time.monotonic()
    again = effnet(services_dir, "reproduce", *SMALL)
    assert again.returncode == 0, again.stderr
    assert time.monotonic() - began < 60
    repeated = json.loads((services_dir / "latest" / "summary.json").read_text())
    for key in ("variants", "transfer"):
        assert repeated[key] == summary[key]
    assert repeated["search"]["trials"] == summary["search"]["trials"]
    assert (summary["jobs_found"], repeated["jobs_found"], repeated["jobs"]) == (0, 8, 8)
    assert not [uri for uri in store.list_uris("s3://effnet/e2e/jobs") if "/evaluate-" in uri]  # not even a champion


def test_the_champion_is_evaluated_to_the_accuracy_it_was_registered_with(
    summary: dict[str, Any], services_dir: Path
) -> None:
    words = [w for w in SMALL if w.startswith(("data.", "storage", "experiment"))]
    done = effnet(services_dir, "evaluate", "model_ref=efficientnet-b0@champion", *words)
    assert done.returncode == 0, done.stderr
    assert f"top-1 {summary['variants'][0]['top1']:.2f} %" in done.stdout


def test_nightly_fine_tunes_the_champion_and_registers_once_for_the_same_inputs(
    summary: dict[str, Any], services_dir: Path
) -> None:
    first, second = (effnet(services_dir, "nightly", *SMALL) for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert "efficientnet-b0-digits/1" in first.stdout
    assert "efficientnet-b0-digits/1 (found, nothing to do)" in second.stdout
    verdict = r"champion   \d+\.\d\d % of \d+ images \(95 % interval .*\): promoted, there was no champion"
    assert re.search(verdict, first.stdout)
    assert "champion   skipped: no new data" in second.stdout


@pytest.mark.slow
def test_a_night_with_new_data_compares_both_networks_on_the_same_new_images(
    summary: dict[str, Any], services_dir: Path
) -> None:
    assert effnet(services_dir, "nightly", *SMALL).returncode == 0  # the first night, or last night's result
    done = effnet(
        services_dir,
        "nightly",
        *SMALL,
        "transfer.data.limit=240",
        "transfer.recipe.lr_per_256=1e-9",
        "nightly.max_shrink=50",
    )
    assert done.returncode == 0, done.stderr
    said = re.search(
        r"registered efficientnet-b0-digits/2, aliases: challenger(, champion)?\n"
        r"champion   challenger ([0-9.]+) %, champion ([0-9.]+) % of the same (\d+) images, "
        r"difference \S+ \(lower bound \S+\): (not )?promoted",
        done.stdout,
    )
    assert said is not None, done.stdout
    (evaluation,) = (
        uri
        for uri in store.list_uris("s3://effnet/e2e/jobs")
        if "/evaluate-efficientnet-b0-digits-v1-" in uri and uri.endswith("/result.json")
    )
    result = store.read_json(evaluation)
    assert (f"{result['top1']:.2f}", str(result["n"])) == (said[3], said[4])
    champion = library().MlflowClient().get_model_version_by_alias("efficientnet-b0-digits", "champion")
    assert (champion.version == "2") == bool(said[1]) == (said[5] is None)  # which of them depends on few images


def test_a_deployment_started_as_the_ui_does_runs_on_the_work_pool(
    summary: dict[str, Any], services: Addresses
) -> None:
    def manifests_of_digits() -> list[str]:
        return [uri for uri in store.list_uris("s3://effnet/e2e/data/digits") if uri.endswith("manifest.json")]

    before = manifests_of_digits()
    found = _post(services, "/deployments/filter", {"deployments": {"name": {"any_": ["shard"]}}})
    words = ["data=digits", "data.limit=200", "storage=s3://effnet/e2e"]
    run = _post(services, f"/deployments/{found[0]['id']}/create_flow_run", {"parameters": {"overrides": words}})
    deadline = time.monotonic() + 90
    state = ""
    while state not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
        assert time.monotonic() < deadline, f"still {state}"
        time.sleep(0.5)
        runs = _post(services, "/flow_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
        state = runs[0]["state_type"]
    assert state == "COMPLETED"
    assert len(manifests_of_digits()) == len(before) + 1


@pytest.mark.slow
def test_a_search_fanned_out_over_the_work_pool_finds_the_same_trials(
    summary: dict[str, Any], services: Addresses, services_dir: Path
) -> None:
    done = effnet(services_dir, "search", *SMALL, "launch.engine=workpool", "storage=s3://effnet/workpool")
    assert done.returncode == 0, done.stderr
    best = summary["search"]["best"]
    assert f"alpha {best['alpha']}, beta {best['beta']}, gamma {best['gamma']}" in done.stdout
    trains = _post(services, "/flow_runs/filter", {"flow_runs": {"name": {"any_": ["trial 1.2 1.1 1.15"]}}})
    assert {(run["state_type"], run["work_pool_name"]) for run in trains} == {("COMPLETED", "effnet")}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "recipe.epoch=2"], "recipe.epochs"),
        pytest.param(["train", "model=b9"], "b8", marks=pytest.mark.slow),
        pytest.param(["train", "data=folder"], "data.path", marks=pytest.mark.slow),
        (["evaluate", "model_ref=efficientnet-b00@champion"], "efficientnet-b0"),
        pytest.param(
            ["transfer", "model_ref=efficientnet-b0@champion", "model=b3"],
            "is a efficientnet_b0, but model.name is",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["search", "search.tolerance=0", "search.alpha=[1.0]"], "search.tolerance", marks=pytest.mark.slow
        ),
        (["train", "services.s3=http://127.0.0.1:9"], "does not answer"),
        pytest.param(["train", "services.mlflow=http://127.0.0.1:9"], "does not answer", marks=pytest.mark.slow),
        pytest.param(["train", "recipe.global_batch=63"], "global_batch", marks=pytest.mark.slow),
    ],
)
def test_a_mistake_is_one_clear_line(words: list[str], said: str, summary: dict[str, Any], services_dir: Path) -> None:
    done = effnet(services_dir, *words, "experiment=e2e")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2, done.stderr
    assert len(errors) == 1
    assert said in errors[0]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_sigterm_saves_and_ends_the_training_processes_and_the_same_command_resumes(
    services: Addresses, services_dir: Path
) -> None:
    words = ["train", "model=b1", "recipe.epochs=30", "data.limit=600", "storage=s3://effnet/e2e", "experiment=e2e"]
    command = [sys.executable, "-m", "flows", *words, f"run_dir={services_dir}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if re.search(r"epoch (?!1/)\d+/30", line):  # so there is a checkpoint of the epoch before
                break
        os.killpg(process.pid, signal.SIGTERM)  # as systemd and Slurm do; Ctrl-C: integration/test_signals.py
        said = process.stderr.read()
        assert process.wait(30) == 8
    assert said.splitlines()[-1].startswith("stopped by SIGTERM: the state of ")
    assert "Traceback" not in said
    assert not _processes_with("models.train")
    again = effnet(services_dir, *words)
    assert again.returncode == 0, again.stderr
    assert "resumed at step" in again.stderr


@pytest.mark.slow
def test_two_reproductions_at_the_same_time_do_each_job_once_and_end_alike(
    services: Addresses, services_dir: Path
) -> None:
    words = [*SMALL, "storage=s3://effnet/twice", "experiment=twice", "photographs.networks=[]"]
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda _: effnet(services_dir, "reproduce", *words, "--json"), range(2)))
    assert [done.returncode for done in ended] == [0, 0], [done.stderr[-2000:] for done in ended]
    first, second = (json.loads(done.stdout) for done in ended)
    for key in ("variants", "transfer"):
        assert first[key] == second[key]
    assert first["search"]["trials"] == second["search"]["trials"]
    client = library().MlflowClient()
    experiment = client.get_experiment_by_name("twice")
    assert experiment is not None
    tracked = client.search_runs([experiment.experiment_id])
    names = [run.info.run_name for run in tracked]
    assert sorted(names) == sorted(set(names))
    assert {run.info.status for run in tracked} == {"FINISHED"}


def _post(services: Addresses, path: Any, body: dict[str, Any]) -> Any:
    """Asked by Prefect's own client, which asks again when the server says 503."""
    with SyncPrefectClient(services.prefect, auth_string=os.environ["PREFECT_API_AUTH_STRING"]) as prefect:
        return prefect.request("POST", path, json=body).json()


def _processes_with(word: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in text and "e2e" in text:
            found.append(text)
    return found
