"""Rules for steps with an abnormal loss or gradients; pure functions with the same result on every rank.

A step with a NaN or an infinity anywhere changes nothing (the update is masked on the device). After five of them
in a row, or a loss above ten times its running average, training rewinds to the last good checkpoint with half the
learning rate. A job that fails again without having passed the previous failure, or fails a third time, has diverged.
A small loss is no explosion, whatever its average: where all images but a mislabelled one are learned, as without label
smoothing, the batch of that one has a loss of more than ten times the average.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

BAD_IN_ROW = 5
EXPLODED = 10.0  # times the average loss
LEAST_EXPLODED = 2.0  # a batch of 8 with one image to whose label the network gives a probability of 1e-7
AVERAGE_DECAY = 0.98
TRUSTED_AFTER = 20  # steps in the average before a loss is compared with it
MAX_REWINDS = 2
REWIND_RATE = 0.5


@dataclass
class Health:
    """Numerical health of the training so far; part of a checkpoint."""

    loss_average: float = 0.0
    good_steps: int = 0  # steps in loss_average
    bad_in_row: int = 0
    rewinds: int = 0
    rate_scale: float = 1.0
    turned_at: int = -1  # last step before the failure that caused the latest rewind

    def observe(self, loss: float, finite: bool) -> str | None:
        """Records one finished step; returns the problem if training must rewind, else None.

        Args:
            loss: Mean loss of the global batch.
            finite: Whether the loss and all gradients are finite.
        """
        if not finite or not math.isfinite(loss):
            self.bad_in_row += 1
            if self.bad_in_row < BAD_IN_ROW:
                return None
            return f"{self.bad_in_row} steps in a row whose loss or gradients are not finite"
        if self.good_steps >= TRUSTED_AFTER and loss > max(EXPLODED * self.loss_average, LEAST_EXPLODED):
            return f"a loss of {loss:.4g}, more than {EXPLODED:.0f} times its average of {self.loss_average:.4g}"
        self.bad_in_row = 0
        weight = max(1 - AVERAGE_DECAY, 1 / (self.good_steps + 1))
        self.loss_average += weight * (loss - self.loss_average)
        self.good_steps += 1
        return None

    def may_rewind(self, before: int) -> bool:
        """Whether a rewind may help: training got past the previous failure, and fewer than MAX_REWINDS were made.

        Args:
            before: Last step before the failure.
        """
        return self.rewinds < MAX_REWINDS and before > self.turned_at

    def rewound(self, before: int) -> Health:
        """Returns the health after a rewind caused by a failure after step ``before``."""
        return Health(self.loss_average, self.good_steps, 0, self.rewinds + 1, self.rate_scale * REWIND_RATE, before)
