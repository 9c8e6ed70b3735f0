"""Runs a program that dies with the process that asked for it, even when that one is killed with SIGKILL.

`python -I -S tether.py PARENT_PID DEATH_SIGNAL IDENTITY PROGRAM [ARGUMENT...]` prepares this very process and becomes
the program. It is a script of its own because code between fork and exec (`preexec_fn`) is unsafe once threads exist.

IDENTITY: `same` changes nothing; `namespace` keeps the kernel's view (root, so root's files stay readable and private)
while the program sees the user `nobody`, which satisfies servers that refuse root; `nobody` really becomes that user.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

NOBODY = 65534  # Has to exist in passwd: initdb looks its own user up.
NAMESPACE_REFUSED = 97
CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Take on the identity, tie this process to its parent, become the program."""
    parent, death_signal, identity, *command = sys.argv[1:]
    if identity == "namespace":
        _enter_namespace_as_nobody()
    elif identity == "nobody":
        _become_nobody()
    # After the change of identity, which clears it.
    _die_with(int(parent), int(death_signal))
    os.execv(command[0], command)  # noqa: S606  (there is no shell, by intention)


def _enter_namespace_as_nobody() -> None:
    group, user = os.getegid(), os.geteuid()
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER) != 0:
        raise SystemExit(NAMESPACE_REFUSED)
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{NOBODY} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{NOBODY} {group} 1")
    except OSError:
        raise SystemExit(NAMESPACE_REFUSED) from None


def _become_nobody() -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def _die_with(parent: int, death_signal: int) -> None:
    # Only Linux can do it. Elsewhere a killed supervisor leaves its servers, and the next start says what they hold.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:  # It died before the line above.
            raise SystemExit(1)


if __name__ == "__main__":
    main()
