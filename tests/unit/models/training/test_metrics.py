"""An evaluation counts every sample once, class by class, at any number of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from made_set import MadeSet, write_set
from torch import Tensor, nn

from conf.schema import Augment
from infra.errors import PreemptedError
from models.data.loading.loader import Loader
from models.statistics import calibration_error
from models.training import metrics, per_image
from models.training.distributed import Ranks
from models.training.metrics import Accuracy, evaluate

SIDE, CLASSES = 16, 10


class Brightness(nn.Module):
    """Logits that depend on the pixels alone, wrong for many images."""

    def forward(self, images: Tensor) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)
        generator = torch.Generator().manual_seed(1)
        return pooled @ torch.randn(pooled.shape[1], CLASSES, generator=generator)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeSet:
    return write_set(f"file://{tmp_path_factory.mktemp('set')}", {"train": [10], "minival": [10], "val": [70, 33]})


@pytest.fixture
def val(made: MadeSet, tmp_path: Path) -> Iterator[Loader]:
    with closing(Loader(made.manifest, made.uri, "val", SIDE, Augment(eval_crop_pad=0), tmp_path, 2)) as loader:
        yield loader


def ranks(rank: int, world_size: int) -> Ranks:
    return Ranks(rank, world_size, torch.device("cpu"))


def by_hand(val: Loader) -> Accuracy:
    """One image after the other, in Python's integers."""
    correct, total, top5, loss = [0] * CLASSES, [0] * CLASSES, 0, 0.0
    for batch in val.eval_batches(7, 0, 1):
        images = metrics.Normalize(torch.device("cpu"))(batch.images)
        for logits, label in zip(Brightness()(images), batch.labels.tolist(), strict=True):
            order = logits.argsort(descending=True).tolist()
            total[label] += 1
            correct[label] += order[0] == label
            top5 += label in order[:5]
            loss -= logits.log_softmax(0)[label].item()
    n = sum(total)
    return Accuracy(100 * sum(correct) / n, 100 * top5 / n, loss / n, n, tuple(correct), tuple(total))


def test_counts_are_those_of_a_count_by_hand(val: Loader) -> None:
    accuracy, expected = evaluate(Brightness(), val, ranks(0, 1), lambda: False), by_hand(val)
    assert (accuracy.class_correct, accuracy.class_total) == (expected.class_correct, expected.class_total)
    assert (accuracy.top1, accuracy.top5, accuracy.n) == (expected.top1, expected.top5, 103)
    assert accuracy.loss == pytest.approx(expected.loss)
    assert 0 < sum(accuracy.class_correct) < 103  # else it would prove nothing


class Precision(Brightness):
    """Records whether TF32 is allowed while it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.tf32: set[bool] = set()

    def forward(self, images: Tensor) -> Tensor:
        self.tf32 |= {torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32}
        return super().forward(images)


@pytest.fixture
def tf32() -> Iterator[None]:
    """TF32 as a training with recipe.precision=auto sets it."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.usefixtures("tf32")
