"""Fine-tunes B0 on another data set, from Python: ``python examples/finetune.py [key=value ...]``.

The network is trained first, unless that was done before. Services are started where they do not run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from conf.compose import compose
from conf.overrides import replace
from flows.cli import session, signals
from models.results import TransferResult

OVERRIDES = ("model=b0", "data@transfer.data=digits")


def finetune(overrides: Sequence[str]) -> list[TransferResult]:
    """Runs the transfer flow with Hydra overrides, as the command line does; one result per data set."""
    chosen = replace(OVERRIDES, overrides)
    results: list[TransferResult] = session.run("transfer", compose(chosen), chosen)
    return results


if __name__ == "__main__":
    signals.handle()
    for result in finetune(sys.argv[1:]):
        print(f"{result.data}: {result.value:.1f} ± {result.standard_error:.1f} % ({result.metric}, n = {result.n})")
