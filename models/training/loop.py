"""The training loop: steps, evaluations, checkpoints; selects the final weights on minival."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from typing import NoReturn

from torch import nn

from conf.schema import Job
from infra import machine
from infra.errors import BelowTargetError, DivergedError, JobError, PreemptedError, TransientError
from models.data.loading.device import to_device
from models.data.loading.loader import Loader
from models.statistics import mean_per_class
from models.training import distributed, flat, per_image
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
LOSS_ROWS = 250  # rows with the training loss in the metrics of a job
_ADVICE = "lower recipe.lr_per_256 or lengthen recipe.warmup_epochs"


@dataclass
class Run:
    """Everything that one rank needs to train a job, and what it has observed so far."""

    job: Job
    job_uri: str
    ranks: Ranks
    train: Loader
    minival: Loader | None  # None if the job trains on it, so that no weights can be selected on it
    eval_network: nn.Module  # its tensors are views of state.average
    steps_per_epoch: int
    progress: Progress | None  # rank 0 only
    checkpoints: CheckpointManager
    stepper: Stepper
    ledger: Ledger | None
    watchdog: Watchdog
    preemption: Preemption
    faults: Faults
    startup: Startup
    last_loss: float = field(default=math.nan, init=False)
    loading: dict[str, float] = field(default_factory=dict, init=False)  # data-loading metrics of this rank
    corrupted: int = field(default=0, init=False)

    @property
    def total_steps(self) -> int:
        """Global steps of the whole job."""
        return self.steps_per_epoch * self.job.recipe.epochs

    @property
    def last_step(self) -> int:
        """The step at which this run stops; the learning-rate schedule does not depend on it."""
        return min(self.total_steps, self.steps_per_epoch * (self.job.until_epoch or self.job.recipe.epochs))

    @property
    def loss_interval(self) -> int:
        """Steps between two rows with the training loss in the metrics."""
        return max(1, self.total_steps // LOSS_ROWS)


class _RewindError(Exception):
    """Training must rewind to a checkpoint of at most ``before`` steps; raised on all ranks in the same step."""

    def __init__(self, message: str, before: int) -> None:
        super().__init__(message)
        self.before = before


class _CorruptedError(_RewindError):
    """The ranks' states differ, which indicates faulty hardware."""


def fit(run: Run, state: TrainState) -> None:
    """Trains from ``state.position.step`` to the end. ``state.best`` then holds the selected weights.

    If ``job.until_epoch`` stops it earlier, the state is saved and the same job can resume from there.

    Raises:
        DivergedError: The loss exploded or is not finite, and rewinding did not help.
        PreemptedError: Termination was requested on some rank; the state is saved.
        BelowTargetError: The accuracy is below that of ``runtime.stop_below``; the state is saved.
        CapacityError: Out of memory.
    """
    if distributed.any_rank(run.preemption.requested):
        _save_and_preempt(run, state)
    while state.position.step < run.last_step or not _epoch_end_handled(run, state):
        epoch, start_step = divmod(state.position.step, run.steps_per_epoch)
        try:
            if _epoch_end_handled(run, state):
                _check_target(run, state)
                _train_epoch(run, state, epoch, start_step)
            else:
                _end_epoch(run, state, epoch)
        except _RewindError as reason:
            _rewind(run, state, reason)
        except PreemptedError:
            _save_and_preempt(run, state)
    if run.last_step < run.total_steps:
        run.watchdog.enter("checkpoint")
        run.checkpoints.save_and_wait(state)
    elif run.minival is None:
        state.best.copy_(state.average)
        state.position.best_step = state.position.step


def _epoch_end_handled(run: Run, state: TrainState) -> bool:
    """Whether no end of an epoch is pending; after a resume, its evaluation may still have to run."""
    position = state.position
    return position.step % run.steps_per_epoch > 0 or position.epoch_ended == position.step


def _check_target(run: Run, state: TrainState) -> None:
    """Ends a training that is not worth its remaining epochs, also if it resumes from the epoch at which it ended."""
    job = run.job
    evaluated = [row for row in state.position.rows if "minival_top1" in row]
    for rule in job.runtime.stop_below if job.init_weights_uri is None else ():
        row = next((row for row in evaluated if row["epoch"] >= rule.epoch), None)
        if (rule.network, rule.data) != (job.model.name, job.data_name) or row is None:
            continue
        if row["minival_top1"] < rule.top1:
            _save_and_wait(run, state)
            raise BelowTargetError(
                f"top-1 on minival is {row['minival_top1']:.2f} % after epoch {row['epoch']:.0f}, below the "
                f"{rule.top1:g} % at epoch {rule.epoch} of runtime.stop_below; step {state.position.step} is saved, "
                "and the same command with runtime.stop_below=[] resumes from there"
            )


