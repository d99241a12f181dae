"""RMSProp as TensorFlow defines it, AdamW and SGD beside it, and the learning-rate schedules.

Source: tensorflow/python/training/rmsprop.py; official utils.py (``build_optimizer``,
``build_learning_rate``) and main.py (the L2 term).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from conf.schema import Recipe
from models.training.flat import Layout

_PIECE = 2**18  # floats: six of them are 6 MB


class TFRMSProp(Optimizer):
    """RMSProp with momentum and coupled L2, in TensorFlow's form.

    Differs from ``torch.optim.RMSprop`` in three ways: the mean square starts at one, epsilon stands inside
    the root, and the learning rate is multiplied into the momentum buffer, so that a later change of the
    rate does not scale old gradients::

        ms  = decay * ms + (1 - decay) * g^2          ms_0 = 1
        mom = momentum * mom + lr * g / sqrt(ms + eps)
        w   = w - mom

    Made for few large flat parameters (``models/training/flat.py``): each is updated by itself, on a CPU in pieces
    that stay in its cache from one operation to the next.

    Attributes:
        found_inf: None, or a scalar tensor that is 1 where the step must change nothing, else 0. torch's own fused
            optimizers have the same. The host does not wait for it.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        decay: float = 0.9,
        momentum: float = 0.9,
        epsilon: float = 1e-3,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "decay": decay, "momentum": momentum, "epsilon": epsilon, "weight_decay": 0.0}
        )
        self.found_inf: Tensor | None = None
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p] = {"mean_square": torch.ones_like(p), "momentum": torch.zeros_like(p)}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        if closure is not None:
            raise ValueError("TFRMSProp takes no closure")
        go = 1.0 if self.found_inf is None else 1.0 - self.found_inf
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    tensors = (p, p.grad, self.state[p]["mean_square"], self.state[p]["momentum"])
                    for part in zip(*pieces(tensors), strict=True):
                        weight, grad, mean_square, momentum = part
                        self._update(weight, grad, mean_square, momentum, group, go)

    def _update(
        self, weight: Tensor, grad: Tensor, mean_square: Tensor, momentum: Tensor, group: dict[str, Any], go: Any
    ) -> None:
        """``go`` is 1, or 0 for no change at all: every factor then is exactly 1 and every summand exactly 0."""
        grad = grad.add(weight, alpha=group["weight_decay"])
        if self.found_inf is not None:
            grad.masked_fill_(self.found_inf > 0, 0.0)
        mean_square.lerp_(grad.square(), (1 - group["decay"]) * go)
        moved = grad.div(mean_square.add(group["epsilon"]).sqrt_()).mul_(group["lr"] * go)
        momentum.mul_(1 - (1 - group["momentum"]) * go).add_(moved)
        weight.sub_(torch.mul(momentum, go, out=moved))


def pieces(tensors: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    """Equal tensors cut alike: on a CPU into pieces that fit its cache, elsewhere not at all.

    What is done piece by piece then needs memory for one piece, where whole temporaries of a large network would each
    be fetched from the system and zeroed page by page.
    """
    cut = all(t.device.type == "cpu" and t.dim() == 1 for t in tensors)
    return [torch.split(t, _PIECE) if cut else [t] for t in tensors]


def build_optimizer(values: Tensor, gradients: Tensor, layout: Layout, recipe: Recipe) -> Optimizer:
    """The recipe's optimizer over the flat parameters; the rate is set at each step.

    Args:
        values: ``[size]``, of which the parameters are updated in place.
        gradients: ``[parameters]``, where it finds them.
        layout: what of them is decayed.
        recipe: optimizer, its numbers, weight decay.
    """
    groups: list[dict[str, Any]] = []
    for start, end, decay in ((0, layout.decayed, recipe.weight_decay), (layout.decayed, layout.parameters, 0.0)):
        parameter = nn.Parameter(values[start:end])
        parameter.grad = gradients[start:end]
        groups.append({"params": [parameter], "weight_decay": decay})
    if recipe.optimizer == "adamw":
        return _adamw(groups, peak_rate(recipe))
    if recipe.optimizer == "sgd":
        return _sgd(groups, peak_rate(recipe), recipe.momentum)
    return TFRMSProp(
        groups,
        lr=peak_rate(recipe),
        decay=recipe.rmsprop_decay,
        momentum=recipe.momentum,
        epsilon=recipe.rmsprop_epsilon,
    )


def _adamw(groups: list[dict[str, Any]], rate: float) -> AdamW:
    """Fused, with its state made at once and not at the first step, so that a checkpoint always has all of it."""
    optimizer = AdamW(groups, lr=rate, fused=True)
    for group in optimizer.param_groups:
        for p in group["params"]:
            optimizer.state[p] = {
                "step": torch.zeros((), device=p.device),
                "exp_avg": torch.zeros_like(p),
                "exp_avg_sq": torch.zeros_like(p),
            }
    return optimizer


def _sgd(groups: list[dict[str, Any]], rate: float, momentum: float) -> SGD:
    """With Nesterov's momentum and coupled L2; fused, with its state made at once, as ``_adamw``."""
    optimizer = SGD(groups, lr=rate, momentum=momentum, nesterov=True, fused=True)
    for group in optimizer.param_groups:
        for p in group["params"]:
            optimizer.state[p] = {"momentum_buffer": torch.zeros_like(p)}
    return optimizer


def slots(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's own tensors, live: ``decayed.momentum``, ``free.momentum``, ..."""
    named: dict[str, Tensor] = {}
    for group, label in zip(optimizer.param_groups, ("decayed", "free"), strict=True):
        for p in group["params"]:
            named |= {f"{label}.{slot}": value for slot, value in optimizer.state[p].items()}
    return named


def peak_rate(recipe: Recipe) -> float:
    """The rate follows the global batch, never the hardware: 0.016 per 256 images is 0.256 at 4,096."""
    return recipe.lr_per_256 * recipe.global_batch / 256


def rate_at(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Learning rate of the given global step (counted from 0): linear warmup from 0, then the schedule.

    ``staircase`` falls by ``lr_decay`` every ``lr_decay_epochs``. It counts from step 0, not from the end of the
    warmup, so the first full rate is peak * 0.97^2 = 0.9409 * peak. ``cosine`` falls from the peak at the end of
    the warmup to 0 at the end of the last epoch.
    """
    peak = peak_rate(recipe)
    warmup_steps = int(recipe.warmup_epochs * steps_per_epoch)
    if step < warmup_steps:
        return peak * step / warmup_steps
    if recipe.schedule == "cosine":
        done = (step - warmup_steps) / max(1, recipe.epochs * steps_per_epoch - warmup_steps)
        return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    decay_steps = recipe.lr_decay_epochs * steps_per_epoch
    return peak * recipe.lr_decay ** int(step / decay_steps)
