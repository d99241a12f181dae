"""torchrun entry point for evaluation: ``torchrun -m models.evaluate RUN_FOLDER_URI``."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import Any

import torch

from conf.schema import Job
from infra.errors import ConfigError
from models import worker
from models.data.loading.loader import Loader
from models.data.shards import manifest as manifests
from models.networks import weights
from models.training import per_image
from models.training.metrics import evaluate
from models.worker import Worker


def evaluate_job(job: Job, worker: Worker) -> dict[str, Any]:
    """Evaluates the job's weights on every sample of val exactly once; returns the contents of ``result.json``.

    Raises:
        ConfigError: The job names no weights.
        PreemptedError: Termination was requested.
        ArtifactError: The weights do not fit the network or the number of classes.
    """
    manifest = manifests.load_verified(job.manifest_uri, job.manifest_sha256, job.leave_out)
    if job.init_weights_uri is None:
        raise ConfigError(f"{worker.job_uri}: an evaluation needs init_weights_uri")
    network = weights.build_trained(job.model, len(manifest.classes), job.init_weights_uri, job.init_weights_sha256)
    network.to(worker.ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    cache_bytes, threads = int(job.runtime.cache_gb * 1e9), job.runtime.loader_threads
    with closing(
        Loader(manifest, job.manifest_uri, "val", network.resolution, job.augment, worker.cache, threads, cache_bytes)
    ) as loader:
        worker.watchdog.enter("eval")
        accuracy = evaluate(network, loader, worker.ranks, lambda: _check_interrupted(worker))
    counts: dict[str, Any] = {"class_correct": accuracy.class_correct, "class_total": accuracy.class_total}
    if worker.ranks.is_first:
        counts["correct_sha256"] = per_image.write(worker.job_uri, accuracy.correct)
        counts["answers_sha256"] = per_image.write_answers(worker.job_uri, accuracy.answers)
        counts["calibration_error"] = accuracy.calibration_error
    return {"top1": accuracy.top1, "top5": accuracy.top5, "n": accuracy.n, **counts}


def _check_interrupted(worker: Worker) -> bool:
    worker.watchdog.beat()
    if worker.progress is not None:
        worker.progress.report(state="running")  # or one longer than launch.stall_timeout_s would look like a dead job
    return worker.preemption.requested


def main() -> int:
    """Entry point of a rank; returns its exit code."""
    return worker.run(evaluate_job)


if __name__ == "__main__":
    sys.exit(main())
