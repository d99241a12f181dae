"""Lists the files of a store on disk, in which other commands write and delete."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from infra import store
from infra.errors import TransientError
from infra.store import files


def test_what_another_process_deletes_while_it_is_listed_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b/c", "d"):
        store.write(f"file://{tmp_path}/{name}", b"123")
    find = files.files_under

    def find_then_delete(folder: Path) -> list[Path]:
        paths = find(folder)
        shutil.rmtree(tmp_path / "b")
        return paths

    monkeypatch.setattr(files, "files_under", find_then_delete)
    entries = store.list_entries(f"file://{tmp_path}")
    assert [(entry.uri, entry.size) for entry in entries] == [(f"file://{tmp_path}/a", 3), (f"file://{tmp_path}/d", 3)]


def test_a_folder_that_is_deleted_while_it_is_listed_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b/c", "d/e"):
        store.write(f"file://{tmp_path}/{name}", b"")
    scan = os.scandir

    def delete_then_scan(folder: str) -> object:
        if str(folder).endswith("/b"):
            shutil.rmtree(folder)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", delete_then_scan)
    assert store.list_uris(f"file://{tmp_path}") == [f"file://{tmp_path}/a", f"file://{tmp_path}/d/e"]


def test_a_disk_that_does_not_answer_is_no_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(f"file://{tmp_path}/a/b", b"")

    def fail(folder: str) -> object:
        raise OSError(5, "Input/output error", str(folder))

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(TransientError, match="Input/output error"):
        store.list_uris(f"file://{tmp_path}")


def test_files_are_listed_in_order_without_those_that_are_being_written(tmp_path: Path) -> None:
    for name in ("b/2", "b/10", "a", ".hidden"):
        store.write(f"file://{tmp_path}/{name}", b"")
    (tmp_path / ".b.12ab.partial").write_bytes(b"")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    names = [uri.removeprefix(f"file://{tmp_path}/") for uri in store.list_uris(f"file://{tmp_path}/")]
    assert names == [".hidden", "a", "b/10", "b/2"]
    assert store.list_entries(f"file://{tmp_path}/nothing") == []
