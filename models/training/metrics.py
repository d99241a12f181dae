"""Top-1, top-5 and counts by class over a whole split, each sample counted exactly once at any number of ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from infra.errors import PreemptedError
from models.data.loading.device import to_device
from models.data.loading.loader import Loader
from models.networks.efficientnet.preprocessing import Normalize
from models.training.distributed import Ranks, sum_over_ranks

EVAL_BATCH = 64  # a rank


@dataclass(frozen=True)
class Accuracy:
    """Percent correct of ``n`` samples, their mean cross-entropy, and counts of each class."""

    top1: float
    top5: float
    loss: float
    n: int
    class_correct: tuple[int, ...]  # right at top-1
    class_total: tuple[int, ...]  # all
    correct: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_), compare=False)  # by sample id


@torch.inference_mode()
def evaluate(network: nn.Module, loader: Loader, ranks: Ranks, interrupted: Callable[[], bool]) -> Accuracy:
    """Evaluates in fp32 on every sample of the loader's split; the same result on every rank.

    Args:
        network: logits ``[N, classes]`` from ``[N, 3, R, R]``; put into evaluation mode.
        loader: of the split.
        ranks: ranks read disjoint parts of it, so there is no padding to subtract.
        interrupted: called after each batch; True ends the evaluation on this rank.

    Raises:
        PreemptedError: some rank was interrupted, on all of them.
    """
    network.eval()
    normalise = Normalize(ranks.device)
    counts = torch.zeros(3, dtype=torch.float64, device=ranks.device)  # top5, loss, interrupted
    # [correct, total] by class. Not bincount, for which the host would wait on a GPU to learn the largest label.
    classes = torch.zeros((2, loader.classes), dtype=torch.float64, device=ranks.device)
    correct_by_id = torch.zeros(loader.samples, dtype=torch.uint8, device=ranks.device)  # no two ranks read one sample
    batches = to_device(loader.eval_batches(EVAL_BATCH, ranks.rank, ranks.world_size), ranks.device)
    for batch in batches:
        labels = batch.labels
        logits = network(normalise(batch.images))
        ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        right = ranked[:, 0].double()
        classes.index_add_(1, labels, torch.stack([right, torch.ones_like(right)]))
        ids = torch.from_numpy(batch.ids).to(ranks.device, non_blocking=True)
        correct_by_id.index_copy_(0, ids, ranked[:, 0].to(torch.uint8))
        counts[0] += ranked.any(1).sum()
        counts[1] += nn.functional.cross_entropy(logits, labels, reduction="sum")
        if interrupted():
            counts[2] += 1
            break
    summed = sum_over_ranks(torch.cat([counts, classes.flatten()])).tolist()
    top5, loss, stopped = summed[:3]
    correct, total = (tuple(map(int, each)) for each in (summed[3 : 3 + loader.classes], summed[3 + loader.classes :]))
    if stopped:
        raise PreemptedError("asked to end during an evaluation")
    n = sum(total)
    by_id = sum_over_ranks(correct_by_id).cpu().numpy().astype(np.bool_)
    return Accuracy(100 * sum(correct) / n, 100 * top5 / n, loss / n, n, correct, total, by_id)
