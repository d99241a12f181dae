"""Accuracy, calibration and per-class counts over a whole split; every sample counts once for any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from infra.errors import PreemptedError
from models.data.loading.device import to_device
from models.data.loading.loader import Loader
from models.networks.efficientnet.preprocessing import Normalize
from models.statistics import calibration_error
from models.training.distributed import Ranks, sum_over_ranks
from models.training.per_image import ANSWER

EVAL_BATCH = 64  # per rank


@dataclass(frozen=True)
class Accuracy:
    """Accuracies of ``n`` samples in percent, their mean cross-entropy, and per-class counts."""

    top1: float
    top5: float
    loss: float
    n: int
    class_correct: tuple[int, ...]  # correct at top-1
    class_total: tuple[int, ...]  # all samples
    correct: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_), compare=False)  # by sample id
    answers: NDArray[np.void] = field(default_factory=lambda: np.zeros(0, ANSWER), compare=False)  # by sample id

    @property
    def calibration_error(self) -> float:
        """Expected calibration error in percent."""
        return calibration_error(self.answers["probability"], self.correct)


@contextmanager
def full_float32() -> Iterator[None]:
    """Computes float32 products on GPUs exactly, not as TF32, in the context; a training may use TF32 (step.py)."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@full_float32()
@torch.inference_mode()
def evaluate(network: nn.Module, loader: Loader, ranks: Ranks, interrupted: Callable[[], bool]) -> Accuracy:
    """Evaluates in fp32, without TF32, on every sample of the loader's split; the same result on every rank.

    Args:
        network: Maps ``[N, 3, R, R]`` to logits ``[N, classes]``; set to evaluation mode.
        loader: Loader of the split.
        ranks: Position of this process. Ranks read disjoint parts of the split, so there is no padding to subtract.
        interrupted: Called after each batch; returning True ends the evaluation on this rank.

    Raises:
        PreemptedError: Some rank was interrupted; raised on all ranks.
    """
    network.eval()
    normalize = Normalize(ranks.device)
    counts = torch.zeros(3, dtype=torch.float64, device=ranks.device)  # top5, loss, interrupted
    # [correct, total] per class. Not bincount, which makes the host wait for the GPU to find the largest label.
    classes = torch.zeros((2, loader.classes), dtype=torch.float64, device=ranks.device)
    correct_by_id = torch.zeros(
        loader.samples, dtype=torch.uint8, device=ranks.device
    )  # no sample is read by two ranks
    answers_by_id = torch.zeros((loader.samples, 2), device=ranks.device)  # label and probability, both as float32
    batches = to_device(loader.eval_batches(EVAL_BATCH, ranks.rank, ranks.world_size), ranks.device)
    for batch in batches:
        labels = batch.labels
        logits = network(normalize(batch.images))
        best = logits.topk(min(5, logits.shape[1]), dim=1)
        hits = best.indices == labels[:, None]
        top1_hits = hits[:, 0].double()
        classes.index_add_(1, labels, torch.stack([top1_hits, torch.ones_like(top1_hits)]))
        ids = torch.from_numpy(batch.ids).to(ranks.device, non_blocking=True)
        correct_by_id.index_copy_(0, ids, hits[:, 0].to(torch.uint8))
        probabilities = (best.values[:, 0] - logits.logsumexp(1)).exp()
        answers_by_id.index_copy_(0, ids, torch.stack([best.indices[:, 0].float(), probabilities.float()], 1))
        counts[0] += hits.any(1).sum()
        counts[1] += nn.functional.cross_entropy(logits, labels, reduction="sum")
        if interrupted():
            counts[2] += 1
            break
    summed = sum_over_ranks(torch.cat([counts, classes.flatten()])).tolist()
    top5, loss, stopped = summed[:3]
    split_at = 3 + loader.classes
    correct, total = tuple(map(int, summed[3:split_at])), tuple(map(int, summed[split_at:]))
    if stopped:
        raise PreemptedError("termination requested during an evaluation")
    n = sum(total)
    by_id = sum_over_ranks(correct_by_id).cpu().numpy().astype(np.bool_)
    label, probability = sum_over_ranks(answers_by_id).cpu().numpy().T
    answers = np.zeros(len(label), ANSWER)
    answers["label"], answers["probability"] = label, np.nan_to_num(probability)  # NaN: the logits are not finite
    return Accuracy(100 * sum(correct) / n, 100 * top5 / n, loss / n, n, correct, total, by_id, answers)
