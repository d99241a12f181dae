"""The training loop: steps, evaluations, checkpoints; ends with the weights chosen on minival."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from typing import NoReturn

from torch import nn

from conf.schema import Job
from infra.errors import DivergedError, JobError, PreemptedError, TransientError
from models.data.loading.device import to_device
from models.data.loading.loader import Loader
from models.statistics import mean_per_class
from models.training import distributed, flat
from models.training.checkpoints.ledger import Ledger
from models.training.checkpoints.save_resume import CheckpointManager
from models.training.checkpoints.state import TrainState
from models.training.distributed import Ranks
from models.training.metrics import Accuracy, evaluate
from models.training.optim import rate_at
from models.training.step import Outcome, Stepper
from models.training.supervision.faults import Faults
from models.training.supervision.preemption import Preemption
from models.training.supervision.progress import Progress, write_rows
from models.training.supervision.startup import Startup
from models.training.supervision.watchdog import Watchdog

log = logging.getLogger("effnet")
REPORT_PERIOD_S = 1.0
MAX_CORRUPTED = 3
_ADVICE = "lower recipe.lr_per_256 or lengthen recipe.warmup_epochs"


@dataclass
class Run:
    """One job in the hands of one rank."""

    job: Job
    job_uri: str
    ranks: Ranks
    train: Loader
    minival: Loader | None  # None: the job trains on it, so nothing can be chosen on it
    eval_network: nn.Module  # its tensors are views of state.average
    steps_per_epoch: int
    progress: Progress | None  # rank 0 only
    persistence: CheckpointManager
    stepper: Stepper
    ledger: Ledger | None
    watchdog: Watchdog
    preemption: Preemption
    faults: Faults
    startup: Startup
    last_loss: float = field(default=math.nan, init=False)
    loading: dict[str, float] = field(default_factory=dict, init=False)  # how this rank's loading goes
    corrupted: int = field(default=0, init=False)

    @property
    def total_steps(self) -> int:
        """Global steps of the whole job."""
        return self.steps_per_epoch * self.job.recipe.epochs

    @property
    def last_step(self) -> int:
        """Where this run of the job ends; the schedule does not know of it."""
        return min(self.total_steps, self.steps_per_epoch * (self.job.until_epoch or self.job.recipe.epochs))


class _GoBackError(Exception):
    """Training must go back to a checkpoint of at most ``before`` steps; raised on all ranks in the same step."""

    def __init__(self, message: str, before: int) -> None:
        super().__init__(message)
        self.before = before


class _CorruptedError(_GoBackError):
    """The ranks' states differ, which only faulty hardware explains."""


def fit(run: Run, state: TrainState) -> None:
    """Trains from ``state.position.step`` to the end. ``state.best`` then holds the chosen weights.

    Where ``job.until_epoch`` ends it before, the state is saved and the same job goes on from there.

    Raises:
        DivergedError: the loss exploded or is not finite, and going back did not help.
        PreemptedError: some rank was asked to end; the state is saved.
        CapacityError: out of memory.
    """
    if distributed.any_rank(run.preemption.requested):
        _preempted(run, state)
    while state.position.step < run.last_step or not _epoch_ended(run, state):
        epoch, start_step = divmod(state.position.step, run.steps_per_epoch)
        try:
            if _epoch_ended(run, state):
                _epoch(run, state, epoch, start_step)
            else:
                _end_epoch(run, state, epoch)
        except _GoBackError as reason:
            _go_back(run, state, reason)
        except PreemptedError:
            _preempted(run, state)
    if run.last_step < run.total_steps:
        run.watchdog.enter("checkpoint")
        run.persistence.save_and_wait(state)
    elif run.minival is None:
        state.best.copy_(state.average)
        state.position.best_step = state.position.step


def _epoch_ended(run: Run, state: TrainState) -> bool:
    """Whether there is no end of an epoch to deal with; a resume may land before its evaluation."""
    position = state.position
    return position.step % run.steps_per_epoch > 0 or position.epoch_ended == position.step


def _end_epoch(run: Run, state: TrainState, epoch: int) -> None:
    """Evaluates and saves where due."""
    recipe = run.job.recipe
    evaluates = state.position.step == run.total_steps or epoch % recipe.eval_every_epochs == 0
    if evaluates:
        _evaluate(run, state, epoch)
    state.position.epoch_ended = state.position.step
    if evaluates or recipe.checkpoint_every_steps:
        _checkpoint(run, state)


