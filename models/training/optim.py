"""RMSProp as TensorFlow defines it, AdamW, SGD, and the learning-rate schedules.

A rule defines how one flat tensor of weights is updated; the optimizer applies it to two tensors, one of them with
weight decay. They are not ``torch.optim.Optimizer`` subclasses: creating one imports torch's compiler, which adds 1.2 s
to the start of every process for hooks that are not used here.

Source: tensorflow/python/training/rmsprop.py; official utils.py (``build_optimizer``,
``build_learning_rate``) and main.py (the L2 term).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from conf.schema import Recipe
from models.networks import native
from models.training.flat import Layout

_CHUNK = 2**18  # floats: six of them are 6 MB


@dataclass
class Part:
    """Flat weights with the same weight decay, updated in place, and the rule's state tensors for them."""

    weights: Tensor
    gradients: Tensor
    weight_decay: float
    slots: dict[str, Tensor]


class Rule(Protocol):
    """Update rule of an optimizer."""

    def slots(self, weights: Tensor) -> dict[str, Tensor]:
        """Returns all state tensors as they are before the first step, so that every checkpoint contains them."""

    def update(self, part: Part, lr: float, found_inf: Tensor | None) -> None:
        """Updates the weights. If the scalar ``found_inf`` is 1, no bit may change; the host must not wait for it."""


@dataclass(frozen=True)
class TFRMSProp:
    """RMSProp with momentum and coupled L2, in TensorFlow's form.

    Differs from ``torch.optim.RMSprop`` in three ways: the mean square starts at one, epsilon is inside
    the square root, and the learning rate is multiplied into the momentum buffer, so that a later change of the
    rate does not scale old gradients::

        ms  = decay * ms + (1 - decay) * g^2          ms_0 = 1
        mom = momentum * mom + lr * g / sqrt(ms + eps)
        w   = w - mom

    On a CPU it is one pass of C code, or works on chunks that stay in the cache from one operation to the next.
    """

    decay: float = 0.9
    momentum: float = 0.9
    epsilon: float = 1e-3

    def slots(self, weights: Tensor) -> dict[str, Tensor]:
        """Returns ``mean_square`` and ``momentum``, both shaped like the weights."""
        return {"mean_square": torch.ones_like(weights), "momentum": torch.zeros_like(weights)}

    def update(self, part: Part, lr: float, found_inf: Tensor | None) -> None:
        """Updates the weights by one step."""
        tensors = (part.weights, part.slots["mean_square"], part.slots["momentum"], part.gradients)
        if (layers := native.load()) is not None and native.are_plain(tensors):
            if found_inf is None or not found_inf:
                constants = (lr, self.decay, self.momentum, self.epsilon, part.weight_decay)
                layers.rmsprop(native.RMSProp(*(t.data_ptr() for t in tensors), *constants), part.weights.numel())
            return
        active = 1.0 if found_inf is None else 1.0 - found_inf
        tensors = (part.weights, part.gradients, part.slots["mean_square"], part.slots["momentum"])
        for weights, gradients, mean_square, momentum in zip(*pieces(tensors), strict=True):
            grad = gradients.add(weights, alpha=part.weight_decay)
            if found_inf is not None:  # if set, every factor is exactly 1 and every summand exactly 0
                grad.masked_fill_(found_inf > 0, 0.0)
            mean_square.lerp_(grad.square(), (1 - self.decay) * active)
            update = grad.div(mean_square.add(self.epsilon).sqrt_()).mul_(lr * active)
            momentum.mul_(1 - (1 - self.momentum) * active).add_(update)
            weights.sub_(torch.mul(momentum, active, out=update))


@dataclass(frozen=True)
class AdamW:
    """torch's fused AdamW."""

    def slots(self, weights: Tensor) -> dict[str, Tensor]:
        """Returns the scalar ``step`` and the two moving averages, both shaped like the weights."""
        return {
            "step": torch.zeros((), device=weights.device),
            "exp_avg": torch.zeros_like(weights),
            "exp_avg_sq": torch.zeros_like(weights),
        }

    def update(self, part: Part, lr: float, found_inf: Tensor | None) -> None:
        """Updates the weights by one step."""
        adamw(
            [part.weights],
            [part.gradients],
            [part.slots["exp_avg"]],
            [part.slots["exp_avg_sq"]],
            [],
            [part.slots["step"]],
            fused=True,
            found_inf=found_inf,
            amsgrad=False,
            maximize=False,
            beta1=0.9,
            beta2=0.999,
            eps=1e-8,
            lr=lr,
            weight_decay=part.weight_decay,
        )


