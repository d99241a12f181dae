"""Fault injection: ``FAULT=site@rank:step=action[!]``, several joined by ``;``. Off unless the variable is set.

The fault tests use it to break a real job; it can be used in the same way on any cluster::

    FAULT='step@1:47=kill'            rank 1 kills itself in step 47, before the update
    FAULT='batch@0:20=nan!'           rank 0's images are NaN from step 20 on
    FAULT='save-state@0:30=kill'      rank 0 dies while it writes the checkpoint of step 30

A fault is injected once per run folder, however often the job is restarted; with ``!`` every time. A rank of ``*``
means all ranks, once on each. Steps count finished steps: step 1 is the first.

Sites: ``start``, ``batch``, ``step``, ``state`` (after the update), ``eval`` (on minival), ``last-eval`` (on val), and
those of ``checkpoints/format.py`` and ``checkpoints/writer.py``.
Actions at every site: ``kill``, ``stop`` (SIGSTOP), ``term`` (SIGTERM), ``ask`` (SIGTERM to torchrun), ``agent``
(SIGKILL to torchrun), ``slow`` (5 s), ``sleep`` (forever). Actions at some sites: ``nan`` (batch), ``oom`` (batch:
until activations are recomputed), ``flip`` (state: one bit of one weight), ``full`` (save: no disk space for this
checkpoint).
"""

from __future__ import annotations

import os
import re
import resource
import signal
import time
from dataclasses import dataclass

from infra import store
from infra.errors import ConfigError

_FORM = re.compile(r"([a-z-]+)@(\d+|\*):(\d+)=([a-z]+)(!?)")
_FULL_BYTES = 4096
_SLOW_S = 5.0


@dataclass(frozen=True)
class _Fault:
    site: str
    rank: str
    step: int
    action: str
    always: bool
    text: str


class Faults:
    """The faults to inject on this rank, read from the environment once."""

    def __init__(self, job_uri: str, rank: int) -> None:
        self.job_uri = job_uri
        self.faults = [f for f in _parse_faults(os.environ.get("FAULT", ""), rank) if f.rank in ("*", str(rank))]

    def at(self, site: str, step: int) -> str | None:
        """Injects the fault for this site and step, if any; returns the action if the caller has to perform it."""
        for fault in list(self.faults):
            if fault.site == site and (step == fault.step or (fault.always and step > fault.step)):
                if not fault.always:
                    self.faults.remove(fault)
                    if not store.write(store.join(self.job_uri, "faults", fault.text), b"", if_absent=True):
                        continue
                return _inject(fault.action)
        return None


def _parse_faults(text: str, this_rank: int) -> list[_Fault]:
    faults = []
    for spec in filter(None, text.split(";")):
        match = _FORM.fullmatch(spec)
        if match is None:
            raise ConfigError(f"FAULT: {spec!r} is not site@rank:step=action")
        site, rank, step, action, always = match.groups()
        faults.append(_Fault(site, rank, int(step), action, bool(always), spec.replace("*", str(this_rank))))
    return faults


def _inject(action: str) -> str | None:
    signals = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM}
    if action in signals:
        os.kill(os.getpid(), signals[action])
        return None
    if action == "agent":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)  # the kernel kills this rank when the agent dies
    if action == "ask":
        os.kill(os.getppid(), signal.SIGTERM)
        return None
    if action == "slow":
        time.sleep(_SLOW_S)
    if action == "sleep":
        time.sleep(10**6)
    if action == "full":
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (_FULL_BYTES, hard))
    return action


def restore_disk_space() -> None:
    """Ends the fault ``full``."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