def _epoch(run: Run, state: TrainState, epoch: int, start_step: int) -> None:
    """Trains to the end of an epoch."""
    recipe, ranks = run.job.recipe, run.ranks
    began = reported = time.monotonic()
    steps_then, stats_then, seconds_then = state.position.step, run.train.stats(), state.position.train_seconds
    batches = run.train.train_batches(
        recipe.seed, epoch, start_step, recipe.global_batch, recipe.logical_shards, ranks.replica, ranks.replicas
    )

    def report() -> None:
        now = time.monotonic()
        run.loading = (run.train.stats() - stats_then).metrics(now - began)
        steps_per_s = (state.position.step - steps_then) / max(now - began, 1e-9)
        _report(run, state, epoch, steps_per_s)

    for batch in to_device(batches, ranks.device):
        if not run.startup.over:
            run.startup.done("first batch")
        run.stepper.step(batch, run.preemption.requested)
        step = state.position.step
        run.watchdog.enter("step")
        if not run.startup.over:
            _report_startup(run)
        state.position.train_seconds = seconds_then + time.monotonic() - began
        if run.ledger is not None:
            run.ledger.note(step, batch)
        for outcome in run.stepper.outcomes():
            _look(run, state, outcome)
        every = recipe.checkpoint_every_steps
        if every and step % every == 0 and step % run.steps_per_epoch:
            _checkpoint(run, state)
        if time.monotonic() - reported >= REPORT_PERIOD_S:
            report()
            reported = time.monotonic()
    for outcome in run.stepper.outcomes(all_of_them=True):
        _look(run, state, outcome)
    report()


def _look(run: Run, state: TrainState, outcome: Outcome) -> None:
    """Decides what follows from a step; every rank has the same numbers and so decides the same."""
    run.last_loss = outcome.loss
    if not outcome.finite:
        log.warning(
            "step %d changed nothing: loss %g, gradient norm %g", outcome.step, outcome.loss, outcome.gradient_norm
        )
    trouble = state.position.health.observe(outcome.loss, outcome.finite)
    if trouble is not None:
        # Not position.step, which on a GPU is one further; a loss that exploded was finite, and so changed weights.
        before = outcome.step - max(1, state.position.health.bad_in_row)
        raise _GoBackError(f"step {outcome.step}: {trouble}", before)
    if outcome.stop:
        raise PreemptedError("asked to end")


def _evaluate(run: Run, state: TrainState, epoch: int) -> None:
    """Writes the epoch's row, with what the average scores on minival where there is one to choose on."""
    position = state.position
    scores = _scores(run, state, run.minival, epoch) if run.minival is not None else {}
    row = {
        "step": position.step,
        "epoch": epoch,
        "time": time.time(),
        **scores,
        "learning_rate": rate_at(run.job.recipe, position.step - 1, run.steps_per_epoch) * position.health.rate_scale,
        "images_per_s": position.step * run.job.recipe.global_batch / max(position.train_seconds, 1e-9),
        **run.loading,
    }
    position.rows.append(row)
    if run.progress is not None:
        _write_rows(run, position.rows)
        if scores:
            run.progress.report(minival_top1=scores["minival_top1"], best_minival_top1=position.best_minival_top1)


def _write_rows(run: Run, rows: list[dict[str, float]]) -> None:
    """A store that does not answer costs no epoch: each write replaces the one before, and the result waits for one."""
    try:
        write_rows(run.job_uri, rows)
    except TransientError as error:
        log.warning("metrics of step %d not written: %s; they follow with the next ones", rows[-1]["step"], error)


def _scores(run: Run, state: TrainState, minival: Loader, epoch: int) -> dict[str, float]:
    """Evaluates the average on minival and keeps it if it is the best yet."""
    run.watchdog.enter("eval")
    accuracy = evaluate(run.eval_network, minival, run.ranks, lambda: _interrupted(run, state, "eval"))
    run.watchdog.enter("step")
    _check_finite(accuracy, f"minival after epoch {epoch}")
    position = state.position
    if accuracy.top1 > position.best_minival_top1:
        position.best_minival_top1, position.best_step = accuracy.top1, position.step
        state.best.copy_(state.average)
    return {
        "minival_top1": accuracy.top1,
        "minival_top5": accuracy.top5,
        "minival_loss": accuracy.loss,
        "minival_mean_per_class": mean_per_class(accuracy.class_correct, accuracy.class_total).value,
    }


