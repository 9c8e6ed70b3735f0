"""Where a run keeps its files: `.data/`, or a throw-away folder in it when another run is already there."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from psycopg.conninfo import conninfo_to_dict

from embedded_stack.binaries import postgres_program

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@contextmanager
def claimed_place(data: Path) -> Iterator[Path]:
    """Give `data` to this process alone, or a folder in it that is removed afterwards when somebody else has it."""
    data.mkdir(exist_ok=True)
    with ExitStack() as stack, (data / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            place = data / f"beside-{os.getpid()}"
            stack.callback(shutil.rmtree, place, ignore_errors=True)
        else:
            place = data
        for folder in ("logs", "mails", "bin"):
            shutil.rmtree(place / folder, ignore_errors=True)
            (place / folder).mkdir(parents=True)
        yield place


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
