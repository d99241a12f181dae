"""torchrun entry point for training: ``torchrun -m models.train RUN_FOLDER_URI``. The same command resumes."""

from __future__ import annotations

import hashlib
import sys
from contextlib import closing
from dataclasses import replace
from typing import Any

import safetensors.torch
import torch
from torch import nn

from conf.schema import Job
from infra import store
from models import worker
from models.data.loading.loader import Loader
from models.data.loading.order import check_batch, steps_per_epoch
from models.data.shards import manifest as manifests
from models.networks import weights
from models.networks.build import build_model, compute_cost
from models.training import capacity, compiling, distributed, flat, per_image
from models.training.checkpoints import ledger, lineage
from models.training.checkpoints import state as states
from models.training.checkpoints.ledger import Ledger
from models.training.checkpoints.save_resume import CheckpointManager
from models.training.checkpoints.state import TrainState
from models.training.checkpoints.writer import CheckpointWriter
from models.training.loop import Run, fit, last_evaluation
from models.training.metrics import Accuracy
from models.training.step import Stepper
from models.training.supervision.progress import write_rows
from models.training.sync_norm import synchronize
from models.worker import Worker


def train(job: Job, worker: Worker) -> dict[str, Any]:
    """Runs or resumes one training job and returns the contents of ``result.json``.

    A run that stops at ``job.until_epoch`` returns only the epoch and step reached; a later run resumes the job from
    its checkpoint. Ranks other than 0 return an empty dict.

    Raises:
        ConfigError: The global batch does not fit the ranks or the data.
        DataError: The manifest, a shard or an image is damaged.
        DivergedError: The loss exploded or is not finite, and rewinding did not help.
        ArtifactError: The initial weights or a checkpoint do not fit the network.
        ResumeError, ChangedError: No checkpoint verifies, or the checkpoints belong to another job.
        PreemptedError: Termination was requested; the state is saved.
        CapacityError: Out of memory.
    """
    manifest = manifests.load_verified(job.manifest_uri, job.manifest_sha256, job.leave_out)
    recipe, runtime = job.recipe, job.runtime
    ranks = distributed.in_stages(worker.ranks, runtime.pipeline_stages)
    worker = replace(worker, ranks=ranks)
    check_batch(recipe.global_batch, recipe.batch_slices, ranks.replicas, manifest.samples(job.split))
    network = _build_network(job, len(manifest.classes), worker)
    network.recompute = capacity.must_recompute(job, len(manifest.classes), ranks)  # type: ignore[assignment]
    state = states.initial_state(network, recipe)
    worker.startup.done("network")
    manager = _build_checkpoint_manager(job, worker)
    if manager.resume(state) and worker.progress is not None:
        worker.progress.report(resumed_at=state.position.step)
    worker.startup.done("checkpoint")

    def loader(split: str) -> Loader:
        image_size, cache_bytes = int(network.resolution), int(runtime.cache_gb * 1e9)  # type: ignore[arg-type]
        cache, threads = worker.cache, runtime.loader_threads
        return Loader(manifest, job.manifest_uri, split, image_size, job.augment, cache, threads, cache_bytes)

    # Closed also when training fails: loader threads waiting for an unreachable store would keep the process alive.
    with closing(loader(job.split)) as training, closing(loader("minival")) as minival, closing(loader("val")) as val:
        steps = steps_per_epoch(training.samples, recipe.global_batch)
        compiled = compiling.compile_if_worth(network, job, ranks, recipe.epochs * steps - state.position.step)
        eval_network = _build_network(job, len(manifest.classes), worker)
        flat.bind(eval_network, state.layout, state.average)
        stepper = Stepper(job, ranks, state, steps, worker.watchdog, worker.faults)
        worker.faults.at("start", 0)
        selection = None if "minival" in job.split else minival
        run = _build_run(job, worker, training, selection, eval_network, steps, manager, stepper)
        fit(run, state)
        if run.last_step < run.total_steps:
            return {"epochs": job.until_epoch, "steps": state.position.step}
        accuracy = last_evaluation(run, state, val)
    manager.wait()
    sha256 = states.sha256(state)
    ledger_tail = manager.ledger.part() if manager.ledger is not None else None
    if not ranks.is_first:
        return {}
    write_rows(worker.job_uri, state.position.rows)  # an outage may have lost the last rows
    if ledger_tail is not None:
        ledger.finish(worker.job_uri, state.position.ledger, ledger_tail, sha256)
    n_minival = 0 if selection is None else minival.samples
    result = _write_result(job, worker.job_uri, state, eval_network, accuracy, n_minival)
    execution = {"world_size": ranks.world_size, "compiled": compiled, "state_sha256": sha256}
    return {**result, **execution, "accepted_changes": tuple(state.position.accepted)}