def test_an_evaluation_computes_without_tf32_and_leaves_the_setting_of_the_training(val: Loader) -> None:
    network = Precision()
    evaluate(network, val, ranks(0, 1), lambda: False)
    assert network.tf32 == {False}
    assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_the_parts_of_all_ranks_add_up_to_the_whole(
    val: Loader, world_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate(Brightness(), val, ranks(0, 1), lambda: False)
    parts: list[Tensor] = []

    def kept(values: Tensor) -> Tensor:
        parts.append(values.clone())
        return values

    monkeypatch.setattr(metrics, "sum_over_ranks", kept)
    for rank in range(world_size):
        evaluate(Brightness(), val, ranks(rank, world_size), lambda: False)

    def summed_up(values: Tensor) -> Tensor:
        return torch.stack([part for part in parts if part.dtype == values.dtype]).sum(0, dtype=values.dtype)

    monkeypatch.setattr(metrics, "sum_over_ranks", summed_up)
    summed = evaluate(Brightness(), val, ranks(0, world_size), lambda: False)
    assert (summed.class_correct, summed.class_total, summed.n, summed.top5) == (
        whole.class_correct,
        whole.class_total,
        whole.n,
        whole.top5,
    )
    assert np.array_equal(summed.correct, whole.correct)
    assert np.array_equal(summed.answers["label"], whole.answers["label"])
    np.testing.assert_allclose(summed.answers["probability"], whole.answers["probability"], rtol=1e-5)


def test_each_image_is_right_or_wrong_at_its_own_place(val: Loader) -> None:
    expected = np.zeros(103, np.bool_)
    for batch in val.eval_batches(7, 0, 1):
        images = metrics.Normalize(torch.device("cpu"))(batch.images)
        expected[batch.ids] = (Brightness()(images).argmax(1) == batch.labels).numpy()
    accuracy = evaluate(Brightness(), val, ranks(0, 1), lambda: False)
    assert np.array_equal(accuracy.correct, expected)
    assert 0 < accuracy.correct.sum() == sum(accuracy.class_correct) < 103


def test_the_bits_of_an_evaluation_come_back_and_damaged_ones_do_not(tmp_path: Path) -> None:
    job_uri, correct = f"file://{tmp_path}", np.arange(103) % 3 == 0
    result = {"correct_sha256": per_image.write(job_uri, correct), "class_total": [100, 3]}
    stored = per_image.read(job_uri, result)
    assert stored is not None
    assert np.array_equal(stored, correct)
    assert per_image.read(job_uri, {"class_total": [103]}) is None  # a result that predates the bits
    assert per_image.read(f"{job_uri}/elsewhere", result) is None
    file = tmp_path / per_image.VAL_CORRECT
    file.write_bytes(b"\x01" + file.read_bytes()[1:])
    assert per_image.read(job_uri, result) is None


def test_each_image_has_the_most_probable_class_and_its_probability(val: Loader) -> None:
    accuracy = evaluate(Brightness(), val, ranks(0, 1), lambda: False)
    for batch in val.eval_batches(7, 0, 1):
        logits = Brightness()(metrics.Normalize(torch.device("cpu"))(batch.images))
        probabilities, labels = logits.softmax(1).max(1)
        answers = accuracy.answers[batch.ids]
        assert answers["label"].tolist() == labels.tolist()
        np.testing.assert_allclose(answers["probability"], probabilities, rtol=1e-5)
    assert accuracy.calibration_error == calibration_error(accuracy.answers["probability"], accuracy.correct)


def test_the_answers_to_val_come_back_and_damaged_ones_do_not(tmp_path: Path) -> None:
    job_uri, answers = f"file://{tmp_path}", np.zeros(103, per_image.ANSWER)
    answers["label"], answers["probability"] = np.arange(103), np.linspace(0, 1, 103)
    result = {"answers_sha256": per_image.write_answers(job_uri, answers)}
    stored = per_image.read_answers(job_uri, result)
    assert stored is not None
    assert np.array_equal(stored, answers)
    assert per_image.read_answers(job_uri, {}) is None  # a result that predates them
    file = tmp_path / per_image.VAL_ANSWERS
    assert file.stat().st_size < 103 * 8 + 256
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    assert per_image.read_answers(job_uri, result) is None


def test_the_bits_of_minival_are_beside_those_of_val(tmp_path: Path) -> None:
    job_uri, correct = f"file://{tmp_path}", np.arange(11) % 2 == 0
    per_image.write(job_uri, ~correct)
    sha256 = per_image.write(job_uri, correct, per_image.MINIVAL_CORRECT)
    stored = per_image.read_minival(job_uri, {"minival_correct_sha256": sha256, "n_minival": 11})
    assert stored is not None
    assert np.array_equal(stored, correct)
    assert per_image.read_minival(job_uri, {"n_minival": 11}) is None


def test_an_interrupted_evaluation_returns_no_numbers(val: Loader) -> None:
    with pytest.raises(PreemptedError):
        evaluate(Brightness(), val, ranks(0, 1), lambda: True)


def test_a_loader_of_two_splits_reads_both(made: MadeSet, tmp_path: Path) -> None:
    with closing(Loader(made.manifest, made.uri, "train+minival", SIDE, Augment(), tmp_path, 1)) as loader:
        assert loader.samples == 20
        ids = np.concatenate([batch.ids for batch in loader.train_batches(0, 0, 0, 4, 2, 0, 1)])
        assert sorted(ids.tolist()) == list(range(20))
        assert made.manifest.samples("train+minival") == 20
        labels = cast(Tensor, next(loader.eval_batches(20, 0, 1)).labels)
        assert labels.tolist() == [i % 10 for i in range(20)]
