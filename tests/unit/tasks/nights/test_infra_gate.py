"""What the process that tries a registered version says, and what follows from it."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from matrix import with_slow_rest
from torch import nn

from conf import compose
from conf.data_set import EvalTransform
from conf.schema import Nightly
from infra.errors import HungError, TransientError
from models.networks import export
from models.networks import trial as trial_module
from models.networks.build import build_model
from models.networks.description import config_json
from models.networks.trial import main
from tasks.nights import infra_gate
from tasks.nights.infra_gate import judge_trial, run_trial


def test_a_version_that_is_as_fast_as_required_has_no_fault() -> None:
    assert judge_trial({"latency_ms": 30.0}, Nightly()) is None
    assert judge_trial({"latency_ms": 30.0}, Nightly(max_latency_ms=30)) is None


def test_a_slower_version_is_refused_by_both_numbers() -> None:
    fault = judge_trial({"latency_ms": 30.04}, Nightly(max_latency_ms=25))
    assert fault == "one image takes 30.0 ms, 25 are allowed (nightly.max_latency_ms)"


def test_a_version_that_is_slow_beside_other_work_is_measured_again_and_one_that_is_fast_then_is_fast() -> None:
    limits = Nightly(max_latency_ms=25)
    with pytest.raises(
        TransientError, match=r"30.0 ms, 25 are allowed .*, but other work had the cores for 40 % of the"
    ):
        judge_trial({"latency_ms": 30.0, "waited": 0.4}, limits)
    assert judge_trial({"latency_ms": 30.0, "waited": 0.01}, limits) is not None
    assert judge_trial({"latency_ms": 20.0, "waited": 0.4}, limits) is None


def test_the_share_that_threads_waited_for_a_core_is_read_from_the_scheduler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for thread, text in (("7", "4000 100 3\n"), ("8", "6000 900 5\n"), ("9", "not said")):
        (tmp_path / thread).mkdir()
        (tmp_path / thread / "schedstat").write_text(text)
    monkeypatch.setattr(trial_module, "THREADS", tmp_path)
    assert trial_module.read_scheduler() == (10000, 1000)
    assert trial_module.share_waited((8500, 500), (10000, 1000)) == 0.25
    monkeypatch.setattr(trial_module, "THREADS", tmp_path / "missing")
    assert trial_module.share_waited((0, 0), trial_module.read_scheduler()) == 0


def test_a_version_that_is_slower_than_the_champion_or_too_large_is_refused_by_both_numbers() -> None:
    trial = {"latency_ms": 30.0, "latency_ratio": 1.6, "size_mb": 21.4}
    assert judge_trial(trial, Nightly()) == (
        "one image takes 1.60 times as long as with the champion, measured in turns; 1.5 are allowed "
        "(nightly.max_latency_ratio)"
    )
    assert judge_trial(trial, Nightly(max_latency_ratio=None)) is None
    assert judge_trial(trial, Nightly(max_latency_ratio=2, max_size_mb=20)) == (
        "its weights have 21.4 MB, 20 are allowed (nightly.max_size_mb)"
    )


class Slow(nn.Module):
    """Takes two milliseconds, whatever else the machine does."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        time.sleep(0.002)
        return images


def test_latencies_are_measured_in_turns_and_a_slow_network_stands_out_on_a_busy_machine() -> None:
    image = torch.zeros(1)
    ours, theirs = trial_module.measure_in_turns([(Slow(), image), (nn.Identity(), image)])
    assert len(ours) == len(theirs) == trial_module.LATENCY_RUNS
    assert min(ours) >= 0.002
    assert trial_module.compare_latency((Slow(), image), (nn.Identity(), image)) > 2
    assert trial_module.compare_latency((Slow(), image), (Slow(), image)) == pytest.approx(1, abs=0.3)


def write_network(folder: Path, width: float, resolution: int) -> None:
    folder.mkdir()
    model = compose.compose(["model=b0", f"model.width={width}", "model.depth=0.1"]).model
    torch.manual_seed(0)
    export.save_weights(build_model(model, 3).state_dict(), folder / "weights.safetensors")
    described = config_json(
        model,
        resolution=resolution,
        class_names=["a", "b", "c"],
        mean=[0.5] * 3,
        std=[0.2] * 3,
        transform=EvalTransform(0),
    )
    (folder / "config.json").write_text(described)


