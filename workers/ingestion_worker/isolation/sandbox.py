"""Bubblewrap around the fork server: no network, nobody else's processes, a system that cannot be written to."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["BubblewrapMissing", "server_command"]

REMEDY = "install it (Debian: bubblewrap; the kernel must allow user namespaces) or set DOCUMENT_SANDBOX=none"
SERVER = ("-P", "-m", "ingestion_worker.isolation.forkserver")


class BubblewrapMissing(Exception):
    """It was asked for and is not there."""


def server_command(sandbox: str, root: Path) -> tuple[str, ...]:
    """Return how the fork server is started; `root` is where it may write. Raises `BubblewrapMissing`."""
    python = (sys.executable, *SERVER)
    if sandbox == "none":
        return python
    bubblewrap = shutil.which("bwrap")
    if bubblewrap is None:
        raise BubblewrapMissing(f"bwrap is not on the PATH: {REMEDY}")
    # The process in front of it, with all in the sandbox, dies with the worker.
    return (
        *(bubblewrap, "--unshare-all", "--die-with-parent", "--new-session"),
        *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
        *("--bind", str(root), str(root), "--chdir", "/", "--"),
        *python,
    )
