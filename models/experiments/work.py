"""The work of training jobs, and the time that it takes on processors of a known speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from conf import schema
from models.experiments.full_run import GPU_BYTES
from models.experiments.processors import Processor
from models.networks.build import compute_cost
from models.networks.memory import STEP_PER_FORWARD, micro_batches_in_flight, passes_per_step, recomputes_on_gpu

# Source: the log of `make reproduce`, two cores of an AMD EPYC, commit `7e70acd`, n = 1 (benchmarks/README.md)
JOB_S = 5.5  # of one job: from its last step to the first of the next one, evaluations excluded
COMMAND_S = 28.0  # services, flow, shards and report of a command
_FLATS = 4  # float32 vectors in a checkpoint: weights, average, and two of the optimizer


@dataclass(frozen=True)
class Parallelism:
    """How the processes of a job share its work.

    Attributes:
        replicas: Copies of the network, each of which computes its share of every batch.
        stages: Pipeline stages of a copy, each on a process.
        micro_batches: Micro-batches concurrently in the pipeline, as in ``runtime.micro_batches``.
        gpu_bytes: Memory of the GPU of a process.
    """

    replicas: int = 1
    stages: int = 1
    micro_batches: int | None = None
    gpu_bytes: float = GPU_BYTES

    def idle_share(self, recipe: schema.Recipe) -> float:
        """Time for which a stage waits for others, as a share of that in which it computes; stages take as long each.

        Source: GPipe (Huang et al., 2018), section 2.3: with K stages and M micro-batches, K - 1 of M + K - 1.
        """
        passes = passes_per_step(recipe, min(self.replicas, recipe.batch_slices))
        return (self.stages - 1) / micro_batches_in_flight(passes, self.micro_batches or self.stages)


def parallelism_of(config: schema.Config, gpu_bytes: float = GPU_BYTES) -> Parallelism:
    """How the processes of a command's jobs share their work.

    Args:
        config: Configuration of the command.
        gpu_bytes: Memory of a GPU.
    """
    return Parallelism(config.replicas, config.runtime.pipeline_stages, config.runtime.micro_batches, gpu_bytes)


@dataclass(frozen=True)
class Work:
    """Trainings that belong together, without those that are stored.

    Attributes:
        name: For people.
        jobs: Number of trainings.
        steps: Steps of all of them.
        images: Training images of all of them, each counted once per epoch.
        evaluated: Images of all their evaluations.
        multiply_adds: Of one image and one forward pass; the mean over their work where the networks differ.
        stored: Bytes of checkpoints and weights in the object store.
        done: Number of trainings that are stored already.
        recomputed: Of the images, those whose activations are recomputed because the recipe says so.
        exceeding: Of the images, those whose activations only a GPU recomputes, because they exceed its memory.
        idle: Images that the processes could have trained while pipeline stages waited for each other.
    """

    name: str
    jobs: int
    steps: int
    images: int
    evaluated: int
    multiply_adds: int
    stored: int
    done: int = 0
    recomputed: int = 0
    exceeding: int = 0
    idle: int = 0

    def seconds(self, processor: Processor) -> float:
        """Seconds of one processor that trains, evaluates, waits for other stages, and does nothing else."""
        forward = self.evaluated + self.recomputed + (self.exceeding if processor.memory_bytes else 0)
        return (self.images + self.idle + forward / STEP_PER_FORWARD) / processor.images_per_s(self.multiply_adds)

    def wall_s(self, processor: Processor, processes: int) -> float:
        """Seconds of all jobs, one after another, each on that many processors, if the speed grows with their number.

        Args:
            processor: Kind of processor.
            processes: Number of processes of a job.
        """
        return self.seconds(processor) / processes + self.steps * processor.step_s + self.jobs * JOB_S


def total_wall_s(works: Sequence[Work], processor: Processor, launch: schema.Launch) -> float:
    """Returns the seconds that a command takes which does this work, ``launch.jobs_at_once`` jobs at a time."""
    processes = launch.processes
    at_once = max(1, min(launch.jobs_at_once, sum(work.jobs for work in works)))
    jobs_with_processors = processor.available(at_once * processes) / processes
    trained_s = sum(work.wall_s(processor, processes) - work.jobs * JOB_S for work in works)
    started_s = sum(work.jobs for work in works) * JOB_S  # mostly waits, so that the other jobs train meanwhile
    return trained_s / jobs_with_processors + started_s / at_once + COMMAND_S


def count_training(
    recipe: schema.Recipe,
    model: schema.Model,
    classes: int,
    splits: tuple[int, int, int],
    parallelism: Parallelism | None = None,
) -> Work:
    """Counts one training.

    Args:
        recipe: Recipe.
        model: Network.
        classes: Number of classes.
        splits: Numbers of train, minival and val images.
        parallelism: How the processes share it; None for a single process.
    """
    train, minival, val = splits
    images = recipe.epochs * (train // recipe.global_batch) * recipe.global_batch
    evaluated = -(-recipe.epochs // recipe.eval_every_epochs) * minival + val
    return count_jobs(recipe, model, classes, parallelism or Parallelism(), 1, images, evaluated)


def count_jobs(
    recipe: schema.Recipe,
    model: schema.Model,
    classes: int,
    parallelism: Parallelism,
    jobs: int,
    images: int,
    evaluated: int,
) -> Work:
    """Returns the work of trainings of one network by one recipe.

    Args:
        recipe: Recipe.
        model: Network.
        classes: Number of classes.
        parallelism: How the processes share it.
        jobs: Number of trainings.
        images: Training images of all of them.
        evaluated: Images of all their evaluations.
    """
    params, multiply_adds, _ = compute_cost(model, classes)
    replicas, stages, gpu_bytes = parallelism.replicas, parallelism.stages, parallelism.gpu_bytes
    recomputed = images if recipe.recompute else 0
    exceeds = recomputes_on_gpu(model, recipe, classes, replicas, gpu_bytes, stages) and not recomputed
    return Work(
        name="",
        jobs=jobs,
        steps=images // recipe.global_batch,
        images=images,
        evaluated=evaluated,
        multiply_adds=multiply_adds,
        stored=jobs * _count_stored(recipe, params),
        recomputed=recomputed,
        exceeding=images if exceeds else 0,
        idle=round((images + recomputed / STEP_PER_FORWARD) * parallelism.idle_share(recipe)),
    )


def _count_stored(recipe: schema.Recipe, params: int) -> int:
    """Bytes that a job leaves in the store: checkpoints, the best average, and the weights of the result."""
    return 4 * params * (recipe.keep_checkpoints * _FLATS + 2)


def drop_stored(work: Work) -> Work:
    """Returns the work of trainings that are stored: none."""
    return Work(work.name, 0, 0, 0, 0, work.multiply_adds, 0, done=work.jobs)


def sum_works(name: str, works: Sequence[Work]) -> Work:
    """Returns the sum of several works under one name."""
    images = sum(work.images for work in works)
    weights = [work.images + work.evaluated / STEP_PER_FORWARD for work in works]
    mean = sum(work.multiply_adds * weight for work, weight in zip(works, weights, strict=True)) / max(1, sum(weights))
    jobs, steps, evaluated, stored, done, recomputed, exceeding, idle = (
        sum(getattr(work, key) for work in works)
        for key in ("jobs", "steps", "evaluated", "stored", "done", "recomputed", "exceeding", "idle")
    )
    return Work(name, jobs, steps, images, evaluated, round(mean), stored, done, recomputed, exceeding, idle)