@pytest.fixture
def without_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the formats, which take most of the time of a trial."""
    monkeypatch.setattr(trial_module.formats, "capture", lambda *_: None)
    monkeypatch.setattr(trial_module.formats, "write_pt2", lambda *_: None)
    monkeypatch.setattr(trial_module, "_has_onnx", lambda: False)


@pytest.mark.slow
@pytest.mark.usefixtures("without_exports")
def test_the_latency_of_a_version_is_compared_with_that_of_the_champion(tmp_path: Path) -> None:
    write_network(tmp_path / "champion", 0.1, 32)
    write_network(tmp_path / "large", 0.5, 128)
    same = main(tmp_path / "champion", tmp_path / "champion")
    assert judge_trial(same, Nightly()) is None, same
    large = main(tmp_path / "large", tmp_path / "champion")
    assert large["latency_ratio"] > 1.5
    assert "as long as with the champion" in str(judge_trial(large, Nightly()))


@pytest.mark.usefixtures("without_exports")
@pytest.mark.parametrize("name", with_slow_rest(["weights.safetensors", "config.json"]))
def test_damaged_files_of_the_champion_are_no_fault_of_the_version(name: str, tmp_path: Path) -> None:
    write_network(tmp_path / "champion", 0.1, 32)
    write_network(tmp_path / "new", 0.1, 32)
    (tmp_path / "champion" / name).write_text("{}")
    trial = main(tmp_path / "new", tmp_path / "champion")
    assert trial["other_error"]
    assert "latency_ratio" not in trial
    assert trial["latency_ms"] > 0
    assert judge_trial(trial, Nightly()) is None


def test_damaged_files_are_a_fault_and_a_service_that_does_not_answer_is_none() -> None:
    assert judge_trial({"error": "weights.safetensors is damaged", "code": 5}, Nightly()) == (
        "weights.safetensors is damaged"
    )
    with pytest.raises(TransientError, match="MLflow does not answer"):
        judge_trial({"error": "MLflow does not answer", "code": 75}, Nightly())


def run_by(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the Python that runs the trial by a shell script."""
    (folder / "python").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "python").chmod(0o700)
    monkeypatch.setattr(infra_gate.sys, "executable", str(folder / "python"))


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo first >&2; echo 'No space left on device' >&2; exit 1", "ended with 1 and has no result: No space left"),
        ("kill -KILL $$", "was killed by signal 9 and has no result: no output; the version is not judged"),
    ],
)
def test_a_process_that_ends_without_a_result_is_no_verdict_on_the_version(
    script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_by(script, tmp_path, monkeypatch)
    with pytest.raises(TransientError, match=said):
        run_trial(tmp_path)


@pytest.mark.slow
def test_a_module_of_the_users_folder_is_not_imported_in_place_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models.py").write_text("raise SystemExit('the module of the user')")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.json").write_text("{}")
    assert "config.json does not describe" in run_trial(tmp_path / "new")["error"]


def test_a_process_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_by("exec sleep 60", tmp_path, monkeypatch)
    monkeypatch.setattr(infra_gate, "TIMEOUT_S", 0.2)
    with pytest.raises(HungError, match=r"did not end within 0\.2 s"):
        run_trial(tmp_path)


@pytest.mark.slow
def test_files_of_a_good_network_pass_the_trial_and_cut_ones_do_not(tmp_path: Path) -> None:
    new, champion = tmp_path / "new", tmp_path / "champion"
    write_network(new, 0.1, 32)
    write_network(champion, 0.1, 32)
    trial = run_trial(new, champion)
    assert judge_trial(trial, Nightly()) is None
    assert trial["latency_ms"] > 0
    assert trial["latency_ratio"] > 0
    assert 0 <= trial["waited"] <= 1
    assert trial["onnx"] == (find_spec("onnxscript") is not None)
    weights = new / "weights.safetensors"
    assert trial["size_mb"] == pytest.approx(weights.stat().st_size / 1e6)
    weights.write_bytes(weights.read_bytes()[:-8])
    assert "weights.safetensors is damaged" in str(judge_trial(main(new), Nightly()))
