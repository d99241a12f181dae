"""RMSProp as TensorFlow defines it, the weight-decay groups and the learning-rate schedule of the paper.

Source: tensorflow/python/training/rmsprop.py; official utils.py (``build_optimizer``,
``build_learning_rate``) and main.py (the L2 term).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from conf.schema import Recipe


class TFRMSProp(Optimizer):
    """RMSProp with momentum and coupled L2, in TensorFlow's form.

    Differs from ``torch.optim.RMSprop`` in three ways: the mean square starts at one, epsilon stands inside
    the root, and the learning rate is multiplied into the momentum buffer, so that a later change of the
    rate does not scale old gradients::

        ms  = decay * ms + (1 - decay) * g^2          ms_0 = 1
        mom = momentum * mom + lr * g / sqrt(ms + eps)
        w   = w - mom
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
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p] = {"mean_square": torch.ones_like(p), "momentum": torch.zeros_like(p)}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient; multi-tensor, so few kernels."""
        if closure is not None:
            raise ValueError("TFRMSProp takes no closure")
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                grads: Any = [p.grad for p in params]
                if group["weight_decay"]:
                    grads = torch._foreach_add(grads, params, alpha=group["weight_decay"])
                self._update(params, grads, group)

    def _update(self, params: list[Tensor], grads: Any, group: dict[str, Any]) -> None:
        mean_square = [self.state[p]["mean_square"] for p in params]
        momentum = [self.state[p]["momentum"] for p in params]
        torch._foreach_mul_(mean_square, group["decay"])
        torch._foreach_addcmul_(mean_square, grads, grads, value=1 - group["decay"])
        root = torch._foreach_add(mean_square, group["epsilon"])
        torch._foreach_sqrt_(root)
        torch._foreach_mul_(momentum, group["momentum"])
        torch._foreach_addcdiv_(momentum, grads, root, value=group["lr"])
        torch._foreach_sub_(params, momentum)


def decay_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Splits the parameters into decayed and not: all but batch norm's gamma and beta are decayed.

    Biases of squeeze-and-excitation and of the classifier ARE decayed. Source: official main.py, L2 over
    every variable whose name lacks ``batch_normalization``.
    """
    norm = {id(p) for m in network.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    decayed = [p for p in network.parameters() if id(p) not in norm]
    free = [p for p in network.parameters() if id(p) in norm]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]


def build_optimizer(network: nn.Module, recipe: Recipe) -> TFRMSProp:
    """The recipe's optimizer over all parameters of ``network``; the rate is set at each step."""
    return TFRMSProp(
        decay_groups(network, recipe.weight_decay),
        lr=peak_rate(recipe),
        decay=recipe.rmsprop_decay,
        momentum=recipe.momentum,
        epsilon=recipe.rmsprop_epsilon,
    )


def peak_rate(recipe: Recipe) -> float:
    """The rate follows the global batch, never the hardware: 0.016 per 256 images is 0.256 at 4,096."""
    return recipe.lr_per_256 * recipe.global_batch / 256


def rate_at(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Learning rate of the given global step (counted from 0).

    Linear warmup from 0, then a staircase of ``lr_decay`` every ``lr_decay_epochs``. The staircase counts
    from step 0, not from the end of the warmup, so the first full rate is peak * 0.97^2 = 0.9409 * peak.
    """
    peak = peak_rate(recipe)
    warmup_steps = int(recipe.warmup_epochs * steps_per_epoch)
    if step < warmup_steps:
        return peak * step / warmup_steps
    decay_steps = recipe.lr_decay_epochs * steps_per_epoch
    return peak * recipe.lr_decay ** int(step / decay_steps)
