"""Folders of reports on this machine that newer ones have replaced; ``effnet prune`` may delete them.

Every night and every ``effnet report`` writes the whole page anew, into a folder of its own. Kept are the folder that
``RUN_DIR/latest`` leads to, and those that were written lately. Copies of the newest are in the object store.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from infra import store
from infra.store import Entry

_FOLDER = re.compile(r"\d{8}-\d{6}(-\d+)?")  # as tasks/report/publish.py names them
_FILES = re.compile(r"(report|night|night-.+)\.html|summary\.json")


def find_old_reports(run_dir: Path, limit: float) -> Iterator[tuple[str, tuple[Entry, ...]]]:
    """Yields the URI of a folder and its files.

    A folder with a file that no report has is the user's.

    Args:
        run_dir: The run folder.
        limit: Unix seconds; what was written later is kept.
    """
    reports, latest = run_dir / "reports", (run_dir / "latest").resolve()
    folders = sorted(reports.iterdir()) if reports.is_dir() else []
    for folder in folders:
        if not _FOLDER.fullmatch(folder.name) or folder.is_symlink() or folder.resolve() == latest:
            continue
        entries = store.list_entries(f"file://{folder}")
        ours = all(_FILES.fullmatch(entry.uri.removeprefix(f"file://{folder}/")) for entry in entries)
        if entries and ours and max(entry.modified for entry in entries) <= limit:
            yield f"file://{folder}", tuple(entries)
