"""One global step: passes over this rank's logical shards, one message between ranks, one masked update.

The global batch is L fixed *logical shards* (``recipe.logical_shards``); of W ranks each computes L / W of them. A
pass is what is computed at once: one logical shard (``recipe.bn_groups=shard``), or several. Batch statistics,
dropout and stochastic depth belong to a pass; with one logical shard a pass, what is computed hangs on
(seed, step, logical shard) and not on how many ranks there are.

What ranks tell each other is one flat tensor, summed once a step::

    message = [ gradients | new BN running statistics | loss, stop, 0 ... ]

Every pass's part is weighted by its share of the global batch, so the sum is the mean. For L = 2 the sum of two floats
is the same whoever holds them: one rank and two ranks train to the same bits. For larger L the order of the sum
differs with W, by rounding.

Each pass starts from the BN running statistics that the step began with, and their mean over all passes is what the
step ends with: statistics move once a step, however many passes it has. Source: shared design, "deferred" batch
norm; the official code's cores each move their own and keep the first one's.
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
from models.training import average
from models.training.checkpoints.state import TrainState
from models.training.distributed import Ranks, sum_over_ranks
from models.training.memory import slices_per_pass
from models.training.optim import rate_at
from models.training.pipeline import Pipeline
from models.training.supervision.faults import Faults
from models.training.supervision.watchdog import Watchdog

log = logging.getLogger("effnet")
_LOSS, _STOP = 0, 1  # places behind gradients and statistics in the message


@dataclass(frozen=True)
class Outcome:
    """What a step came to, for the host; the same on every rank."""

    step: int  # counted as finished: the first is 1
    loss: float
    gradient_norm: float
    stop: bool  # some rank was asked to end

    @property
    def finite(self) -> bool:
        """Whether the step changed anything."""
        return all(abs(x) < float("inf") for x in (self.loss, self.gradient_norm))


class Stepper:
    """Makes global steps on this rank.

    Args:
        job: its recipe and augmentation.
        ranks: this process.
        state: what is changed.
        steps_per_epoch: for the schedule.
        watchdog: told of waiting.
        faults: for tests.
    """

    def __init__(
        self, job: Job, ranks: Ranks, state: TrainState, steps_per_epoch: int, watchdog: Watchdog, faults: Faults
    ) -> None:
        self.job, self.ranks, self.state = job, ranks, state
        self.steps_per_epoch, self.watchdog, self.faults = steps_per_epoch, watchdog, faults
        recipe = job.recipe
        self.own = recipe.logical_shards // ranks.replicas
        self.at_once = slices_per_pass(recipe, ranks.replicas)
        if self.own % self.at_once:
            raise ConfigError(
                f"recipe.shards_per_pass {self.at_once} does not divide the {self.own} logical shards of a rank"
            )
        self.passes = self.own // self.at_once
        self.share = self.at_once / recipe.logical_shards  # of a pass in the global batch
        self.criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self.normalise = Normalize(ranks.device)
        self.classes = int(state.network.classifier.out_features)  # type: ignore[union-attr, arg-type]
        self.bf16 = set_precision(recipe, ranks.device)
        layout, message = state.layout, state.message
        self.statistics = state.values[layout.parameters :]
        self.gradients = message[: layout.parameters]
        self.new_statistics = message[layout.parameters : layout.size]
        self.numbers = message[layout.size :]
        self._forward: Callable[[int], AbstractContextManager[Any]] = nullcontext  # of the step under way
        self.pipeline: Pipeline | None = None
        if ranks.stages > 1:
            if recipe.bn_groups == "sync":
                raise ConfigError("recipe.bn_groups=sync cannot be had with runtime.pipeline_stages > 1")
            self.pipeline = Pipeline(
                state.network,
                layout,
                ranks,
                self.passes,
                job.runtime.micro_batches or ranks.stages,
                self.bf16,
                lambda number: self._forward(number),
                self._loss,
            )
        self._outcomes: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def step(self, batch: Batch, stop: bool) -> None:
        """Makes the next step.

        Args:
            batch: this rank's part, its logical shards side by side.
            stop: this rank has been asked to end; all learn of it.

        Raises:
            CapacityError: out of memory although activations are computed again.
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
        self._tell(step + 1, torch.stack([self.numbers[_LOSS], norm, self.numbers[_STOP]]))
        if self.faults.at("state", step + 1) == "flip":
            self.state.values[: layout.size].view(torch.int32)[0] ^= 1

    def outcomes(self, all_of_them: bool = False) -> list[Outcome]:
        """Steps that the host has not yet heard of. On a GPU the newest is left for later, so that nobody waits."""
        ready = []
        while len(self._outcomes) > (0 if all_of_them or self.ranks.device.type == "cpu" else 1):
            step, numbers, copied = self._outcomes.popleft()
            if copied is not None:
                copied.synchronize()
            loss, norm, stop = numbers.tolist()
            ready.append(Outcome(step, loss, norm, stop > 0))
        return ready

    def forget(self) -> None:
        """Drops what the host has not heard of: training goes back."""
        self._outcomes.clear()

    def _compute(self, batch: Batch, step: int) -> None:
        """All passes of this rank into the message; out of memory, once more with activations computed again."""
        network, before = self.state.network, self.statistics.clone()
        try:
            self._passes(batch, step, before)
            return
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            if network.recompute or self.pipeline is not None:  # other stages would wait for this one's second try
                raise CapacityError(self._too_large(batch)) from error
        log.warning(
            "out of memory in step %d: from now on activations are computed again (recipe.recompute=true); "
            "the result is the same, a step takes about a third longer",
            step + 1,
        )
        self.statistics.copy_(before)
        network.recompute = True  # type: ignore[assignment]
        if self.ranks.device.type == "cuda":
            torch.cuda.empty_cache()
        self._compute(batch, step)

    def _too_large(self, batch: Batch) -> str:
        images = len(batch.labels) // self.own * self.at_once
        return (
            f"out of memory with {images} images of {self.state.network.resolution} px at once and activations "
            f"computed again (peak {machine.peak_memory_gb():.1f} GB of this process); raise recipe.logical_shards "
            "(smaller passes, other batch-norm groups), or take a machine with more memory"
        )

    def _passes(self, batch: Batch, step: int, before: Tensor) -> None:
        """Gradients, new statistics and loss into the message; the statistics themselves stay ``before``."""
        self.state.network.train()
        self.state.message.zero_()
        parts = zip(batch.images.chunk(self.passes), batch.labels.chunk(self.passes), strict=True)
        inputs = (self._inputs(*part, step, number) for number, part in enumerate(parts))
        self._forward = partial(self._one_pass, step, before)
        if self.pipeline is not None:
            parts_of_both = list(inputs)
            self.pipeline.step(torch.cat([i for i, _ in parts_of_both]), torch.cat([t for _, t in parts_of_both]))
            self.new_statistics.mul_(self.pipeline.own_statistics)
            return
        for number, (images, targets) in enumerate(inputs):
            with self._forward(number):
                logits = self.state.network(images)
            self._loss(logits, targets).backward()  # type: ignore[no-untyped-call]

    @contextmanager
    def _one_pass(self, step: int, before: Tensor, number: int) -> Iterator[None]:
        """Around the forward pass ``number`` of a step: its random numbers, its precision, its statistics."""
        torch.manual_seed(self._seed(step, number) % 2**63)  # for dropout and stochastic depth
        with self._autocast():
            yield
        self.new_statistics.add_(self.statistics, alpha=self.share)
        self.statistics.copy_(before)

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """A pass's part of the global batch's mean loss; noted in the message."""
        with self._autocast():
            loss: Tensor = self.criterion(logits, targets) * self.share
        self.numbers[_LOSS] += loss.detach()
        return loss

    def _seed(self, step: int, number: int) -> int:
        """Of pass ``number`` of a step: by the logical shard that it begins with."""
        shard = self.ranks.replica * self.own + number * self.at_once
        return (self.job.recipe.seed * 1_000_003 + step) * 65_536 + shard

    def _inputs(self, images: Tensor, labels: Tensor, step: int, number: int) -> tuple[Tensor, Tensor]:
        """Images and targets of pass ``number``."""
        inputs, targets = self._mixed(self.normalise(images), labels, self._seed(step, number))
        fault = self.faults.at("batch", step + 1)
        if fault == "nan":
            inputs = inputs * float("nan")
        if fault == "oom" and not self.state.network.recompute:
            raise torch.OutOfMemoryError("as asked for by FAULT")
        return inputs, targets

    def _autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self.bf16)

    def _mixed(self, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Erases and mixes within each logical shard, if the data set asks for it."""
        augment = self.job.augment
        if not (augment.erase_prob or augment.mixup_alpha or augment.cutmix_alpha):
            return images, labels
        parts = []
        for number, (part, targets) in enumerate(
            zip(images.chunk(self.at_once), labels.chunk(self.at_once), strict=True)
        ):
            # The upper half of the numbers of a step; the lower half belongs to dropout.
            generator = torch.Generator().manual_seed((seed + 32_768 + number) % 2**63)
            parts.append(mix_batch(part, targets, self.classes, augment, generator))
        return torch.cat([part for part, _ in parts]), torch.cat([targets for _, targets in parts])

    @torch.no_grad()
    def _update(self, step: int, norm: Tensor) -> None:
        """Optimizer, BN statistics and average. Where a number is not finite, nothing changes; no one waits to know."""
        state, recipe = self.state, self.job.recipe
        bad = ~torch.isfinite(norm + self.numbers[_LOSS])
        self.statistics.copy_(torch.where(bad, self.statistics, self.new_statistics))
        state.optimizer.found_inf = bad.float()
        state.optimizer.lr = rate_at(recipe, step, self.steps_per_epoch) * state.position.health.rate_scale
        state.optimizer.step()
        average.update(state.average, state.values, recipe.ema_decay, step + 1, (~bad).float())

    def _tell(self, step: int, numbers: Tensor) -> None:
        """Sends a step's numbers to the host, which looks at them later."""
        if not numbers.is_cuda:
            self._outcomes.append((step, numbers, None))
            return
        here = torch.empty(numbers.shape, pin_memory=True)
        here.copy_(numbers, non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()
        self._outcomes.append((step, here, copied))


def set_precision(recipe: Recipe, device: torch.device) -> bool:
    """Sets how matrices are multiplied; returns whether to run under bfloat16 autocast."""
    auto = recipe.precision == "auto"
    bf16 = recipe.precision == "bf16" or (auto and device.type == "cuda" and torch.cuda.is_bf16_supported())
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = recipe.precision in ("tf32", "bf16") or auto
        torch.backends.cudnn.allow_tf32 = recipe.precision in ("tf32", "bf16") or auto
    return bf16


def _is_out_of_memory(error: BaseException) -> bool:
    """Also the CPU allocator's, which is a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)
