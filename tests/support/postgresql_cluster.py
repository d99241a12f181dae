"""A PostgreSQL server of its own, by the programs of Debian's package ``postgresql``."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PASSWORD = "only-for-these-tests"


def programs() -> Path | None:
    """The folder of initdb and pg_ctl, None where they are not installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(folders) if (folder / "initdb").exists()), None)


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """Yields ``USER@HOST:PORT`` of a running server that asks for ``PASSWORD``; ``folder`` must not exist.

    PostgreSQL refuses to run as root, so the user ``postgres`` of the package runs it there.
    """
    bin_folder = programs()
    assert bin_folder is not None
    folder.mkdir()
    user: list[str] = []
    if os.geteuid() == 0:
        entry = pwd.getpwnam("postgres")
        user = ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]
        shutil.chown(folder, entry.pw_uid, entry.pw_gid)
    (folder / "password").write_text(PASSWORD)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data, options = folder / "data", f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories="

    def run(*argv: str) -> None:
        subprocess.run([*user, *argv], cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=120)

    initdb = [str(bin_folder / "initdb"), "-D", str(data), "-U", "effnet", "--auth=scram-sha-256", "-E", "UTF8"]
    run(*initdb, f"--pwfile={folder / 'password'}", "--no-sync")
    control = [str(bin_folder / "pg_ctl"), "-D", str(data), "-w"]
    run(*control, "-l", str(folder / "data" / "log.txt"), "-o", options, "start")
    try:
        yield f"effnet@127.0.0.1:{port}"
    finally:
        run(*control, "-m", "immediate", "stop")
