"""The verb deploy in a folder with settings for another Prefect."""

from __future__ import annotations

import pytest

from conf import compose
from flows.cli import deploy, working_folder
from flows.cli.command import Command
from infra.errors import ConfigError


def command(*words: str) -> Command:
    return Command("deploy", (), list(words), compose.compose(words))


def test_files_of_the_working_folder_are_ignored_before_the_flows_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []

    def define(*_: object) -> None:
        steps.append("imports")
        raise ConfigError("the flows are imported")

    monkeypatch.setattr(deploy, "connect", lambda *_: {})
    monkeypatch.setattr(deploy, "_define", define)
    monkeypatch.setattr(working_folder, "ignore_prefect_files", lambda: steps.append("ignores"))
    with pytest.raises(ConfigError, match="the flows are imported"):
        deploy.deploy(command())
    assert steps == ["ignores", "imports"]


def test_wrong_settings_of_a_user_s_server_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise ConfigError("settings of Prefect are wrong")

    monkeypatch.setattr(working_folder, "check_prefect_settings", refuse)
    with pytest.raises(ConfigError, match="settings of Prefect are wrong"):
        deploy.deploy(command("services.prefect=http://127.0.0.1:9/api"))
