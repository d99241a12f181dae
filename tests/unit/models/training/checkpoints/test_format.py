"""Checkpoints in a folder store: what comes back, and what damage does."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from matrix import with_slow_rest
from torch import nn

from conf.schema import Job, Recipe, Runtime
from infra import store
from infra.errors import ArtifactError, ChangedError, ResumeError
from models.training.checkpoints import format as checkpoint_format
from models.training.checkpoints import lineage
from models.training.checkpoints import state as states
from models.training.checkpoints.save_resume import CheckpointManager
from models.training.checkpoints.state import TrainState
from models.training.checkpoints.writer import CheckpointWriter
from models.training.distributed import Ranks
from models.training.supervision.faults import Faults
from models.training.supervision.preemption import Preemption
from models.training.supervision.watchdog import Watchdog

RANKS = Ranks(0, 1, torch.device("cpu"))


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
    return states.initial_state(Net(width=width), Recipe(global_batch=64))


def train(state: TrainState, steps: int) -> None:
    """Changes every tensor and every number of the state, as a function of the step."""
    for _ in range(steps):
        torch.manual_seed(state.position.step)
        for tensor in (*state.tensors().values(), state.best):
            tensor.detach().add_(torch.randn_like(tensor))
        position = state.position
        position.step += 1
        position.best_step = position.step
        position.best_minival_top1 = 12.5 + position.step / 3
        position.train_seconds += 0.1
        position.health.observe(1 / position.step, True)
        position.rows.append({"step": position.step, "minival_top1": 1 / 3})


def equal(first: TrainState, second: TrainState) -> bool:
    a, b = ({**state.tensors(), "best": state.best} for state in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) and first.position == second.position


@pytest.fixture
def job(tmp_path: Path) -> str:
    return f"file://{tmp_path}/job"


@pytest.fixture
def watchdog(job: str) -> Iterator[Watchdog]:
    before = signal.getsignal(signal.SIGTERM)
    dog = Watchdog(job, RANKS, Runtime(), Preemption(), print)
    yield dog
    dog.close()
    signal.signal(signal.SIGTERM, before)


IDENTITY = {"recipe.seed": 0, "manifest_sha256": "ab", "code": "cd"}


def make_manager(
    job: str, watchdog: Watchdog, keep: int = 2, accept: bool = False, **identity: object
) -> CheckpointManager:
    known = {**IDENTITY, **identity}
    return CheckpointManager(
        job, RANKS, known, accept, CheckpointWriter(job, known, keep, Faults(job, 0), watchdog), None
    )


def files(job: str) -> list[str]:
    return [uri.rpartition("/")[2] for uri in store.list_uris(f"{job}/checkpoints/")]


def of(job: str, step: int, kind: str) -> str:
    """The one object of a step: ``state``, ``best`` or ``manifest``."""
    start, end = {
        "state": ("step-", ".safetensors"),
        "best": ("best-", ".safetensors"),
        "manifest": ("step-", ".json"),
    }[kind]
    (name,) = (n for n in files(job) if n.startswith(f"{start}{step:08d}") and n.endswith(end))
    return f"{job}/checkpoints/{name}"


def saved_twice(job: str, watchdog: Watchdog) -> TrainState:
    """Checkpoints after 2 and 5 steps; a copy of the state after 2."""
    state, older, manager = fresh(), fresh(), make_manager(job, watchdog)
    train(older, 2)
    train(state, 2)
    manager.save_and_wait(state)
    train(state, 3)
    manager.save_and_wait(state)
    return older


def flip(uri: str, at: int, bit: int = 0) -> None:
    data = bytearray(store.read(uri))
    data[at % len(data)] ^= 1 << bit
    store.write(uri, bytes(data))


def test_a_resumed_state_is_the_saved_one_to_the_last_bit(job: str, watchdog: Watchdog) -> None:
    state, other = fresh(0), fresh(1)
    train(state, 3)
    make_manager(job, watchdog).save_and_wait(state)
    assert not equal(state, other)
    assert make_manager(job, watchdog).resume(other)
    assert equal(state, other)
    assert states.sha256(state) == states.sha256(other)


def test_the_network_itself_is_what_was_resumed(job: str, watchdog: Watchdog) -> None:
    state, other = fresh(0), fresh(1)
    train(state, 3)
    make_manager(job, watchdog).save_and_wait(state)
    make_manager(job, watchdog).resume(other)
    expected = other.network.state_dict()
    assert all(torch.equal(t, expected[name]) for name, t in state.network.state_dict().items())


def test_without_checkpoints_there_is_nothing_to_resume(job: str, watchdog: Watchdog) -> None:
    state = fresh()
    assert not make_manager(job, watchdog).resume(state)
    assert equal(state, fresh())


def test_what_is_saved_is_the_state_when_saving_began(job: str, watchdog: Watchdog) -> None:
    state, then, other, manager = fresh(), fresh(), fresh(1), make_manager(job, watchdog)
    train(state, 2)
    train(then, 2)
    manager.save(state)
    train(state, 1)  # while it may still be written
    manager.wait()
    make_manager(job, watchdog).resume(other)
    assert equal(other, then)


@pytest.mark.parametrize("kind", ["state", "best", "manifest"])
def test_a_flipped_bit_anywhere_in_the_newest_makes_the_older_one_be_used(
    kind: str, job: str, watchdog: Watchdog
) -> None:
    older = saved_twice(job, watchdog)
    newest = of(job, 5, kind)
    sound, rng = store.read(newest), random.Random(0)
    for _ in range(15):
        store.write(newest, sound)
        flip(newest, rng.randrange(len(sound)), rng.randrange(8))
        state = fresh(1)
        assert make_manager(job, watchdog).resume(state)
        assert equal(state, older)


@pytest.mark.parametrize("kind", ["state", "best", "manifest"])
@pytest.mark.parametrize("keep_share", [0.0, 0.5, 0.99, None], ids=["empty", "half", "cut", "gone"])
def test_a_damaged_newest_makes_the_older_one_be_used(
    kind: str, keep_share: float | None, job: str, watchdog: Watchdog
) -> None:
    older = saved_twice(job, watchdog)
    newest = of(job, 5, kind)
    data = store.read(newest)
    if keep_share is None:
        store.delete(newest)
    else:
        store.write(newest, data[: int(len(data) * keep_share)])
    state = fresh(1)
    assert make_manager(job, watchdog).resume(state)
    assert equal(state, older)


def test_a_damaged_checkpoint_is_written_anew_when_training_comes_by_again(job: str, watchdog: Watchdog) -> None:
    saved_twice(job, watchdog)
    flip(of(job, 5, "manifest"), 100)
    flip(of(job, 5, "state"), 1000)
    state, again, manager = fresh(1), fresh(1), make_manager(job, watchdog)
    manager.resume(state)
    train(state, 3)
    manager.save_and_wait(state)
    make_manager(job, watchdog).resume(again)
    assert equal(state, again)


@pytest.mark.parametrize("how", ["flipped", "manifests gone"])
def test_when_none_verifies_training_does_not_start_over_in_silence(how: str, job: str, watchdog: Watchdog) -> None:
    saved_twice(job, watchdog)
    for step in (2, 5):
        if how == "flipped":
            flip(of(job, step, "state"), 1000)
        else:
            store.delete(of(job, step, "manifest"))
    state = fresh(1)
    with pytest.raises(ResumeError, match=r"none of the \d checkpoints .* verifies; delete that folder"):
        make_manager(job, watchdog).resume(state)
    assert equal(state, fresh(1))


def test_a_checkpoint_of_another_network_is_refused(job: str, watchdog: Watchdog) -> None:
    saved_twice(job, watchdog)
    with pytest.raises(ArtifactError, match=r"belongs to another network: \['conv.weight', \[4, 3, 1, 1\]\] where"):
        make_manager(job, watchdog).resume(fresh(width=8))


def test_a_damaged_later_one_does_not_crowd_out_what_is_written_now(job: str, watchdog: Watchdog) -> None:
    saved_twice(job, watchdog)
    flip(of(job, 5, "state"), 1000)
    state, again, manager = fresh(1), fresh(1), make_manager(job, watchdog, keep=1)
    manager.resume(state)
    train(state, 1)
    manager.save_and_wait(state)
    assert make_manager(job, watchdog).resume(again)
    assert equal(state, again)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_only_the_newest_are_kept(keep: int, job: str, watchdog: Watchdog) -> None:
    state, manager = fresh(), make_manager(job, watchdog, keep)
    for _ in range(4):
        train(state, 1)
        manager.save_and_wait(state)
    kept = sorted(n.split("-")[0] + n.split("-")[1] + n[n.index(".") :] for n in files(job) if "-" in n)
    steps = range(5 - keep, 5)
    assert kept == sorted(
        f"{a}{s:08d}{b}"
        for s in steps
        for a, b in (("step", ".json"), ("step", ".safetensors"), ("best", ".safetensors"))
    )


def test_the_best_weights_are_written_once_and_stay_while_a_checkpoint_names_them(job: str, watchdog: Watchdog) -> None:
    state, manager, other = fresh(), make_manager(job, watchdog, keep=1), fresh(1)
    train(state, 1)
    for _ in range(3):
        manager.save_and_wait(state)
        written = store.read(of(job, 1, "best"))
        state.values.add_(1)
        state.position.step += 1
    assert [n for n in files(job) if n.startswith("best")] == [of(job, 1, "best").rpartition("/")[2]]
    assert make_manager(job, watchdog).resume(other)
    assert torch.equal(other.best, state.best)
    assert len(written) > other.best.numel() * 4


POINTS = [
    "save",
    "save-state-open",
    "save-state-half",
    "save-state-done",
    "save-best-open",
    "save-best-half",
    "save-best-done",
    "save-manifest",
    "save-written",
    "save-prune",
    "save-prune-object",
    "save-end",
]
BEFORE_THE_MANIFEST = POINTS[:8]


@pytest.mark.fault
@pytest.mark.parametrize("point", with_slow_rest(POINTS, plain=4))
def test_a_process_killed_anywhere_in_a_save_leaves_the_last_whole_checkpoint(
    point: str, job: str, watchdog: Watchdog, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = fresh()
    train(state, 2)
    make_manager(job, watchdog, keep=1).save_and_wait(state)
    monkeypatch.setenv("FAULT", f"{point}@0:5=kill")
    train(state, 3)
    if (child := os.fork()) == 0:
        make_manager(job, watchdog, keep=1).save_and_wait(state)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    resumed = fresh(1)
    assert make_manager(job, watchdog).resume(resumed)
    assert resumed.position.step == (2 if point in BEFORE_THE_MANIFEST else 5)
    train(resumed, 5 - resumed.position.step)
    assert equal(resumed, state)
    manager = make_manager(job, watchdog, keep=1)
    manager.save_and_wait(resumed)
    assert len(files(job)) == 4  # one checkpoint of three objects, and the mark that there has been one


def test_a_job_with_another_identity_is_refused_with_the_difference(job: str, watchdog: Watchdog) -> None:
    saved_twice(job, watchdog)
    other = {"recipe.seed": 1, "code": "ef"}
    with pytest.raises(ChangedError, match=r"\(code: cd -> ef; recipe\.seed: 0 -> 1\).*--accept-changes"):
        make_manager(job, watchdog, **other).resume(fresh())


def test_accepted_changes_stand_in_the_lineage(job: str, watchdog: Watchdog) -> None:
    saved_twice(job, watchdog)
    state = fresh(1)
    assert make_manager(job, watchdog, accept=True, **{"recipe.seed": 1}).resume(state)
    assert state.position.accepted == [{"step": 5, "changes": ["recipe.seed: 0 -> 1"]}]


def test_the_identity_is_what_decides_the_result_and_not_how_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(kind="train", manifest_sha256="ab")
    known = lineage.identity(job)
    assert known["manifest_sha256"] == "ab"
    assert known["recipe.lr_per_256"] == 0.016
    job.runtime = Runtime(loader_threads=7)
    assert lineage.check(known, lineage.identity(job), accept=False, uri="") == []
    with monkeypatch.context() as without_library:
        other = None if lineage.native.load() else object()  # whether the library is there is another identity
        without_library.setattr("models.networks.native.load", lambda: other)
        with pytest.raises(ChangedError, match="layers"):
            lineage.check(known, lineage.identity(job), accept=False, uri="")
    monkeypatch.setattr(lineage, "code_digest", lambda: "other")
    with pytest.raises(ChangedError, match="code: "):
        lineage.check(known, lineage.identity(job), accept=False, uri="")


def test_a_checkpoint_is_a_file_that_safetensors_itself_reads(job: str, watchdog: Watchdog) -> None:
    saved_twice(job, watchdog)
    saved = checkpoint_format.load_newest(job)
    assert saved is not None
    assert set(saved.tensors) == set(fresh().tensors())
    assert saved.manifest["layout"][0] == ["conv.weight", [4, 3, 1, 1]]
