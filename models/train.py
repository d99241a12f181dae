"""torchrun's door to training: ``torchrun -m models.train RUN_FOLDER_URI``; the same command resumes."""

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
from infra.errors import ConfigError
from models import worker
from models.data.loading.loader import Loader
from models.data.loading.order import check_batch, steps_per_epoch
from models.data.shards import manifest as manifests
from models.networks import weights
from models.networks.build import build_model, compute_cost
from models.training import compiling, distributed, flat, per_image
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
from models.worker import Worker


def train(job: Job, worker: Worker) -> dict[str, Any]:
    """Runs or resumes one training job and returns what becomes ``result.json``.

    A run that ends at ``job.until_epoch`` says only where it stands; the job goes on from its checkpoint.

    Raises:
        ConfigError: the global batch does not fit the ranks or the data.
        DataError: manifest, shard or image is damaged.
        DivergedError: the loss exploded or is not finite, and going back did not help.
        ArtifactError: initial weights or a checkpoint do not fit the network.
        ResumeError, ChangedError: the checkpoints do not verify, or are of another job.
        PreemptedError: asked to end; saved.
        CapacityError: out of memory.
    """
    manifest = manifests.load_verified(job.manifest_uri, job.manifest_sha256, job.leave_out)
    recipe, runtime = job.recipe, job.runtime
    ranks = distributed.in_stages(worker.ranks, runtime.pipeline_stages)
    worker = replace(worker, ranks=ranks)
    check_batch(recipe.global_batch, recipe.logical_shards, ranks.replicas, manifest.samples(job.split))
    network = _network(job, len(manifest.classes), worker)
    state = states.initial_state(network, recipe)
    worker.startup.done("network")
    persistence = _persistence(job, worker)
    if persistence.resume(state) and worker.progress is not None:
        worker.progress.report(resumed_at=state.position.step)
    worker.startup.done("checkpoint")

    def loader(split: str) -> Loader:
        cap, side = int(runtime.cache_gb * 1e9), int(network.resolution)  # type: ignore[arg-type]
        return Loader(manifest, job.manifest_uri, split, side, job.augment, worker.cache, runtime.loader_threads, cap)

    # Closed also when training fails: threads that wait for a store that is gone would keep the process alive.
    with closing(loader(job.split)) as training, closing(loader("minival")) as minival, closing(loader("val")) as val:
        steps = steps_per_epoch(training.samples, recipe.global_batch)
        compiled = compiling.compile_if_worth(network, job, ranks, recipe.epochs * steps - state.position.step)
        eval_network = _network(job, len(manifest.classes), worker)
        flat.bind(eval_network, state.layout, state.average)
        stepper = Stepper(job, ranks, state, steps, worker.watchdog, worker.faults)
        worker.faults.at("start", 0)
        chosen_on = None if "minival" in job.split else minival
        run = _run(job, worker, training, chosen_on, eval_network, steps, persistence, stepper)
        fit(run, state)
        if run.last_step < run.total_steps:
            return {"epochs": job.until_epoch, "steps": state.position.step}
        accuracy = last_evaluation(run, state, val)
    n_minival = 0 if chosen_on is None else minival.samples
    state_sha256 = _finish(worker, persistence, state)
    if not ranks.is_first:
        return {}
    result = _result(job, worker.job_uri, state, eval_network, accuracy, n_minival)
    how = {"world_size": ranks.world_size, "compiled": compiled, "state_sha256": state_sha256}
    return {**result, **how, "accepted_changes": tuple(state.position.accepted)}


def _run(
    job: Job,
    worker: Worker,
    training: Loader,
    chosen_on: Loader | None,
    eval_network: nn.Module,
    steps: int,
    persistence: CheckpointManager,
    stepper: Stepper,
) -> Run:
    """What the loop needs, in one object."""
    return Run(
        job,
        worker.job_uri,
        worker.ranks,
        training,
        chosen_on,
        eval_network,
        steps,
        worker.progress,
        persistence,
        stepper,
        persistence.ledger,
        worker.watchdog,
        worker.preemption,
        worker.faults,
        worker.startup,
    )


def _finish(worker: Worker, persistence: CheckpointManager, state: TrainState) -> str:
    """Waits for the last checkpoint and completes the run folder's logs; returns the sha256 of the final state."""
    persistence.wait()
    sha256 = states.sha256(state)
    rest = persistence.ledger.part() if persistence.ledger is not None else None
    if worker.ranks.is_first:
        write_rows(worker.job_uri, state.position.rows)  # an outage may have cost the last ones
        if rest is not None:
            ledger.finish(worker.job_uri, state.position.ledger, rest, sha256)
    return sha256


def _network(job: Job, classes: int, worker: Worker) -> nn.Module:
    """The network before step 0, the same on every rank."""
    torch.manual_seed(job.recipe.seed)
    network = build_model(job.model, classes, dropout=job.recipe.dropout)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = job.recipe.bn_momentum
    network.recompute = job.recipe.recompute
    if job.init_weights_uri is not None:
        weights.load_features(network, job.init_weights_uri, job.init_weights_sha256)
    if job.recipe.bn_groups == "sync" and worker.ranks.world_size > 1:
        if worker.ranks.device.type != "cuda":
            raise ConfigError("recipe.bn_groups=sync needs GPUs (torch has it for CUDA only); take shard or rank")
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    # On CPU a training step takes about half the time that the contiguous layout needs (depthwise kernels).
    return network.to(worker.ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _persistence(job: Job, worker: Worker) -> CheckpointManager:
    identity = lineage.identity(job)
    saver = None
    if worker.ranks.is_first:
        saver = CheckpointWriter(worker.job_uri, identity, job.recipe.keep_checkpoints, worker.faults, worker.watchdog)
    own_shards = job.recipe.logical_shards // worker.ranks.replicas
    book = Ledger(own_shards, worker.ranks.stages) if job.runtime.ledger else None
    return CheckpointManager(worker.job_uri, worker.ranks, identity, job.runtime.accept_changes, saver, book)


def _result(
    job: Job, job_uri: str, state: TrainState, network: nn.Module, accuracy: Accuracy, n_minival: int
) -> dict[str, Any]:
    """Writes the chosen weights and sums the job up; the keys are those of models.results.TrainResult."""
    # Cloned: views of one flat tensor share their memory, which safetensors refuses.
    chosen = safetensors.torch.save(
        {k: v.clone(memory_format=torch.contiguous_format) for k, v in network.state_dict().items()}
    )
    weights_uri = store.join(job_uri, "weights.safetensors")
    store.write(weights_uri, chosen)
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
        "minival_top1": position.best_minival_top1 if n_minival else 0.0,
        "n_minival": n_minival,
        "images_per_s": position.step * job.recipe.global_batch / position.train_seconds,
        "weights_uri": weights_uri,
        "weights_sha256": hashlib.sha256(chosen).hexdigest(),
    }


if __name__ == "__main__":
    sys.exit(worker.run(train))
