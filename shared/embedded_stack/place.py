"""Where a run keeps its files: `.data/`, or a folder in it when another run is already there."""

from __future__ import annotations

import fcntl
import shlex
import shutil
import sys
from contextlib import ExitStack, contextmanager
from itertools import chain, count
from typing import IO, TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from psycopg.conninfo import conninfo_to_dict

from embedded_stack.binaries import postgres_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path


@contextmanager
def claimed_place(data: Path) -> Iterator[Path]:
    """Give `data` to this process alone, or the first of `beside-1`, `beside-2`... in it that nobody has.

    What a run leaves there stays for whoever wants to know how it went, until the next one comes.
    """
    beside = (data / f"beside-{number}" for number in count(1))
    with ExitStack() as claims:
        place = next(place for place in chain([data], beside) if _claimed(place, claims))
        for folder in ("logs", "mails", "bin"):
            shutil.rmtree(place / folder, ignore_errors=True)
            (place / folder).mkdir()
        yield place


@contextmanager
def starting_alone(lock_file: Path, announce: Callable[[str], None]) -> Iterator[None]:
    """Let one process at a time into the block; the kernel frees the lock however that process ends."""
    with lock_file.open("a") as lock:
        if not _locked(lock):
            announce("another `./dev run` is starting: waiting until it is up")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def announced_environment(place: Path, product: Mapping[str, str]) -> Iterator[None]:
    """Let `./dev shell` find the stack: variables in `environment`, and a `redis-cli` and `psql` that go there."""
    variables = {**product, **_redis_cli_variables(product["REDIS_URL"]), **_psql_variables(product["DATABASE_URL"])}
    file = place / "environment"
    file.touch(mode=0o600)
    file.write_text("".join(f"export {shlex.quote(f'{name}={value}')}\n" for name, value in variables.items()))
    _write_redis_cli(place / "bin" / "redis-cli", product["REDIS_URL"])
    if not shutil.which("psql"):
        _write_script(place / "bin" / "psql", shlex.join([str(postgres_program("psql"))]))
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _claimed(place: Path, claims: ExitStack) -> bool:
    place.mkdir(exist_ok=True)
    return _locked(claims.enter_context((place / "lock").open("a")))


def _locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _redis_cli_variables(url: str) -> dict[str, str]:
    password = urlsplit(url).password
    return {"REDISCLI_AUTH": unquote(password)} if password else {}


def _psql_variables(url: str) -> dict[str, str]:
    known = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
    return {known[name]: str(value) for name, value in conninfo_to_dict(url).items() if name in known}


def _write_redis_cli(path: Path, url: str) -> None:
    program = shutil.which("redis-cli") or shutil.which("valkey-cli")
    if program is None:
        # The wheel has no command line, and the runbooks are full of it.
        return _write_script(path, shlex.join([sys.executable, "-m", "embedded_stack.redis_cli"]))
    parts = urlsplit(url)
    options = ["-h", parts.hostname or "localhost", "-p", str(parts.port or 6379), "-n", parts.path.strip("/") or "0"]
    options += ["--user", unquote(parts.username)] if parts.username else []
    options += ["--tls"] if parts.scheme == "rediss" else []
    return _write_script(path, shlex.join([program, *options]))


def _write_script(path: Path, command: str) -> None:
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    path.chmod(0o755)
