"""Node's BullMQ, installed once into `.cache/interop` by whoever needs it first; from then on no network is needed."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

NODE = Path(__file__).parent / "node"
HOME = Path(__file__).parents[2] / ".cache" / "interop"
INSTALL_SECONDS = 100


class InstallFailedError(Exception):
    """npm could not install the pinned packages. The message ends with what npm said."""


def node_packages() -> Path:
    """Return the folder whose `node_modules` is what `node/package.json` names; may take seconds the first time.

    Raises InstallFailedError. Several processes may call it at once: one installs and the others wait.
    """
    wanted = (NODE / "package.json").read_text()
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_installed(wanted):
            install(wanted)
    return HOME


def is_installed(wanted: str) -> bool:
    # Written last, so that an installation cut short does not count.
    stamp = HOME / "installed.json"
    return stamp.exists() and stamp.read_text() == wanted


def install(wanted: str) -> None:
    shutil.rmtree(HOME / "node_modules", ignore_errors=True)
    (HOME / "package.json").write_text(wanted)
    # No lock file: it would name the registry of whoever wrote it. Scripts off: nothing here needs a compiler.
    npm = ["npm", "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]
    try:
        subprocess.run(
            [*npm, "--cache", HOME / "npm"], cwd=HOME, check=True, capture_output=True, timeout=INSTALL_SECONDS
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = (error.stderr or b"").decode(errors="replace")
        raise InstallFailedError(f"npm could not install what {NODE / 'package.json'} names:\n{said}") from error
    (HOME / "installed.json").write_text(wanted)
