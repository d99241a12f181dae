"""The training loop: steps, evaluations, checkpoints; ends with the weights chosen on minival."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from conf.schema import Job
from infra.errors import DivergedError
from models.data.device import to_device
from models.data.loader import Loader
from models.data.mixing import mixed
from models.training import checkpoint
from models.training.checkpoint import TrainState
from models.training.distributed import Ranks, average_over_ranks, running_statistics
from models.training.metrics import Accuracy, Normalise, evaluate
from models.training.optim import rate_at
from models.training.progress import Progress, write_rows

REPORT_PERIOD_S = 1.0


@dataclass
class Run:
    """One job in the hands of one rank."""

    job: Job
    job_uri: str
    ranks: Ranks
    train: Loader
    minival: Loader
    eval_network: nn.Module  # a second copy that holds the average while it is evaluated
    steps_per_epoch: int
    progress: Progress | None  # rank 0 only

    @property
    def total_steps(self) -> int:
        """Global steps of the whole job."""
        return self.steps_per_epoch * self.job.recipe.epochs


def fit(run: Run, state: TrainState) -> None:
    """Trains from ``state.position.step`` to the end. ``state.best`` then holds the chosen weights.

    Raises:
        DivergedError: the loss is not finite.
    """
    step_once = _stepper(run, state)
    while state.position.step < run.total_steps:
        epoch, start_step = divmod(state.position.step, run.steps_per_epoch)
        loading = _epoch(run, state, step_once, epoch, start_step)
        last = state.position.step == run.total_steps
        if last or (epoch + 1) % run.job.recipe.eval_every_epochs == 0:
            _evaluate(run, state, epoch + 1, loading)
            _save(run, state)
        elif run.job.recipe.checkpoint_every_steps:
            _save(run, state)


def _stepper(run: Run, state: TrainState) -> Callable[[Tensor, Tensor], Tensor]:
    """Returns the step function: uint8 images and labels in, detached loss (on the device) out."""
    recipe, ranks = run.job.recipe, run.ranks
    # Buffers stay each rank's own between evaluations (BN per rank, as in the official code without sync).
    model: nn.Module = state.network
    if ranks.world_size > 1:
        model = DistributedDataParallel(state.network, forward_sync_buffers=False, gradient_as_bucket_view=True)
    criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    normalise = Normalise(ranks.device)
    classes = int(state.network.classifier.out_features)  # type: ignore[union-attr, arg-type]
    bf16 = recipe.precision == "bf16" or (
        recipe.precision == "auto" and ranks.device.type == "cuda" and torch.cuda.is_bf16_supported()
    )

    def step_once(images: Tensor, labels: Tensor) -> Tensor:
        step = state.position.step
        # Dropout and stochastic depth draw from here: a function of (seed, step, rank), so a resume is exact.
        torch.manual_seed(((recipe.seed * 1_000_003 + step) * 65_536 + ranks.rank) % 2**63)
        for group in state.optimizer.param_groups:
            group["lr"] = rate_at(recipe, step, run.steps_per_epoch)
        model.train()
        inputs, targets = _mixed(run, step, normalise(images), labels, classes)
        with torch.autocast(ranks.device.type, torch.bfloat16, enabled=bf16):
            loss: Tensor = criterion(model(inputs), targets)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
        state.position.step = step + 1
        state.average.update(step + 1)
        return loss.detach()

    return step_once


def _mixed(run: Run, step: int, images: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Erases and mixes within each logical shard of this rank, if the data set asks for it.

    The random numbers are a function of (seed, step, logical shard), whoever has the shard.
    """
    augment, recipe, ranks = run.job.augment, run.job.recipe, run.ranks
    if not (augment.erase_prob or augment.mixup_alpha or augment.cutmix_alpha):
        return images, labels
    own = recipe.logical_shards // ranks.world_size
    parts = []
    for number, (part, targets) in enumerate(zip(images.chunk(own), labels.chunk(own), strict=True), ranks.rank * own):
        # The upper half of the numbers of a step; the lower half belongs to dropout, by rank.
        seed = ((recipe.seed * 1_000_003 + step) * 65_536 + 32_768 + number) % 2**63
        parts.append(mixed(part, targets, classes, augment, torch.Generator().manual_seed(seed)))
    return torch.cat([part for part, _ in parts]), torch.cat([targets for _, targets in parts])


