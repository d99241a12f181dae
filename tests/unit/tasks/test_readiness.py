"""The gate before a training on ImageNet: every check with numbers on both sides of its limit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from conf import compose, schema
from conf.compose import OverrideError
from flows.cli.summary import describe_result, exit_code
from models.results import EvalResult, GateCheck, GateResult, result_from
from models.training import capacity
from tasks import readiness

H200 = 141_000_000_000
B0 = "/weights/tf_efficientnet_b0_aa-827b6e33.pth"


def paper() -> schema.Config:
    return compose.compose(["profile=paper", "data.path=/data/imagenet"])


def evaluated(top1: float, n: int = 50_000) -> EvalResult:
    numbers = {"job": "", "job_uri": "", "model_ref": "b0/1", "data": "imagenet", "top1": top1, "top5": 93.0, "n": n}
    return result_from(EvalResult, numbers, "result.json")


@pytest.mark.parametrize(("top1", "outcome"), [(76.88, "passed"), (76.98, "passed"), (76.78, "passed"),
                                               (76.77, "failed"), (77.0, "failed")])  # fmt: skip
def test_weights_pass_within_a_tenth_of_a_point_of_their_published_accuracy(top1: float, outcome: str) -> None:
    check = readiness.check_accuracy(B0, evaluated(top1), paper().gate.tolerance)
    assert (check.name, check.outcome) == ("weights of efficientnet_b0", outcome)
    assert f"{top1:.2f} % of 50,000 images, published 76.88 %" in check.text


def test_the_right_accuracy_on_fewer_images_does_not_pass() -> None:
    check = readiness.check_accuracy(B0, evaluated(76.88, n=49_999), 0.1)
    assert check.outcome == "failed"
    assert check.text.endswith("ImageNet has 50,000 validation images")


def test_missing_weights_are_checks_that_were_not_run() -> None:
    names = [check.name for check in readiness.missing_weights(paper())]
    assert names == [f"weights of efficientnet_b{phi}" for phi in (0, 3, 7)]
    given = replace(paper(), gate=schema.Gate(weights=[B0]))
    assert [check.outcome for check in readiness.missing_weights(given)] == ["not run", "not run"]


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("s3://bucket/tf_efficientnet_b7_aa-076e3472.pth", "efficientnet_b7"),
        ("tf_efficientnet_b3.aa_in1k.safetensors", "efficientnet_b3"),
        ("tf_efficientnet_b7_ra-6c08e654.pth", None),  # RandAugment: another accuracy
        ("efficientnet_b0_aa.pth", None),
    ],
)
def test_the_file_name_says_which_published_accuracy_counts(name: str, network: str | None) -> None:
    if network is None:
        with pytest.raises(OverrideError, match="published accuracy is unknown"):
            compose.compose(["profile=paper", f"gate.weights=[{name}]"])
    else:
        config = compose.compose(["profile=paper", f"gate.weights=[{name}]"])
        assert f"weights of {network}" not in [check.name for check in readiness.missing_weights(config)]


def test_gpus_and_their_memory_are_compared_with_what_the_profile_needs() -> None:
    assert readiness.check_gpus(paper(), [H200] * 8).outcome == "passed"
    assert readiness.check_gpus(paper(), [H200] * 7).outcome == "failed"
    to_b6 = readiness.check_memory(replace(paper(), variants=paper().variants[:-1]), [H200] * 8)
    assert (to_b6.outcome, "recomputes" in to_b6.text) == ("passed", False)
    whole = readiness.check_memory(paper(), [H200] * 8)  # 64 images of 600 px a pass: more than 80 % of an H200
    assert (whole.outcome, whole.text.split("; ")[1:]) == (
        "passed",
        ["efficientnet_b7 recomputes activations: 18.4 GB, 125.7 without"],
    )
    explicit = replace(paper(), recipe=replace(paper().recipe, recompute=True))
    assert "recomputes" not in readiness.check_memory(explicit, [H200] * 8).text
    stages = replace(paper(), runtime=replace(paper().runtime, pipeline_stages=2, micro_batches=1))
    assert "recomputes" not in readiness.check_memory(stages, [H200] * 8).text
    small = readiness.check_memory(paper(), [H200] * 7 + [16_000_000_000])
    assert small.outcome == "failed"
    over = small.text.rpartition("too few for ")[2]
    assert "efficientnet_b7 18.4 GB" in over
    assert "efficientnet_b4 " not in over
    assert readiness.check_memory(paper(), []).outcome == "not run"


def test_the_loader_needs_a_core_for_each_second_of_work_in_a_second() -> None:
    exact = readiness.check_loader(paper(), image_cpu_s=0.001, cores=40)  # 8 x 4,930 images/s at 1 ms
    assert exact.outcome == "passed"
    assert exact.text.startswith("39,440 images/s of efficientnet_b0 on 8 H200 take 39 cores, this machine has 40")
    assert readiness.check_loader(paper(), image_cpu_s=0.001, cores=39).outcome == "failed"


def test_a_disk_holds_shards_cache_and_checkpoints_or_the_check_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(paper(), run_dir=str(tmp_path / "runs"))
    # 154.6 GB of shards, as much cache, two checkpoints of 16 bytes for each of the family's 193,546,022 parameters.
    needed = 2 * 154.6e9 + 2 * 16 * 193_546_022
    monkeypatch.setattr(readiness.shutil, "disk_usage", lambda _: SimpleNamespace(free=needed))
    assert readiness.check_space(config).outcome == "passed"
    monkeypatch.setattr(readiness.shutil, "disk_usage", lambda _: SimpleNamespace(free=needed - 1000))
    assert readiness.check_space(config).outcome == "failed"
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "shard.tar").write_bytes(bytes(1000))  # what is there already need not be written again
    assert readiness.check_space(config).outcome == "passed"
    beside = replace(config, storage=f"file://{tmp_path}/store")  # two folders, each of which fits alone
    monkeypatch.setattr(readiness.shutil, "disk_usage", lambda _: SimpleNamespace(free=160e9))
    assert readiness.check_space(beside).outcome == "failed"
    remote = replace(config, storage="s3://bucket", services=schema.Services(s3="aws"))
    assert readiness.check_space(remote).text.startswith(f"{tmp_path / 'runs'} needs 155 GB")


@pytest.mark.parametrize(("outcomes", "code"), [(["passed"], 0), (["passed", "failed"], 1), (["passed", "not run"], 1)])
def test_only_checks_that_all_passed_end_with_zero(outcomes: list[str], code: int) -> None:
    result = GateResult(tuple(GateCheck("GPUs", outcome, "8 GPUs") for outcome in outcomes))
    assert exit_code(result) == code
    assert describe_result(result, paper())[-1] == f"{outcomes[-1]:8} GPUs: 8 GPUs"


@pytest.mark.slow
def test_the_time_of_a_training_image_is_that_of_its_operations() -> None:
    plain = min(capacity.image_cpu_s(schema.Augment(), 64, n=40) for _ in range(3))
    augmented = min(capacity.image_cpu_s(schema.Augment(policy="v0"), 448, n=40) for _ in range(3))
    assert 1e-5 < plain < augmented < 1
