"""PostgreSQL, also for root and in any directory, without touching users or permissions of the machine."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from embedded_stack import process, tether
from embedded_stack.binaries import postgres_program
from embedded_stack.server import Server, ServerFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator

USER = "intelliflow"
_ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}
_FORGETFUL = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


class PostgresServer(Server):
    """A PostgreSQL with one superuser and one database, both named `intelliflow`."""

    label = "PostgreSQL"
    stop_signal = signal.SIGINT  # "Fast": transactions are rolled back, everything committed is on disk.
    hurry_signal = signal.SIGQUIT

    @property
    def url(self) -> str:
        """`postgresql://user:password@127.0.0.1:port/intelliflow`."""
        return self.url_of(USER)

    def url_of(self, database: str) -> str:
        """Return the address of another database of this server."""
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Make a database (a copy of `template`, to which nobody may be connected) and return its address."""
        create_database(self.url_of("postgres"), name, template=template)
        return self.url_of(name)

    def database(self, name: str) -> str:
        """Return the address of a database, which is made unless it is there."""
        with psycopg.connect(self.url_of("postgres"), autocommit=True) as connection:
            there = connection.execute("SELECT FROM pg_database WHERE datname = %s", [name]).fetchone()
        return self.url_of(name) if there is not None else self.create_database(name)

    def _prepare(self) -> None:
        if not self.data.exists():
            self._make_cluster()
        self._refuse_other_version()
        # The lock says that no process of this cluster is left, so the pid in it is dead or means somebody else now
        # (likely in a container, where small numbers come back), at which PostgreSQL would refuse to start.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _make_cluster(self) -> None:
        # Made aside and moved in one step, so that an interrupted start leaves no half of a cluster.
        unfinished = self.directory / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if _identity() == "nobody":
            _give_to_nobody(self.directory, unfinished, self.directory / "password")
        options = ["--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", f"--username={USER}", "--no-sync"]
        places = [f"--pgdata={unfinished}", f"--pwfile={self.directory / 'password'}"]
        initdb = process.spawn(
            [postgres_program("initdb"), *options, *places],
            log=self.log,
            death_signal=signal.SIGKILL,
            identity=_identity(),
            cwd=self.directory,
            environment=_ENVIRONMENT,
        )
        if initdb.wait() != 0:
            raise ServerFailedError(self._explain("could not make its data directory", 0))
        unfinished.rename(self.data)

    def _refuse_other_version(self) -> None:
        has = (self.data / "PG_VERSION").read_text().strip()
        program = _major_version()
        if has != program:
            raise ServerFailedError(
                f"{self.data} was made by PostgreSQL {has}, this one is {program}: remove it (`./dev clean`)"
            )

    def _spawn(self, lock: int) -> subprocess.Popen[bytes]:
        settings = [
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            "unix_socket_directories=",  # Their paths may not exceed 107 bytes, and a checkout's may.
            "timezone=UTC",
            "log_timezone=UTC",
            *(() if self.durable else _FORGETFUL),
        ]
        return process.spawn(
            [
                postgres_program("postgres"),
                "-D",
                self.data,
                *(word for setting in settings for word in ("-c", setting)),
            ],
            log=self.log,
            death_signal=self.stop_signal,
            identity=_identity(),
            cwd=self.directory,
            environment=_ENVIRONMENT,
            keep_open=[lock],
        )

    def _answers(self) -> bool:
        try:
            # By this way of logging in the server proves, too, that it knows the password of this directory.
            psycopg.connect(self.url_of("postgres"), connect_timeout=1, require_auth="scram-sha-256").close()
        except psycopg.OperationalError:
            return False
        return True

    def start(self) -> None:
        """See `Server.start`; the database is there afterwards."""
        super().start()
        with psycopg.connect(self.url_of("postgres"), autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [USER]).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(USER)))


@contextmanager
def postgres_server(directory: Path, *, port: int | None = None, durable: bool = True) -> Iterator[PostgresServer]:
    """Run a PostgreSQL on the data in `directory` for the length of the block."""
    with PostgresServer(directory, port=port, durable=durable) as server:
        yield server


def create_database(server_url: str, name: str, *, template: str = "template1") -> None:
    """Make a database on any server, as a copy of `template`."""
    _administer(server_url, sql.SQL("CREATE DATABASE {} TEMPLATE {}"), name, template)


def drop_database(server_url: str, name: str) -> None:
    """Remove a database, whoever is still connected to it."""
    _administer(server_url, sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)"), name)


def _administer(server_url: str, statement: sql.SQL, *names: str) -> None:
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(statement.format(*map(sql.Identifier, names)))


@cache
def _identity() -> process.Identity:
    """PostgreSQL refuses root, so for root it gets another identity: a borrowed name where the kernel allows that."""
    if os.geteuid() != 0:
        _require_a_name()
        return "same"
    return "namespace" if _namespaces_allowed() else "nobody"


def _require_a_name() -> None:
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        raise ServerFailedError(
            f"PostgreSQL needs a user with a name, and uid {os.geteuid()} has none in /etc/passwd: "
            "set DATABASE_URL to a server of yours, or run as a named user"
        ) from None


def _namespaces_allowed() -> bool:
    if sys.platform != "linux":
        return False
    command = [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), "9", "namespace", sys.executable, "-V"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603


@cache
def _major_version() -> str:
    answer = subprocess.run(  # noqa: S603
        [postgres_program("postgres"), "--version"], capture_output=True, check=True, text=True
    )
    return answer.stdout.split()[2].partition(".")[0]  # "postgres (PostgreSQL) 18.6", and on some systems more words.


def _give_to_nobody(*paths: Path) -> None:
    for path in paths:
        os.chown(path, tether.NOBODY, tether.NOBODY)
    closed = [parent for parent in paths[0].parents if not Path(parent).stat().st_mode & 0o001]
    if closed:
        raise ServerFailedError(
            f"PostgreSQL refuses root, user namespaces are not allowed here, and `nobody` may not enter {closed[0]}: "
            "run as an ordinary user, or set DATABASE_URL to a server of yours"
        )
