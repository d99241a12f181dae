"""Checkpoints in a folder store: what comes back, and what damage does."""

import hashlib
import random
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from conf.schema import Recipe
from infra import store
from infra.errors import ArtifactError, NotFoundError
from models.training import checkpoint
from models.training.average import WeightAverage
from models.training.checkpoint import Position, TrainState
from models.training.optim import build_optimizer


class Net(nn.Module):
    def __init__(self, classes: int = 3, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.norm(self.conv(x)).mean((2, 3)))
        return logits


def fresh(seed: int = 0, width: int = 4) -> TrainState:
    torch.manual_seed(seed)
    network = Net(width=width)
    average = WeightAverage(network, 0.9)
    best = {name: tensor.clone() for name, tensor in average.tensors.items()}
    return TrainState(network, build_optimizer(network, Recipe(global_batch=64)), average, best, Position())


def train(state: TrainState, steps: int) -> None:
    """Steps that touch weights, BN statistics, both optimizer slots, average, best and position."""
    for _ in range(steps):
        torch.manual_seed(state.position.step)
        loss = nn.functional.cross_entropy(state.network(torch.randn(6, 3, 2, 2)), torch.tensor([0, 1, 2, 0, 1, 2]))
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        state.optimizer.step()
        state.position.step += 1
        state.average.update(state.position.step)
        for name, tensor in state.average.tensors.items():
            state.best[name].copy_(tensor)
        state.position.best_minival_top1 = 12.5 + state.position.step / 3
        state.position.train_seconds += 0.1
        state.position.rows.append({"step": state.position.step, "minival_top1": 1 / 3})


def equal(first: TrainState, second: TrainState) -> bool:
    a, b = first.tensors(), second.tensors()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) and first.position == second.position


@pytest.fixture
def job(tmp_path: Path) -> str:
    return f"file://{tmp_path}/job"


def files(job: str) -> list[str]:
    return [uri.rpartition("/")[2] for uri in store.list_uris(f"{job}/checkpoints/")]


def saved_twice(job: str) -> TrainState:
    """Checkpoints after 2 and 5 steps; a copy of the state after 2."""
    state, older = fresh(), fresh()
    train(older, 2)
    train(state, 2)
    checkpoint.save(state, job, keep=2)
    train(state, 3)
    checkpoint.save(state, job, keep=2)
    return older


def flip(uri: str, at: int, bit: int = 0) -> None:
    data = bytearray(store.read(uri))
    data[at % len(data)] ^= 1 << bit
    store.write(uri, bytes(data))


def test_a_resumed_state_is_the_saved_one_to_the_last_bit(job: str) -> None:
    state, other = fresh(0), fresh(1)
    train(state, 3)
    checkpoint.save(state, job, keep=2)
    assert not equal(state, other)
    assert checkpoint.resume(other, job)
    assert equal(state, other)


def test_training_goes_on_from_a_checkpoint_as_if_nothing_had_happened(job: str) -> None:
    whole, part, resumed = fresh(), fresh(), fresh(1)
    train(whole, 6)
    train(part, 4)
    checkpoint.save(part, job, keep=2)
    checkpoint.resume(resumed, job)
    train(resumed, 2)
    assert equal(whole, resumed)


def test_without_checkpoints_there_is_nothing_to_resume(job: str) -> None:
    state = fresh()
    assert not checkpoint.resume(state, job)
    assert equal(state, fresh())


def test_the_newest_checkpoint_is_taken(job: str) -> None:
    saved_twice(job)
    state = fresh(1)
    checkpoint.resume(state, job)
    assert state.position.step == 5


@pytest.mark.parametrize("kind", ["safetensors", "json"])
def test_a_flipped_bit_anywhere_in_the_newest_makes_the_older_one_be_used(kind: str, job: str) -> None:
    older = saved_twice(job)
    newest = f"{job}/checkpoints/step-00000005.{kind}"
    sound, rng = store.read(newest), random.Random(0)
    for _ in range(15):
        store.write(newest, sound)
        flip(newest, rng.randrange(len(sound)), rng.randrange(8))
        state = fresh(1)
        assert checkpoint.resume(state, job)
        assert equal(state, older)


@pytest.mark.parametrize("kind", ["safetensors", "json"])
@pytest.mark.parametrize("keep_share", [0.0, 0.5, 0.99])
def test_a_truncated_newest_makes_the_older_one_be_used(kind: str, keep_share: float, job: str) -> None:
    older = saved_twice(job)
    newest = f"{job}/checkpoints/step-00000005.{kind}"
    data = store.read(newest)
    store.write(newest, data[: int(len(data) * keep_share)])
    state = fresh(1)
    assert checkpoint.resume(state, job)
    assert equal(state, older)


