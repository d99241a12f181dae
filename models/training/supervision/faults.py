"""Faults on purpose: ``FAULT=site@rank:step=action[!]``, several joined by ``;``. Off unless the variable is set.

The fault tests, and anybody who wants to repeat them on a cluster of their own, break a real job with it::

    FAULT='step@1:47=kill'            rank 1 kills itself in step 47, before the update
    FAULT='batch@0:20=nan!'           rank 0's images are NaN from step 20 on
    FAULT='save-state@0:30=kill'      rank 0 dies while it writes the checkpoint of step 30

A fault happens once in the life of a run folder, however often the job is started again; with ``!`` each time. A rank
of ``*`` means all, each of them once. Steps are counted as they are finished: step 1 is the first.

Sites: ``start``, ``batch``, ``step``, ``state`` (after the update), ``eval`` (on minival), ``last-eval`` (on val), and
those of ``checkpoint.py``.
Actions of every site: ``kill``, ``stop`` (SIGSTOP), ``term`` (SIGTERM), ``ask`` (SIGTERM to torchrun), ``agent``
(SIGKILL to torchrun), ``slow`` (5 s), ``sleep`` (for ever). Those of some sites: ``nan`` (batch), ``oom`` (batch: until
activations are recomputed), ``flip`` (state: one bit of one weight), ``full`` (save: no room on the disk for this
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
    """The faults of this rank, read from the environment once."""

    def __init__(self, job_uri: str, rank: int) -> None:
        self.job_uri = job_uri
        self.faults = [f for f in _parsed(os.environ.get("FAULT", ""), rank) if f.rank in ("*", str(rank))]

    def at(self, site: str, step: int) -> str | None:
        """Does what is asked for here, or returns an action that the caller has to do itself."""
        for fault in self.faults:
            if fault.site == site and (step == fault.step or (fault.always and step > fault.step)):
                if not fault.always:
                    self.faults.remove(fault)
                    if not store.write(store.join(self.job_uri, "faults", fault.text), b"", if_absent=True):
                        continue
                return _done(fault.action)
        return None


def _parsed(text: str, own: int) -> list[_Fault]:
    found = []
    for each in filter(None, text.split(";")):
        match = _FORM.fullmatch(each)
        if match is None:
            raise ConfigError(f"FAULT: {each!r} is not site@rank:step=action")
        site, rank, step, action, always = match.groups()
        found.append(_Fault(site, rank, int(step), action, bool(always), each.replace("*", str(own))))
    return found


def _done(action: str) -> str | None:
    signals = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM}
    if action in signals:
        os.kill(os.getpid(), signals[action])
        return None
    if action == "agent":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)  # the system ends us with it
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


def room_again() -> None:
    """Ends ``full``."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