def last_evaluation(run: Run, state: TrainState, val: Loader) -> Accuracy:
    """The chosen weights on val, after ``fit``; afterwards they are in ``run.eval_network``.

    Raises:
        DivergedError: they predict nothing.
        PreemptedError: some rank was asked to end; the state is saved.
    """
    flat.bind(run.eval_network, state.layout, state.best)
    run.watchdog.enter("eval")
    try:
        accuracy = evaluate(run.eval_network, val, run.ranks, lambda: _interrupted(run, state, "last-eval"))
    except PreemptedError:
        _preempted(run, state)
    _check_finite(accuracy, "val")
    run.watchdog.enter("checkpoint")
    return accuracy


def _check_finite(accuracy: Accuracy, where: str) -> None:
    """Refuses averaged weights that predict nothing."""
    if not math.isfinite(accuracy.loss):
        raise DivergedError(f"the averaged weights' loss on {where} is {accuracy.loss}; {_ADVICE}")


def _interrupted(run: Run, state: TrainState, site: str) -> bool:
    """After each batch of an evaluation: signs of life, and whether to end."""
    run.watchdog.beat()
    if run.progress is not None:
        run.progress.report()  # else an evaluation longer than launch.stall_timeout_s would look like a dead job
    run.faults.at(site, state.position.step)
    return run.preemption.requested


def _preempted(run: Run, state: TrainState) -> NoReturn:
    run.watchdog.enter("checkpoint")
    run.persistence.save_and_wait(state)
    # Nobody ends before rank 0 has written for all: with the first that is gone torchrun ends the others.
    run.preemption.saved()
    distributed.wait_for_all()
    raise PreemptedError(f"asked to end; saved after step {state.position.step}, the same command goes on from there")


def _checkpoint(run: Run, state: TrainState) -> None:
    """Saves, unless a step has just failed or the last write is still under way; finds ranks that differ."""
    if state.position.health.bad_in_row:
        return
    run.watchdog.enter("checkpoint")
    if not run.persistence.ranks_agree(state):
        step = state.position.step
        raise _CorruptedError(f"step {step}: the ranks' weights differ, so one of them computed wrong", step)
    run.persistence.save(state)
    run.watchdog.enter("step")


def _go_back(run: Run, state: TrainState, reason: _GoBackError) -> None:
    """To the last checkpoint before the trouble, with half the learning rate where the loss was the trouble.

    Raises:
        DivergedError: it has been tried, or there is no checkpoint.
        JobError: ranks differed time and again.
    """
    health, before = state.position.health, reason.before
    if isinstance(reason, _CorruptedError):
        run.corrupted += 1
        if run.corrupted > MAX_CORRUPTED:
            raise JobError(f"{reason}, for the {run.corrupted}th time: suspect the hardware")
    elif not health.may_rewind(before):
        raise DivergedError(f"{reason}; it went back {health.rewinds} times before; {_ADVICE}")
    else:
        health = health.rewound(before)
    run.watchdog.enter("checkpoint")
    if run.ledger is not None:
        run.ledger.forget()
    run.stepper.forget()
    if not run.persistence.go_back(state, before):
        raise DivergedError(f"{reason}, and there is no checkpoint before it; {_ADVICE}")
    state.position.health = health
    run.watchdog.enter("step")
    log.warning("%s; gone back to step %d, learning rate x %g", reason, state.position.step, health.rate_scale)


def _report_startup(run: Run) -> None:
    parts = run.startup.finish()
    if run.progress is not None:
        run.progress.report(startup=parts, process_began=run.startup.began)


def _report(run: Run, state: TrainState, epoch: int, steps_per_s: float) -> None:
    if run.progress is not None:
        run.progress.report(
            state="running",
            epoch=epoch + 1,
            epochs=run.job.recipe.epochs,
            step=state.position.step,
            steps=run.total_steps,
            loss=run.last_loss,
            images_per_s=steps_per_s * run.job.recipe.global_batch,
            eta_s=(run.total_steps - state.position.step) / max(steps_per_s, 1e-9),
            **run.loading,
        )