def _end_epoch(run: Run, state: TrainState, epoch: int) -> None:
    """Evaluates and saves a checkpoint if due at the end of an epoch."""
    recipe = run.job.recipe
    evaluates = state.position.step == run.total_steps or epoch % recipe.eval_every_epochs == 0
    if evaluates:
        _record_epoch(run, state, epoch)
    state.position.epoch_ended = state.position.step
    if evaluates or recipe.checkpoint_every_steps:
        _save_checkpoint(run, state)


def _train_epoch(run: Run, state: TrainState, epoch: int, start_step: int) -> None:
    """Trains to the end of the epoch."""
    recipe, ranks = run.job.recipe, run.ranks
    began = reported = time.monotonic()
    first_step, first_stats, seconds_before = state.position.step, run.train.stats(), state.position.train_seconds
    batches = run.train.train_batches(
        recipe.seed, epoch, start_step, recipe.global_batch, recipe.batch_slices, ranks.replica, ranks.replicas
    )

    def report() -> None:
        now = time.monotonic()
        run.loading = (run.train.stats() - first_stats).metrics(now - began)
        steps_per_s = (state.position.step - first_step) / max(now - began, 1e-9)
        _report(run, state, epoch, steps_per_s)

    for batch in to_device(batches, ranks.device):
        if not run.startup.over:
            run.startup.done("first batch")
        run.stepper.step(batch, run.preemption.requested)
        step = state.position.step
        run.watchdog.enter("step")
        if not run.startup.over:
            _report_startup(run)
        state.position.train_seconds = seconds_before + time.monotonic() - began
        if run.ledger is not None:
            run.ledger.note(step, batch)
        interval = recipe.checkpoint_every_steps
        saves = interval is not None and step % interval == 0 and step % run.steps_per_epoch > 0
        # Drained before a checkpoint, which must include what the last step did to health and metrics.
        for outcome in run.stepper.outcomes(drain=saves):
            _handle_outcome(run, state, outcome)
        if saves:
            _save_checkpoint(run, state)
        if time.monotonic() - reported >= REPORT_PERIOD_S:
            report()
            reported = time.monotonic()
    for outcome in run.stepper.outcomes(drain=True):
        _handle_outcome(run, state, outcome)
    report()


def _handle_outcome(run: Run, state: TrainState, outcome: Outcome) -> None:
    """Reacts to the outcome of a step. All ranks have the same numbers, so they make the same decision."""
    run.last_loss = outcome.loss
    if not outcome.finite:
        log.warning(
            "step %d changed nothing: loss %g, gradient norm %g", outcome.step, outcome.loss, outcome.gradient_norm
        )
    trouble = state.position.health.observe(outcome.loss, outcome.finite)
    if trouble is not None:
        # Not position.step, which is one step ahead on a GPU. A step with an exploded but finite loss changed weights.
        before = outcome.step - max(1, state.position.health.bad_in_row)
        raise _RewindError(f"step {outcome.step}: {trouble}", before)
    if outcome.finite and outcome.step % run.loss_interval == 0:
        epoch = (outcome.step - 1) // run.steps_per_epoch
        state.position.rows.append(
            {"step": outcome.step, "epoch": epoch, "time": time.time(), "train_loss": outcome.loss}
        )
    if outcome.stop:
        raise PreemptedError("termination requested")


def _record_epoch(run: Run, state: TrainState, epoch: int) -> None:
    """Adds the epoch's row to the metrics, with the scores of the averaged weights if there is a minival split."""
    position = state.position
    scores = _evaluate_minival(run, state, run.minival, epoch) if run.minival is not None else {}
    row = {
        "step": position.step,
        "epoch": epoch,
        "time": time.time(),
        **scores,
        "learning_rate": rate_at(run.job.recipe, position.step - 1, run.steps_per_epoch) * position.health.rate_scale,
        "images_per_s": position.step * run.job.recipe.global_batch / max(position.train_seconds, 1e-9),
        "peak_memory_gb": machine.peak_memory_gb(),
        **run.loading,
    }
    position.rows.append(row)
    if run.progress is not None:
        _write_rows(run, position.rows)
        if scores:
            run.progress.report(minival_top1=scores["minival_top1"], best_minival_top1=position.best_minival_top1)


def _write_rows(run: Run, rows: list[dict[str, float]]) -> None:
    """Writes all metrics rows; an unreachable store does not end training, since each write replaces the previous one.

    The rows are written once more before the result.
    """
    try:
        write_rows(run.job_uri, rows)
    except TransientError as error:
        log.warning(
            "metrics of step %d not written: %s; they will be written with the next ones", rows[-1]["step"], error
        )


