"""One global training step: passes over this rank's batch slices, one all-reduce, one masked update.

The global batch consists of L fixed *batch slices* (``recipe.batch_slices``); each of W ranks computes L / W of
them. A pass is one forward and backward computation over one batch slice (``recipe.bn_groups=slice``) or several.
Batch statistics and the random draws of dropout and stochastic depth are per pass; with one batch slice per pass,
the result depends only on (seed, step, batch slice), not on the number of ranks.

Ranks exchange one flat tensor, the message, summed once per step::

    message = [ gradients | new BN running statistics | loss, stop, 0 ... ]

Each pass's contribution is weighted by its fraction of the global batch, so the sum is the mean. For L = 2 the sum of
two floats does not depend on which rank holds them: training on one rank and on two ends with identical bits. For
larger L the order of summation depends on W, so results differ by rounding.

Each pass starts from the BN running statistics at the beginning of the step, and the step ends with their mean over
all passes: the statistics are updated once per step, regardless of the number of passes ("deferred" batch norm). In
the official code each core updates its own statistics, and those of the first core are kept.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from conf.schema import Job, Recipe
from infra import machine
from infra.errors import CapacityError, ConfigError
from models.data.loading.loader import Batch
from models.data.loading.mixup import mix_batch
from models.networks.efficientnet.preprocessing import Normalize
from models.networks.memory import slices_per_pass
from models.training import average
from models.training.checkpoints.state import TrainState
from models.training.distributed import Ranks, sum_over_ranks
from models.training.optim import rate_at
from models.training.pipeline import Pipeline
from models.training.supervision.faults import Faults
from models.training.supervision.watchdog import Watchdog

log = logging.getLogger("effnet")
_LOSS, _STOP = 0, 1  # positions in the message, after gradients and statistics


@dataclass(frozen=True)
class Outcome:
    """Numbers of a finished step, on the host; identical on every rank."""

    step: int  # finished steps: the first is 1
    loss: float
    gradient_norm: float
    stop: bool  # whether any rank requested termination

    @property
    def finite(self) -> bool:
        """Whether loss and gradient norm are finite; otherwise the step changed nothing."""
        return all(abs(x) < float("inf") for x in (self.loss, self.gradient_norm))


class Stepper:
    """Runs global training steps on this rank.

    Args:
        job: The job, for its recipe and augmentation.
        ranks: Position of this process in the job.
        state: The training state, updated in place.
        steps_per_epoch: Steps per epoch, for the learning-rate schedule.
        watchdog: Watchdog to notify while this rank waits for others.
        faults: Injected faults, for tests.
    """

    def __init__(
        self, job: Job, ranks: Ranks, state: TrainState, steps_per_epoch: int, watchdog: Watchdog, faults: Faults
    ) -> None:
        self.job, self.ranks, self.state = job, ranks, state
        self.steps_per_epoch, self.watchdog, self.faults = steps_per_epoch, watchdog, faults
        recipe = job.recipe
        self.slices_per_rank = recipe.batch_slices // ranks.replicas
        self.slices_per_pass = slices_per_pass(recipe, ranks.replicas)
        if self.slices_per_rank % self.slices_per_pass:
            raise ConfigError(
                f"recipe.slices_per_pass={self.slices_per_pass} does not divide the {self.slices_per_rank} batch "
                "slices of each rank"
            )
        self.passes = self.slices_per_rank // self.slices_per_pass
        self.pass_weight = self.slices_per_pass / recipe.batch_slices  # fraction of the global batch in one pass
        self.criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self.normalize = Normalize(ranks.device)
        self.classes = int(state.network.classifier.out_features)  # type: ignore[union-attr, arg-type]
        self.bf16 = set_precision(recipe, ranks.device)
        layout, message = state.layout, state.message
        self.statistics = state.values[layout.parameters :]
        self.gradients = message[: layout.parameters]
        self.new_statistics = message[layout.parameters : layout.size]
        self.numbers = message[layout.size :]
        self._forward: Callable[[int], AbstractContextManager[Any]] = nullcontext  # of the current step
        self.pipeline: Pipeline | None = None
        if ranks.stages > 1:
            if recipe.bn_groups == "sync":
                raise ConfigError("recipe.bn_groups=sync is incompatible with runtime.pipeline_stages > 1")
            self.pipeline = Pipeline(
                state.network,
                layout,
                ranks,
                self.passes,
                job.runtime.micro_batches or ranks.stages,
                self.bf16,
                lambda number: self._forward(number),
                self._pass_loss,
            )
        self._outcomes: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def step(self, batch: Batch, stop: bool) -> None:
        """Runs the next step.

        Args:
            batch: This rank's images and labels, its batch slices in order.
            stop: Whether this rank was asked to terminate; the message passes it on to all ranks.

        Raises:
            CapacityError: Out of memory even though activations are recomputed, or where ranks depend on the messages
                of each other's passes.
        """
        step, layout = self.state.position.step, self.state.layout
        self._compute(batch, step)
        self.numbers[_STOP] = float(stop)
        self.faults.at("step", step + 1)
        with self.watchdog.waiting():
            sum_over_ranks(self.state.message)
        norm = torch.linalg.vector_norm(self.gradients)
        self._update(step, norm)
        self.state.position.step = step + 1
        self._queue_outcome(step + 1, torch.stack([self.numbers[_LOSS], norm, self.numbers[_STOP]]))
        if self.faults.at("state", step + 1) == "flip":
            # A middle bit of the mantissa: later updates can round a difference in the last bit away again.
            self.state.values[: layout.size].view(torch.int32)[0] ^= 1 << 16

    def outcomes(self, drain: bool = False) -> list[Outcome]:
        """Returns the outcomes not yet returned.

        On a GPU the newest one is kept for the next call unless ``drain`` is set, so that the host does not wait.
        """
        ready = []
        while len(self._outcomes) > (0 if drain or self.ranks.device.type == "cpu" else 1):
            step, numbers, copied = self._outcomes.popleft()
            if copied is not None:
                copied.synchronize()
            loss, norm, stop = numbers.tolist()
            ready.append(Outcome(step, loss, norm, stop > 0))
        return ready

    def forget(self) -> None:
        """Drops pending outcomes, because training rewinds to a checkpoint."""
        self._outcomes.clear()

    def _compute(self, batch: Batch, step: int) -> None:
        """Runs all passes of this rank; if out of memory, retries once with activation recomputation."""
        network, before = self.state.network, self.statistics.clone()
        try:
            self._run_passes(batch, step, before)
            return
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            # In a pipeline, and in synchronized batch norm, the other ranks would wait for the retry's messages.
            together = self.pipeline is not None or (self.job.recipe.bn_groups == "sync" and self.ranks.world_size > 1)
            if network.recompute or together:
                raise CapacityError(self._describe_capacity(batch)) from error
        log.warning(
            "out of memory in step %d: activations are recomputed from now on (recipe.recompute=true); "
            "the result is the same, a step takes about a third longer",
            step + 1,
        )
        self.statistics.copy_(before)
        network.recompute = True  # type: ignore[assignment]
        if self.ranks.device.type == "cuda":
            torch.cuda.empty_cache()
        self._compute(batch, step)

    def _describe_capacity(self, batch: Batch) -> str:
        images = len(batch.labels) // self.slices_per_rank * self.slices_per_pass
        recomputed = bool(self.state.network.recompute)
        return (
            f"out of memory with {images} images of {self.state.network.resolution} px per pass and activations "
            f"{'recomputed' if recomputed else 'in memory'} (peak {machine.peak_memory_gb():.1f} GB in this process); "
            + ("" if recomputed or self.pipeline is not None else "set recipe.recompute=true, ")
            + "raise recipe.batch_slices (smaller passes, other batch-norm groups), or use a machine with more memory"
        )

    def _run_passes(self, batch: Batch, step: int, before: Tensor) -> None:
        """Accumulates gradients, new statistics and loss in the message; the live statistics stay ``before``."""
        if not self.state.network.training:  # setting it visits every module: half a millisecond
            self.state.network.train()
        self.state.message.zero_()
        chunks = zip(batch.images.chunk(self.passes), batch.labels.chunk(self.passes), strict=True)
        inputs = (self._prepare_inputs(*pair, step, number) for number, pair in enumerate(chunks))
        self._forward = partial(self._pass_context, step, before)
        if self.pipeline is not None:
            pairs = list(inputs)
            self.pipeline.step(torch.cat([images for images, _ in pairs]), torch.cat([target for _, target in pairs]))
            self.new_statistics.mul_(self.pipeline.statistics_mask)
            return
        for number, (images, targets) in enumerate(inputs):
            with self._forward(number):
                logits = self.state.network(images)
            self._pass_loss(logits, targets).backward()  # type: ignore[no-untyped-call]

    @contextmanager
    def _pass_context(self, step: int, before: Tensor, number: int) -> Iterator[None]:
        """Wraps forward pass ``number`` of a step: seeds it, sets its precision, collects its BN statistics."""
        torch.manual_seed(self._pass_seed(step, number) % 2**63)  # for dropout and stochastic depth
        with self._autocast():
            yield
        self.new_statistics.add_(self.statistics, alpha=self.pass_weight)
        self.statistics.copy_(before)

    def _pass_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns a pass's contribution to the mean loss of the global batch, and adds it to the message."""
        with self._autocast():
            loss: Tensor = self.criterion(logits, targets) * self.pass_weight
        self.numbers[_LOSS] += loss.detach()
        return loss

    def _pass_seed(self, step: int, number: int) -> int:
        """Returns the seed of pass ``number`` of a step, derived from the pass's first batch slice."""
        first = self.ranks.replica * self.slices_per_rank + number * self.slices_per_pass
        return (self.job.recipe.seed * 1_000_003 + step) * 65_536 + first

    def _prepare_inputs(self, images: Tensor, labels: Tensor, step: int, number: int) -> tuple[Tensor, Tensor]:
        """Returns images and targets of pass ``number``: normalized, mixed if configured, with injected faults."""
        inputs, targets = self._mix(self.normalize(images), labels, self._pass_seed(step, number))
        fault = self.faults.at("batch", step + 1)
        if fault == "nan":
            inputs = inputs * float("nan")
        if fault == "oom" and not self.state.network.recompute:
            raise torch.OutOfMemoryError("injected by FAULT")
        return inputs, targets

    def _autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self.bf16)

    def _mix(self, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Applies random erasing, mixup and cutmix within each batch slice, if the data set configures them."""
        augment = self.job.augment
        if not (augment.erase_prob or augment.mixup_alpha or augment.cutmix_alpha):
            return images, labels
        mixed = []
        for number, (part, targets) in enumerate(
            zip(images.chunk(self.slices_per_pass), labels.chunk(self.slices_per_pass), strict=True)
        ):
            # The upper half of the seeds of a step; the lower half is used for dropout and stochastic depth.
            generator = torch.Generator().manual_seed((seed + 32_768 + number) % 2**63)
            mixed.append(mix_batch(part, targets, self.classes, augment, generator))
        return torch.cat([part for part, _ in mixed]), torch.cat([targets for _, targets in mixed])

    @torch.no_grad()
    def _update(self, step: int, norm: Tensor) -> None:
        """Updates weights, BN statistics and average; a non-finite step changes nothing, without a host sync."""
        state, recipe = self.state, self.job.recipe
        bad = ~torch.isfinite(norm + self.numbers[_LOSS])
        self.statistics.copy_(torch.where(bad, self.statistics, self.new_statistics))
        state.optimizer.found_inf = bad.float()
        state.optimizer.lr = rate_at(recipe, step, self.steps_per_epoch) * state.position.health.rate_scale
        state.optimizer.step()
        average.update(state.average, state.values, recipe.ema_decay, step + 1, (~bad).float())

    def _queue_outcome(self, step: int, numbers: Tensor) -> None:
        """Queues a step's numbers for the host; on a GPU the copy is asynchronous."""
        if not numbers.is_cuda:
            self._outcomes.append((step, numbers, None))
            return
        host = torch.empty(numbers.shape, pin_memory=True)
        host.copy_(numbers, non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()
        self._outcomes.append((step, host, copied))


def set_precision(recipe: Recipe, device: torch.device) -> bool:
    """Sets the precision of matrix multiplication; returns whether to run under bfloat16 autocast."""
    auto = recipe.precision == "auto"
    bf16 = recipe.precision == "bf16" or (auto and device.type == "cuda" and torch.cuda.is_bf16_supported())
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = recipe.precision in ("tf32", "bf16") or auto
        torch.backends.cudnn.allow_tf32 = recipe.precision in ("tf32", "bf16") or auto
    return bf16


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether the error means out of memory; the CPU allocator raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)