def _epoch(
    run: Run, state: TrainState, step_once: Callable[[Tensor, Tensor], Tensor], epoch: int, start_step: int
) -> dict[str, float]:
    """Trains to the end of an epoch; returns how this rank's loading went."""
    recipe, ranks = run.job.recipe, run.ranks
    began = reported = timed = time.monotonic()
    steps_then, stats_then = state.position.step, run.train.stats()
    batches = run.train.train_batches(
        recipe.seed, epoch, start_step, recipe.global_batch, recipe.logical_shards, ranks.rank, ranks.world_size
    )
    loss = torch.tensor(0.0)
    for batch in to_device(batches, ranks.device):
        loss = step_once(batch.images, batch.labels)
        if (now := time.monotonic()) - reported >= REPORT_PERIOD_S:
            loading = (run.train.stats() - stats_then).metrics(now - began)
            _report(run, state, loss, epoch, (state.position.step - steps_then) / (now - began), loading)
            reported = now
        every = recipe.checkpoint_every_steps
        if every and state.position.step % every == 0 and state.position.step % run.steps_per_epoch:
            state.position.train_seconds += time.monotonic() - timed
            _save(run, state)
            timed = time.monotonic()
    now = time.monotonic()
    state.position.train_seconds += now - timed
    loading = (run.train.stats() - stats_then).metrics(now - began)
    _report(run, state, loss, epoch, (state.position.step - steps_then) / max(now - began, 1e-9), loading)
    return loading


def _report(
    run: Run, state: TrainState, loss: Tensor, epoch: int, steps_per_s: float, loading: dict[str, float]
) -> None:
    """Reads the loss back (the only host synchronisation), checks it, tells the supervisor."""
    value = float(loss)
    if not math.isfinite(value):
        raise DivergedError(
            f"loss is {value} at step {state.position.step}; lower recipe.lr_per_256 or lengthen recipe.warmup_epochs"
        )
    if run.progress is not None:
        run.progress.report(
            state="running",
            epoch=epoch + 1,
            epochs=run.job.recipe.epochs,
            step=state.position.step,
            steps=run.total_steps,
            loss=value,
            images_per_s=steps_per_s * run.job.recipe.global_batch,
            eta_s=(run.total_steps - state.position.step) / max(steps_per_s, 1e-9),
            **loading,
        )


def _evaluate(run: Run, state: TrainState, epoch: int, loading: dict[str, float]) -> None:
    """Evaluates the average on minival, keeps it if it is the best yet, and writes the epoch's row."""
    _synchronise_statistics(state)
    state.average.copy_to(run.eval_network)
    accuracy: Accuracy = evaluate(run.eval_network, run.minival, run.ranks)
    position = state.position
    if accuracy.top1 > position.best_minival_top1:
        position.best_minival_top1 = accuracy.top1
        for name, tensor in state.average.tensors.items():
            state.best[name].copy_(tensor)
    row = {
        "step": position.step,
        "epoch": epoch,
        "time": time.time(),
        "minival_top1": accuracy.top1,
        "minival_top5": accuracy.top5,
        "minival_loss": accuracy.loss,
        "learning_rate": rate_at(run.job.recipe, position.step - 1, run.steps_per_epoch),
        "images_per_s": position.step * run.job.recipe.global_batch / max(position.train_seconds, 1e-9),
        **loading,
    }
    position.rows.append(row)
    if run.progress is not None:
        write_rows(run.job_uri, position.rows)
        run.progress.report(minival_top1=accuracy.top1, best_minival_top1=position.best_minival_top1)


def _synchronise_statistics(state: TrainState) -> None:
    """Averages BN statistics over the ranks, so that rank 0's checkpoint is every rank's checkpoint."""
    names = running_statistics(state.network)
    buffers = dict(state.network.named_buffers())
    average_over_ranks([buffers[n] for n in names] + [state.average.tensors[n] for n in names])


def _save(run: Run, state: TrainState) -> None:
    _synchronise_statistics(state)
    if run.ranks.is_first:
        checkpoint.save(state, run.job_uri, run.job.recipe.keep_checkpoints)
