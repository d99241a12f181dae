"""Files of names that others can guess, and who may read what we write."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from made_shards import CONTENT, shard_of

from infra import store
from infra.environment import cache_folder, make_cache
from infra.errors import ConfigError
from infra.services import ports
from infra.store import files
from models.data.loading.cache import ShardCache

pytest_plugins = ("made_cache",)
NOBODY = 65534


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    (path := tmp_path / "victim").write_text("precious")
    return path


@pytest.mark.parametrize("plant", [os.symlink, os.link], ids=["symbolic", "hard"])
def test_a_planted_link_is_not_written_through(
    plant: Callable[[Path, Path], None], victim: Path, tmp_path: Path
) -> None:
    plant(victim, tmp_path / "cache.lock")
    with pytest.raises(ConfigError, match="is a link or another user's file; delete it, or give a folder of your own"):
        files.open_ours(tmp_path / "cache.lock")
    assert victim.read_text() == "precious"


def test_a_pipe_in_a_file_s_place_stops_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="delete it"):
        files.open_ours(tmp_path / "pipe")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's file")
def test_another_user_s_file_is_refused_only_where_everybody_may_write(tmp_path: Path) -> None:
    (path := tmp_path / "lock").touch()
    os.chown(path, NOBODY, NOBODY)
    os.close(files.open_ours(path))  # a folder shared by a group
    tmp_path.chmod(0o777)  # without the sticky bit, or the system may refuse it first
    with pytest.raises(ConfigError, match="another user's file"):
        files.open_ours(path)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_link_planted_for_a_shard_overwrites_nothing(
    when: str, victim: Path, root: Path, tmp_path: Path, open_cache: Callable[..., ShardCache]
) -> None:
    shard = shard_of(CONTENT)
    (tmp_path / "cache").mkdir(exist_ok=True)
    cache = open_cache() if when == "after" else None
    (tmp_path / "cache" / f"{shard.blake3}.tmp").symlink_to(victim)
    if cache is None:  # what lies there at the start is swept
        assert open_cache().read(shard, 0, 10) == CONTENT[:10]
    else:
        with pytest.raises(ConfigError, match=r"\.tmp is a link"):
            cache.read(shard, 0, 10)
    assert victim.read_text() == "precious"


def test_a_link_planted_as_a_finished_shard_is_replaced(
    victim: Path, root: Path, tmp_path: Path, open_cache: Callable[..., ShardCache]
) -> None:
    shard = shard_of(CONTENT)
    (tmp_path / "cache").mkdir(exist_ok=True)
    (tmp_path / "cache" / f"{shard.blake3}.tar").symlink_to(victim)
    assert open_cache().read(shard, 0, 10) == CONTENT[:10]
    assert victim.read_text() == "precious"


@pytest.fixture
def claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the ports file is looked for."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"effnet-ports-{os.getuid()}.json"


@pytest.mark.parametrize(
    "text",
    [
        '{"x": {}}',
        "[]",
        "3",
        "null",
        "not json",
        '{"x": 1}',
        '{"x": {"at": "now", "ports": [1]}}',
        '{"x": {"at": 9e99, "ports": [1]}}',
        '{"x": {"at": 9e99, "ports": "all"}}',
    ],
)
def test_a_ports_file_of_another_form_counts_as_empty(text: str, claims: Path) -> None:
    claims.write_text(text)
    assert set(ports.choose({}, [], owner="us")) == set(ports.PREFERRED)
    assert set(json.loads(claims.read_text())) == {"us"}


def test_ports_of_a_stack_that_was_stopped_are_chosen_again(claims: Path) -> None:
    first = ports.choose({}, [], owner="stopped")
    assert not set(ports.choose({}, [], owner="us").values()) & set(first.values())
    ports.release("stopped")
    ports.release("us")
    assert ports.choose({}, [], owner="us") == first


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's file")
def test_a_stranger_s_ports_file_is_ignored(claims: Path) -> None:
    claims.write_text('{"x": {}}')
    os.chown(claims, NOBODY, NOBODY)
    claims.parent.chmod(0o777)
    assert set(ports.choose({}, [], owner="us")) == set(ports.PREFERRED)
    assert claims.read_text() == '{"x": {}}'


def test_a_link_in_the_ports_file_s_place_is_ignored(victim: Path, claims: Path) -> None:
    claims.symlink_to(victim)
    assert set(ports.choose({}, [], owner="us")) == set(ports.PREFERRED)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    ("mode", "folder_mode", "file_mode"),
    [
        (0o700, 0o700, 0o600),
        (0o755, 0o700, 0o600),
        (0o775, 0o700, 0o600),
        (0o2770, 0o2770, 0o660),
        (0o1777, 0o700, 0o600),
    ],
)
def test_what_a_command_writes_is_for_its_user_and_for_a_group_that_shares_the_run_folder(
    mode: int, folder_mode: int, file_mode: int, tmp_path: Path
) -> None:
    (run_dir := tmp_path / "runs").mkdir()
    run_dir.chmod(mode)
    with files.private(run_dir):
        (run_dir / "latest").mkdir()
        subprocess.run([sys.executable, "-c", "open('latest/page', 'w')"], cwd=run_dir, check=True)
    found = [stat.S_IMODE((run_dir / name).stat().st_mode) for name in ("", "latest", "latest/page")]
    assert found == [mode, folder_mode, file_mode]


def test_a_new_run_folder_is_for_its_user_alone(tmp_path: Path) -> None:
    files.make_private(tmp_path / "a" / "runs")
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/runs")] == [0o700, 0o700]


@pytest.mark.parametrize("make", [files.make_private, lambda path: store.ensure_root(f"file://{path}")])
def test_a_place_that_takes_no_folders_is_named(make: Callable[[Path], None]) -> None:
    place = Path("/proc/runs/x")
    with pytest.raises(ConfigError, match=r"/proc/runs.*: no folder can be made here"), files.errors(place):
        make(place)


@pytest.mark.parametrize("place", ["/proc/cache", "/dev/null", "/dev/null/cache"])
def test_a_cache_that_cannot_be_written_is_named_with_its_variable(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFNET_CACHE", place)
    message = rf"no cache in {place}/archives \(.*\): set EFFNET_CACHE, which is {place}, to a folder that can be writ"
    with pytest.raises(ConfigError, match=message):
        make_cache(cache_folder() / "archives")