@dataclass(frozen=True)
class SGD:
    """torch's fused SGD with Nesterov momentum and coupled L2."""

    momentum: float = 0.9

    def slots(self, weights: Tensor) -> dict[str, Tensor]:
        """Returns ``momentum_buffer``, shaped like the weights."""
        return {"momentum_buffer": torch.zeros_like(weights)}

    def update(self, part: Part, lr: float, found_inf: Tensor | None) -> None:
        """Updates the weights by one step."""
        sgd(
            [part.weights],
            [part.gradients],
            [part.slots["momentum_buffer"]],
            fused=True,
            found_inf=found_inf,
            momentum=self.momentum,
            dampening=0.0,
            nesterov=True,
            maximize=False,
            lr=lr,
            weight_decay=part.weight_decay,
        )


class Optimizer:
    """Applies a rule to flat weights, with weight decay on some of them.

    Attributes:
        lr: Learning rate of the next step; set before each step.
        found_inf: None, or a scalar tensor that is 1 if the step must change nothing, else 0. The host does not wait
            for it.
    """

    def __init__(self, rule: Rule, parts: dict[str, tuple[Tensor, Tensor, float]], lr: float) -> None:
        """Creates the optimizer; ``parts`` maps names to weights, gradients and weight decay."""
        self.rule, self.lr = rule, lr
        self.parts = {name: Part(*part, rule.slots(part[0])) for name, part in parts.items()}
        self.found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self) -> None:
        """Updates all weights once."""
        for part in self.parts.values():
            self.rule.update(part, self.lr, self.found_inf)

    def slots(self) -> dict[str, Tensor]:
        """Returns the live state tensors by name: ``decayed.momentum``, ``free.momentum``, ..."""
        return {f"{name}.{slot}": value for name, part in self.parts.items() for slot, value in part.slots.items()}


def pieces(tensors: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    """Splits tensors of equal size into chunks: on a CPU into chunks that fit its cache, elsewhere into one.

    Chunked work needs temporary memory for one chunk only. Temporaries for a whole large network would have to be
    obtained from the system and zeroed page by page.
    """
    on_cpu = all(t.device.type == "cpu" and t.dim() == 1 for t in tensors)
    return [torch.split(t, _CHUNK) if on_cpu else [t] for t in tensors]


def build_optimizer(values: Tensor, gradients: Tensor, layout: Layout, recipe: Recipe) -> Optimizer:
    """Builds the recipe's optimizer over the flat parameters.

    Args:
        values: Flat state ``[size]``; its parameters are updated in place.
        gradients: Flat gradients ``[parameters]``.
        layout: Layout, which determines the parameters with weight decay.
        recipe: Optimizer, its hyperparameters, weight decay.
    """
    decayed, free = slice(0, layout.decayed), slice(layout.decayed, layout.parameters)
    parts = {
        "decayed": (values[decayed], gradients[decayed], recipe.weight_decay),
        "free": (values[free], gradients[free], 0.0),
    }
    rules: dict[str, Rule] = {
        "rmsprop": TFRMSProp(recipe.rmsprop_decay, recipe.momentum, recipe.rmsprop_epsilon),
        "adamw": AdamW(),
        "sgd": SGD(recipe.momentum),
    }
    return Optimizer(rules[recipe.optimizer], parts, peak_rate(recipe))


def peak_rate(recipe: Recipe) -> float:
    """Returns the peak learning rate, which scales with the global batch: 0.016 per 256 images is 0.256 at 4,096."""
    return recipe.lr_per_256 * recipe.global_batch / 256


def rate_at(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Returns the learning rate of a global step (counted from 0): linear warmup from 0, then the schedule.

    ``staircase`` multiplies the rate by ``lr_decay`` every ``lr_decay_epochs``. It counts from step 0, not from the end
    of the warmup, so the first rate after it is peak * 0.97^2 = 0.9409 * peak. ``cosine`` falls from the peak at the
    end of the warmup to 0 at the end of the last epoch.
    """
    peak = peak_rate(recipe)
    warmup_steps = int(recipe.warmup_epochs * steps_per_epoch)
    if step < warmup_steps:
        return peak * step / warmup_steps
    if recipe.schedule == "cosine":
        progress = (step - warmup_steps) / max(1, recipe.epochs * steps_per_epoch - warmup_steps)
        return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    decay_steps = recipe.lr_decay_epochs * steps_per_epoch
    return peak * recipe.lr_decay ** int(step / decay_steps)