def _evaluate_minival(run: Run, state: TrainState, minival: Loader, epoch: int) -> dict[str, float]:
    """Evaluates the averaged weights on minival and keeps them if they are the best so far."""
    run.watchdog.enter("eval")
    accuracy = evaluate(run.eval_network, minival, run.ranks, lambda: _check_interrupted(run, state, "eval"))
    run.watchdog.enter("step")
    _check_finite(accuracy, f"minival after epoch {epoch}")
    position = state.position
    if accuracy.top1 > position.best_minival_top1:
        position.best_minival_top1, position.best_step = accuracy.top1, position.step
        position.best_minival_correct = per_image.pack(accuracy.correct).hex()
        state.best.copy_(state.average)
    return {
        "minival_top1": accuracy.top1,
        "minival_top5": accuracy.top5,
        "minival_loss": accuracy.loss,
        "minival_mean_per_class": mean_per_class(accuracy.class_correct, accuracy.class_total).value,
    }


def last_evaluation(run: Run, state: TrainState, val: Loader) -> Accuracy:
    """Evaluates the selected weights on val, after ``fit``; afterwards ``run.eval_network`` holds them.

    Raises:
        DivergedError: The loss of the selected weights is not finite.
        PreemptedError: Termination was requested on some rank; the state is saved.
    """
    flat.bind(run.eval_network, state.layout, state.best)
    run.watchdog.enter("eval")
    try:
        accuracy = evaluate(run.eval_network, val, run.ranks, lambda: _check_interrupted(run, state, "last-eval"))
    except PreemptedError:
        _save_and_preempt(run, state)
    _check_finite(accuracy, "val")
    run.watchdog.enter("checkpoint")
    return accuracy


def _check_finite(accuracy: Accuracy, split: str) -> None:
    """Raises if the loss of the averaged weights is not finite."""
    if not math.isfinite(accuracy.loss):
        raise DivergedError(f"the averaged weights' loss on {split} is {accuracy.loss}; {_ADVICE}")


def _check_interrupted(run: Run, state: TrainState, site: str) -> bool:
    """Reports liveness after each evaluation batch; returns whether termination was requested."""
    run.watchdog.beat()
    if run.progress is not None:
        run.progress.report()  # or an evaluation longer than launch.stall_timeout_s would look like a dead job
    run.faults.at(site, state.position.step)
    return run.preemption.requested


def _save_and_preempt(run: Run, state: TrainState) -> NoReturn:
    """Saves the state on behalf of all ranks and raises PreemptedError."""
    _save_and_wait(run, state)
    raise PreemptedError(
        f"termination requested; saved after step {state.position.step}, the same command resumes from there"
    )


def _save_and_wait(run: Run, state: TrainState) -> None:
    """Saves the state before an end of the job.

    No rank exits before rank 0 has finished writing: torchrun terminates the others as soon as one is gone.
    """
    run.watchdog.enter("checkpoint")
    run.checkpoints.save_and_wait(state)
    run.preemption.saved()
    distributed.wait_for_all()


def _save_checkpoint(run: Run, state: TrainState) -> None:
    """Saves a checkpoint unless the last step was not finite; raises if the states of the ranks differ."""
    if state.position.health.bad_in_row:
        return
    run.watchdog.enter("checkpoint")
    if not run.checkpoints.ranks_agree(state):
        step = state.position.step
        raise _CorruptedError(
            f"step {step}: the ranks' weights differ, so at least one rank has corrupted values", step
        )
    run.checkpoints.save(state)
    run.watchdog.enter("step")


def _rewind(run: Run, state: TrainState, reason: _RewindError) -> None:
    """Restores the last checkpoint before the failure; halves the learning rate if the loss was the cause.

    Raises:
        DivergedError: The rewinds are used up, or there is no checkpoint.
        JobError: The ranks differed more than MAX_CORRUPTED times.
    """
    health, before = state.position.health, reason.before
    if isinstance(reason, _CorruptedError):
        run.corrupted += 1
        if run.corrupted > MAX_CORRUPTED:
            raise JobError(f"{reason}, for the {run.corrupted}th time: suspect the hardware")
    elif not health.may_rewind(before):
        raise DivergedError(f"{reason}; training has already been rewound {health.rewinds} times; {_ADVICE}")
    else:
        health = health.rewound(before)
    run.watchdog.enter("checkpoint")
    if run.ledger is not None:
        run.ledger.forget()
    run.stepper.forget()
    if not run.checkpoints.rewind(state, before):
        raise DivergedError(f"{reason}, and there is no checkpoint before it; {_ADVICE}")
    state.position.health = health
    run.watchdog.enter("step")
    log.warning("%s; rewound to step %d, learning rate x %g", reason, state.position.step, health.rate_scale)


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
