"""What to do about a step whose loss or gradients are not what they should be: pure rules, the same on every rank.

A step with a NaN or an infinity anywhere changes nothing (the update is masked on the device). Five in a row, or a
loss above ten times its own average, and training goes back to the last good checkpoint with half the learning
rate. What goes on going wrong, or goes wrong a third time, has diverged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

BAD_IN_ROW = 5
EXPLODED = 10.0  # times the average loss
AVERAGE_DECAY = 0.98
TRUSTED_AFTER = 20  # steps that the average needs before it can accuse a loss
MAX_REWINDS = 2
REWIND_RATE = 0.5


@dataclass
class Health:
    """How training has been going; part of a checkpoint."""

    loss_average: float = 0.0
    good_steps: int = 0  # that the average is of
    bad_in_row: int = 0
    rewinds: int = 0
    rate_scale: float = 1.0
    turned_at: int = -1  # the step before the trouble that the last way back was about

    def observe(self, loss: float, finite: bool) -> str | None:
        """Takes one finished step; returns what is wrong when training must go back, else None.

        Args:
            loss: of the global batch.
            finite: whether the loss and all gradients were.
        """
        if not finite or not math.isfinite(loss):
            self.bad_in_row += 1
            if self.bad_in_row < BAD_IN_ROW:
                return None
            return f"{self.bad_in_row} steps in a row whose loss or gradients are not finite"
        if self.good_steps >= TRUSTED_AFTER and loss > EXPLODED * self.loss_average:
            return f"a loss of {loss:.4g}, more than {EXPLODED:.0f} times its average of {self.loss_average:.4g}"
        self.bad_in_row = 0
        weight = max(1 - AVERAGE_DECAY, 1 / (self.good_steps + 1))
        self.loss_average += weight * (loss - self.loss_average)
        self.good_steps += 1
        return None

    def may_rewind(self, before: int) -> bool:
        """Whether going back may help: not where it did not get any further, nor a third time.

        Args:
            before: the last step before the trouble.
        """
        return self.rewinds < MAX_REWINDS and before > self.turned_at

    def rewound(self, before: int) -> Health:
        """The health after going back because of trouble after step ``before``."""
        return Health(self.loss_average, self.good_steps, 0, self.rewinds + 1, self.rate_scale * REWIND_RATE, before)