@pytest.mark.parametrize("kind", ["safetensors", "json"])
def test_a_half_written_newest_makes_the_older_one_be_used(kind: str, job: str) -> None:
    older = saved_twice(job)
    store.delete(f"{job}/checkpoints/step-00000005.{kind}")
    state = fresh(1)
    assert checkpoint.resume(state, job)
    assert equal(state, older)


def test_when_none_verifies_training_does_not_start_over_in_silence(job: str) -> None:
    saved_twice(job)
    for name in files(job):
        if name.endswith(".safetensors"):
            flip(f"{job}/checkpoints/{name}", 1000)
    state = fresh(1)
    with pytest.raises(ArtifactError, match=r"none of the 2 checkpoints .* verifies; delete that folder"):
        checkpoint.resume(state, job)
    assert equal(state, fresh(1))


def test_a_checkpoint_of_another_network_is_refused(job: str) -> None:
    saved_twice(job)
    with pytest.raises(ArtifactError, match="belongs to another network"):
        checkpoint.resume(fresh(width=8), job)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_only_the_newest_are_kept(keep: int, job: str) -> None:
    state = fresh()
    for _ in range(4):
        train(state, 1)
        checkpoint.save(state, job, keep)
    steps = range(5 - keep, 5)
    assert files(job) == [f"step-{step:08d}.{kind}" for step in steps for kind in ("json", "safetensors")]


@pytest.fixture
def weights(tmp_path: Path) -> tuple[str, Net]:
    torch.manual_seed(5)
    trained = Net(classes=3)
    trained.train()(torch.randn(8, 3, 2, 2))
    uri = f"file://{tmp_path}/weights.safetensors"
    store.write(uri, safetensors.torch.save(trained.state_dict()))
    return uri, trained


def same_tensors(first: nn.Module, second: nn.Module, prefix: str = "") -> bool:
    other = second.state_dict()
    return all(torch.equal(t, other[name]) for name, t in first.state_dict().items() if name.startswith(prefix))


def test_weights_fill_a_network_of_the_same_classes_whole(weights: tuple[str, Net]) -> None:
    uri, trained = weights
    network = Net(classes=3)
    checkpoint.load_weights(network, uri, None)
    assert same_tensors(network, trained)


def test_features_leave_the_fresh_classifier_even_where_it_would_fit(weights: tuple[str, Net]) -> None:
    uri, trained = weights
    torch.manual_seed(9)
    network = Net(classes=3)
    torch.manual_seed(9)
    untouched = Net(classes=3)
    checkpoint.load_features(network, uri, None)
    assert same_tensors(network, untouched, "classifier")
    assert same_tensors(network, trained, "conv")
    assert same_tensors(network, trained, "norm")


def test_another_number_of_classes_is_refused_where_the_classifier_must_fit(weights: tuple[str, Net]) -> None:
    uri, _ = weights
    network, untouched = Net(classes=7), Net(classes=7)
    untouched.load_state_dict(network.state_dict())
    with pytest.raises(ArtifactError, match=r"classifier\.weight, classifier\.bias"):
        checkpoint.load_weights(network, uri, None)
    assert same_tensors(network, untouched)


def test_weights_of_another_width_are_refused(weights: tuple[str, Net]) -> None:
    with pytest.raises(ArtifactError, match=r"do not fit the network: conv\.weight"):
        checkpoint.load_features(Net(width=8), weights[0], None)


def test_damaged_weights_are_refused(weights: tuple[str, Net]) -> None:
    uri, _ = weights
    store.write(uri, store.read(uri)[:-100])
    with pytest.raises(ArtifactError, match="are damaged"):
        checkpoint.load_weights(Net(), uri, None)


def test_weights_that_are_not_those_asked_for_are_refused(weights: tuple[str, Net]) -> None:
    uri, trained = weights
    digest = hashlib.sha256(store.read(uri)).hexdigest()
    checkpoint.load_weights(Net(), uri, digest)
    with torch.no_grad():
        trained.conv.weight += 1
    store.write(uri, safetensors.torch.save(trained.state_dict()))
    with pytest.raises(ArtifactError, match="sha256"):
        checkpoint.load_weights(Net(), uri, digest)


def test_missing_weights_are_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        checkpoint.load_weights(Net(), f"file://{tmp_path}/none.safetensors", None)
