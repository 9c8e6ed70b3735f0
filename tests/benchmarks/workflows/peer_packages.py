"""The peers' own environment: DBOS wants a newer croniter than `bullmq` allows, so the two cannot share one.

It is made in `.cache/workflow-peers` by whoever needs it first, with exactly what `peers.lock` names: what `uv pip
compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header` makes of `peers.in`. All is
under licences like MIT, BSD and Apache-2.0, but for psycopg (LGPL), which we use ourselves.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
LOCK = Path(__file__).with_name("peers.lock")
HOME = ROOT / ".cache" / "workflow-peers"
PYTHON = HOME / "bin" / "python"
INSTALL_SECONDS = 300


class InstallFailedError(Exception):
    """The packages could not be installed. The message ends with what the installer said."""


def peer_python() -> Path:
    """Return the interpreter that has the peers; may take seconds the first time.

    Raises InstallFailedError. Several processes may call it at once: one installs and the others wait.
    """
    HOME.parent.mkdir(parents=True, exist_ok=True)
    with HOME.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_installed():
            install()
    return PYTHON


def is_installed() -> bool:
    # Written last, so that an installation cut short does not count.
    stamp = HOME / "installed.lock"
    return PYTHON.exists() and stamp.exists() and stamp.read_text() == wanted()


def wanted() -> str:
    return f"# {sys.version}\n{LOCK.read_text()}"


def install() -> None:
    shutil.rmtree(HOME, ignore_errors=True)
    base = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    run(base, "-m", "venv", "--without-pip", str(HOME))
    run(*installer(base), "--quiet", "--require-hashes", "--only-binary", ":all:", "-r", str(LOCK))
    (HOME / "installed.lock").write_text(wanted())


def installer(base: str) -> list[str]:
    """Take uv where there is one, or `./dev` has fetched it; else pip."""
    fetched = ROOT / ".cache" / "uv" / "bin" / "uv"
    uv = shutil.which("uv") or (str(fetched) if fetched.exists() else None)
    return (
        [uv, "pip", "install", "--python", str(PYTHON)]
        if uv
        else [base, "-m", "pip", "--python", str(PYTHON), "install"]
    )


def run(*command: str) -> None:
    caches = {"UV_CACHE_DIR": str(ROOT / ".cache" / "uv-cache"), "PIP_CACHE_DIR": str(ROOT / ".cache" / "pip-cache")}
    try:
        subprocess.run(command, env=os.environ | caches, check=True, capture_output=True, timeout=INSTALL_SECONDS)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = (error.stderr or b"").decode(errors="replace")
        raise InstallFailedError(f"could not install what {LOCK} names:\n{said}") from error
