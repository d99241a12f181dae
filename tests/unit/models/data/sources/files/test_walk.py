"""The stamps of files: equal as long as nobody has written a file, and absent of one that was written just now."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infra.errors import ConfigError
from models.data.sources.files import walk

HOUR_S = 3600


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cat").mkdir()
    for name in ("cat/a.jpg", "cat/b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(b"image of " + name.encode())
    return tmp_path


def stamps(folder: Path) -> dict[str, int]:
    return {entry.name: entry.stamp for entry in walk.walk_own(folder, [])}


def test_a_file_that_was_written_just_now_has_no_stamp(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stamps(folder) == {"c.jpg": walk.NO_STAMP, "cat/a.jpg": walk.NO_STAMP, "cat/b.jpg": walk.NO_STAMP}
    monkeypatch.setattr(walk, "RECENT_S", -HOUR_S)
    present = stamps(folder)
    assert walk.NO_STAMP not in present.values()
    assert len(set(present.values())) == 3


@pytest.mark.parametrize("change", ["size", "time", "inode"])
def test_a_file_that_is_written_has_another_stamp(change: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "RECENT_S", -HOUR_S)
    before, image = stamps(folder), folder / "c.jpg"
    assert stamps(folder) == before
    status = image.stat()
    if change == "size":
        image.write_bytes(image.read_bytes() + b"!")
    elif change == "inode":
        (folder / "new").write_bytes(image.read_bytes())
        (folder / "new").replace(image)
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns + (change == "time")))
    after = stamps(folder)
    assert {name for name in before if after[name] != before[name]} == {"c.jpg"}


def test_a_folder_that_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(entry: os.DirEntry[str]) -> str:
        raise PermissionError(13, "Permission denied")

    (folder / "cat" / "gone.jpg").symlink_to("nowhere")
    monkeypatch.setattr(walk, "_why_no_file", refuse)
    with pytest.raises(ConfigError, match=r"cat/gone\.jpg"):
        list(walk.walk_own(folder, []))
