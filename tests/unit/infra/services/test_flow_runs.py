"""Which process a flow run belongs to: only the one that started it is ever stopped."""

from __future__ import annotations

import os
import socket
from dataclasses import replace

import pytest

from infra.errors import ConfigError
from infra.services import flow_runs
from infra.services.flow_runs import FlowRun

OURS = FlowRun("1", "train b0", "RUNNING", None, False, flow_runs.process_labels())


def with_label(key: str, value: str) -> FlowRun:
    return replace(OURS, labels={**OURS.labels, key: value})


def test_the_process_of_a_command_is_known_by_its_number_and_its_start() -> None:
    assert flow_runs._process(OURS) == os.getpid()
    assert flow_runs._process(with_label(flow_runs.STARTED, "another start")) is None, "the number was given again"
    assert flow_runs._process(replace(OURS, deployed=True)) is None


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (with_label(flow_runs.HOST, "elsewhere"), r"train b0 is run by process \d+ on elsewhere"),
        (replace(OURS, labels={}), "train b0 was not started by a command of effnet"),
    ],
    ids=["another machine", "another program"],
)
def test_a_flow_that_this_machine_did_not_start_is_not_cancelled(run: FlowRun, message: str) -> None:
    assert socket.gethostname() != "elsewhere"
    with pytest.raises(ConfigError, match=message):
        flow_runs._process(run)
