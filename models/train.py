"""torchrun's door to training: ``torchrun -m models.train RUN_FOLDER_URI``; the same command resumes."""

from __future__ import annotations

import hashlib
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from conf.schema import Job
from infra import store
from models import worker
from models.build import build_scaled, counted
from models.data import manifest as manifests
from models.data.loader import Loader
from models.data.order import check_batch, steps_per_epoch
from models.training import checkpoint
from models.training.average import WeightAverage
from models.training.checkpoint import Position, TrainState
from models.training.distributed import Ranks, restart_count
from models.training.loop import Run, fit
from models.training.metrics import Accuracy, evaluate
from models.training.optim import build_optimizer
from models.training.progress import Progress


def train(job: Job, job_uri: str, ranks: Ranks, cache: Path, progress: Progress | None) -> dict[str, Any]:
    """Runs or resumes one training job and returns what becomes ``result.json``.

    Raises:
        ConfigError: the global batch does not fit the ranks or the data.
        DataError: manifest, shard or image is damaged.
        DivergedError: the loss is not finite.
        ArtifactError: checkpoints or initial weights are damaged or do not fit.
    """
    if progress is not None:
        progress.report(state="starting", restarts=restart_count())
    manifest = manifests.load_verified(job.manifest_uri, job.manifest_sha256)
    recipe = job.recipe
    check_batch(recipe.global_batch, recipe.logical_shards, ranks.world_size, manifest.samples("train"))
    state, eval_network = _fresh_state(job, len(manifest.classes), ranks)
    if checkpoint.resume(state, job_uri) and progress is not None:
        progress.report(resumed_at=state.position.step)

    def loader(split: str) -> Loader:
        side = int(state.network.resolution)  # type: ignore[arg-type]
        return Loader(
            manifest, job.manifest_uri, split, side, job.augment, cache, job.loader_threads, int(job.cache_gb * 1e9)
        )

    # Closed also when training fails: threads that wait for a store that is gone would keep the process alive.
    with closing(loader("train")) as train_loader, closing(loader("minival")) as minival, closing(loader("val")) as val:
        steps = steps_per_epoch(train_loader.samples, job.recipe.global_batch)
        fit(Run(job, job_uri, ranks, train_loader, minival, eval_network, steps, progress), state)
        eval_network.load_state_dict(state.best, strict=False)  # strict: BN's integer counters are not averaged
        accuracy = evaluate(eval_network, val, ranks)
    return _result(job, job_uri, state, eval_network, accuracy, minival.samples) if ranks.is_first else {}


def _fresh_state(job: Job, classes: int, ranks: Ranks) -> tuple[TrainState, nn.Module]:
    """Network, optimizer and average before step 0, and a second network for evaluation."""
    torch.manual_seed(job.recipe.seed)  # the same start on every rank

    def build() -> nn.Module:
        network = build_scaled(job.model, classes, dropout=job.recipe.dropout)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = job.recipe.bn_momentum
        # On CPU a training step takes about half the time that the contiguous layout needs (depthwise kernels).
        return network.to(ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    network = build()
    if job.init_weights_uri is not None:
        checkpoint.load_features(network, job.init_weights_uri, job.init_weights_sha256)
    average = WeightAverage(network, job.recipe.ema_decay)
    best = {name: tensor.clone() for name, tensor in average.tensors.items()}
    state = TrainState(network, build_optimizer(network, job.recipe), average, best, Position())
    return state, build()


def _result(
    job: Job, job_uri: str, state: TrainState, network: nn.Module, accuracy: Accuracy, n_minival: int
) -> dict[str, Any]:
    """Writes the chosen weights and sums the job up; the keys are those of models.results.TrainResult."""
    weights = safetensors.torch.save({k: v.contiguous() for k, v in network.state_dict().items()})
    weights_uri = store.join(job_uri, "weights.safetensors")
    store.write(weights_uri, weights)
    position = state.position
    classes = int(network.classifier.out_features)  # type: ignore[union-attr, arg-type]
    params, multiply_adds, resolution = counted(job.model, classes)
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
        "minival_top1": position.best_minival_top1,
        "n_minival": n_minival,
        "images_per_s": position.step * job.recipe.global_batch / position.train_seconds,
        "weights_uri": weights_uri,
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }


if __name__ == "__main__":
    sys.exit(worker.run(train))
