"""Which process a flow run belongs to: only the one that started it is ever stopped."""

from __future__ import annotations

import os
import socket
from dataclasses import replace

import pytest

from infra.errors import ConfigError
from infra.services import flow_runs
from infra.services.flow_runs import FlowRun

OURS = FlowRun("1", "train b0", "RUNNING", None, False, tuple(flow_runs.process_tags()))


def with_tag(prefix: str, value: str) -> FlowRun:
    return replace(OURS, tags=(*(tag for tag in OURS.tags if not tag.startswith(prefix)), f"{prefix}{value}"))


def test_the_process_of_a_command_is_known_by_its_number_and_its_start() -> None:
    assert flow_runs._process(OURS) == os.getpid()
    assert flow_runs._process(with_tag(flow_runs.BORN_TAG, "another start")) is None, "the number was given again"
    assert flow_runs._process(replace(OURS, deployed=True)) is None


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (with_tag(flow_runs.HOST_TAG, "elsewhere"), r"train b0 is run by process \d+ on elsewhere"),
        (replace(OURS, tags=()), "train b0 was not started by a command of effnet"),
    ],
    ids=["another machine", "another program"],
)
def test_a_flow_that_this_machine_did_not_start_is_not_cancelled(run: FlowRun, message: str) -> None:
    assert socket.gethostname() != "elsewhere"
    with pytest.raises(ConfigError, match=message):
        flow_runs._process(run)
