"""Reports on this machine that newer ones have replaced."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infra import store
from tasks.registry.old_reports import find_old_reports
from tasks.registry.prune import OLD_REPORT, Removal, remove_unchanged
from tasks.report import publish

NOW, DAY = 1_800_000_000.0, 86_400.0


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Five reports: three old ones, of which one is the last and one has a note of the user's; a new one; no report."""
    reports = tmp_path / "reports"
    for name, days in (
        ("20260101-030000", 60),
        ("20260102-030000-2", 60),
        ("20260103-030000", 60),
        ("20260404-0300", 60),
    ):
        write(reports / name, days, "report.html", "night-b0-pets.html", "summary.json")
    write(reports / "20260102-030000-2", 60, "notes.txt")
    write(reports / "20260301-030000", 2, "report.html")
    publish._point_latest(reports / "20260103-030000")
    return tmp_path


def write(folder: Path, days: float, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("page")
        os.utime(folder / name, (NOW - days * DAY, NOW - days * DAY))


def find(run_dir: Path) -> list[Removal]:
    return [Removal(folder, OLD_REPORT, files, files) for folder, files in find_old_reports(run_dir, NOW - 30 * DAY)]


def test_old_reports_are_found_but_for_the_last_and_those_with_files_of_the_user_s(run_dir: Path) -> None:
    (removal,) = find(run_dir)
    assert (removal.folder, removal.size) == (f"file://{run_dir}/reports/20260101-030000", 12)
    assert remove_unchanged(removal)
    assert not (run_dir / "reports" / "20260101-030000").exists()
    assert len(list((run_dir / "reports").iterdir())) == 4
    assert (run_dir / "latest" / "report.html").exists()
    assert find(run_dir) == []


def test_a_report_to_which_something_was_added_meanwhile_stays(run_dir: Path) -> None:
    (removal,) = find(run_dir)
    store.write(f"{removal.folder}/notes.txt", b"mine")
    assert not remove_unchanged(removal)


def test_a_folder_as_it_is_published_is_recognized(tmp_path: Path) -> None:
    folder = publish._make_folder(tmp_path / "reports")
    second = publish._make_folder(tmp_path / "reports")
    for one in (folder, second):
        write(one, 60, publish.PAGE, publish.NIGHT, publish.SUMMARY, publish.night_file("b0-pets"))
    publish._point_latest(second)
    assert [removal.folder for removal in find(tmp_path)] == [f"file://{folder}"]


def test_a_run_folder_without_reports_has_none(tmp_path: Path) -> None:
    assert find(tmp_path) == []