def _build_run(
    job: Job,
    worker: Worker,
    training: Loader,
    selection: Loader | None,
    eval_network: nn.Module,
    steps: int,
    manager: CheckpointManager,
    stepper: Stepper,
) -> Run:
    """Bundles what the training loop needs; ``selection`` is the split on which weights are chosen, if any."""
    return Run(
        job,
        worker.job_uri,
        worker.ranks,
        training,
        selection,
        eval_network,
        steps,
        worker.progress,
        manager,
        stepper,
        manager.ledger,
        worker.watchdog,
        worker.preemption,
        worker.faults,
        worker.startup,
    )


def _build_network(job: Job, classes: int, worker: Worker) -> nn.Module:
    """Builds the network as it is before step 0, identical on every rank."""
    torch.manual_seed(job.recipe.seed)
    network = build_model(job.model, classes, dropout=job.recipe.dropout)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = job.recipe.bn_momentum
    if job.init_weights_uri is not None:
        load = weights.load_weights if job.keep_classifier else weights.load_features
        load(network, job.init_weights_uri, job.init_weights_sha256)
    if job.recipe.bn_groups == "sync" and worker.ranks.world_size > 1:
        synchronize(network, worker.ranks.device)
    # On CPU, channels_last roughly halves the time of a training step (depthwise kernels).
    return network.to(worker.ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _build_checkpoint_manager(job: Job, worker: Worker) -> CheckpointManager:
    identity = lineage.identity(job)
    writer = None
    if worker.ranks.is_first:
        writer = CheckpointWriter(worker.job_uri, identity, job.recipe.keep_checkpoints, worker.faults, worker.watchdog)
    slices_per_rank = job.recipe.batch_slices // worker.ranks.replicas
    sample_ledger = Ledger(slices_per_rank, worker.ranks.stages) if job.runtime.ledger else None
    return CheckpointManager(worker.job_uri, worker.ranks, identity, job.runtime.accept_changes, writer, sample_ledger)


def _write_result(
    job: Job, job_uri: str, state: TrainState, network: nn.Module, accuracy: Accuracy, n_minival: int
) -> dict[str, Any]:
    """Writes the selected weights and returns the job's summary; the keys are those of models.results.TrainResult."""
    # Cloned, because safetensors rejects tensors that share memory, as views of one flat tensor do.
    serialized = safetensors.torch.save(
        {k: v.clone(memory_format=torch.contiguous_format) for k, v in network.state_dict().items()}
    )
    weights_uri = store.join(job_uri, "weights.safetensors")
    store.write(weights_uri, serialized)
    position = state.position
    classes = int(network.classifier.out_features)  # type: ignore[union-attr, arg-type]
    params, multiply_adds, resolution = compute_cost(job.model, classes)
    return {
        "model": job.model.name,
        "params": params,
        "multiply_adds": multiply_adds,
        "resolution": resolution,
        "classes": classes,
        "epochs": job.recipe.epochs,
        "steps": position.step,
        "top1": accuracy.top1,
        "top5": accuracy.top5,
        "n_val": accuracy.n,
        "class_correct": accuracy.class_correct,
        "class_total": accuracy.class_total,
        "correct_sha256": per_image.write(job_uri, accuracy.correct),
        "answers_sha256": per_image.write_answers(job_uri, accuracy.answers),
        "calibration_error": accuracy.calibration_error,
        "minival_correct_sha256": _write_minival(job_uri, position.best_minival_correct, n_minival),
        "minival_top1": position.best_minival_top1 if n_minival else 0.0,
        "n_minival": n_minival,
        "minutes": position.train_seconds / 60,
        "images_per_s": position.step * job.recipe.global_batch / position.train_seconds,
        "weights_uri": weights_uri,
        "weights_sha256": hashlib.sha256(serialized).hexdigest(),
    }


def _write_minival(job_uri: str, bits: str, n: int) -> str:
    """Writes which minival images the selected weights classify correctly; returns "" if that was not recorded."""
    if not bits or not n:
        return ""
    return per_image.write(job_uri, per_image.unpack(bytes.fromhex(bits), n), per_image.MINIVAL_CORRECT)


def main() -> int:
    """Entry point of a rank; returns its exit code."""
    return worker.run(train)


if __name__ == "__main__":
    sys.exit(main())
