"""Every promise of the embedded servers, kept by each of them."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from embedded_stack import PostgresServer, RedisServer, Server, ServerFailedError, ports, postgres, server
from embedded_stack.ports import free_port, is_free
from embedded_stack.worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Starter = Callable[..., Any]

KINDS = (RedisServer, PostgresServer)
AWKWARD_NAME = 'it\'s a "path" with $spaces'
SECONDS_TO_DIE = 10.0


class Content:
    """One value written to and read from either kind of server."""

    @staticmethod
    def write(kept: Server, value: str) -> None:
        if isinstance(kept, RedisServer):
            assert kept.ask("SET", "kept", value) == "+OK"
            # Valkey promises a second; the tests do not wait for it.
            assert kept.ask("WAITAOF", "1", "0", "2000") == "*2"
            return
        assert isinstance(kept, PostgresServer)
        with psycopg.connect(kept.url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT %s AS value", [value])

    @staticmethod
    def read(kept: Server) -> str:
        if isinstance(kept, RedisServer):
            return kept.ask("GET", "kept")
        assert isinstance(kept, PostgresServer)
        with psycopg.connect(kept.url) as connection:
            row = connection.execute("SELECT value FROM kept").fetchone()
        return str(row[0]) if row else ""


@pytest.fixture(params=KINDS, ids=lambda kind: kind.label)
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    with request.param(tmp_path / AWKWARD_NAME) as started:
        yield started


def gone(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def soon(condition: Callable[[], bool], seconds: float = SECONDS_TO_DIE) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_data_and_address_survive_a_restart(running: Server, end: str) -> None:
    address = running.url
    Content.write(running, "value")

    getattr(running, end)()
    running.start()

    assert running.url == address
    assert Content.read(running) == "value"


def test_a_pid_file_that_names_a_stranger_does_not_prevent_the_start(tmp_path: Path) -> None:
    with PostgresServer(tmp_path) as killed:
        killed.kill()
        pid_file = killed.data / "postmaster.pid"
        pid_file.write_text(pid_file.read_text().replace(pid_file.read_text().split()[0], str(os.getppid()), 1))

        killed.start()

        Content.write(killed, "value")


def test_a_half_made_cluster_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "data.unfinished").mkdir()
    (tmp_path / "data.unfinished" / "PG_VERSION").write_text("?")

    with PostgresServer(tmp_path, durable=False) as made:
        assert is_free(made.port) is False


def test_data_of_another_version_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "PG_VERSION").write_text("9\n")

    with pytest.raises(ServerFailedError, match=r"was made by PostgreSQL 9.*dev clean"):
        PostgresServer(tmp_path).start()


def test_nobody_else_gets_in(running: Server) -> None:
    if isinstance(running, RedisServer):
        (running.directory / "password").write_text("wrong")
        assert running.ask("PING").startswith("-NOAUTH")
    else:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(running.url.replace(running.password, "wrong"))
    assert running.directory.stat().st_mode & 0o077 == 0


def test_a_frozen_server_keeps_its_connections_and_says_nothing(own_redis: RedisServer) -> None:
    own_redis.freeze()
    with pytest.raises(TimeoutError):
        own_redis.ask("PING")

    own_redis.thaw()
    assert own_redis.ask("PING") == "+PONG"


def test_the_connections_of_a_frozen_postgres_are_frozen_too(own_postgres: PostgresServer) -> None:
    with psycopg.connect(own_postgres.url) as connection:
        own_postgres.freeze()
        asking = threading.Thread(target=connection.execute, args=["SELECT 1"])
        asking.start()
        asking.join(0.3)
        assert asking.is_alive()

        own_postgres.thaw()
        asking.join(SECONDS_TO_DIE)
        assert not asking.is_alive()


def test_two_never_share_a_directory(running: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STOP_SECONDS", 0.1)

    with pytest.raises(ServerFailedError, match=f"another {running.label} is using .*; stop it first"):
        type(running)(running.directory).start()


@contextmanager
def open_to_everybody(folder: Path, kind: type[Server]) -> Iterator[Server]:
    if kind is RedisServer:
        with RedisServer(folder, passwordless=True) as opened:
            yield opened
        return
    with PostgresServer(folder, durable=False) as opened:
        (opened.data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 trust\n")
        with psycopg.connect(opened.url) as connection:
            connection.execute("SELECT pg_reload_conf()")
        assert soon(lambda: lets_in(opened.url.replace(opened.password, "wrong")))
        yield opened


def lets_in(url: str) -> bool:
    with suppress(psycopg.OperationalError), psycopg.connect(url):
        return True
    return False


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.label)
def test_a_port_that_somebody_takes_first_is_exchanged_even_when_that_one_answers(
    kind: type[Server], tmp_path: Path
) -> None:
    with open_to_everybody(tmp_path / "first", kind) as first:
        second = kind(tmp_path / "second", preferred_port=free_port())
        second.port = first.port

        with second:
            assert second.port != first.port
            Content.write(second, "second's")
            assert Content.read(second) == "second's"


def test_a_preferred_port_is_taken_when_it_is_free(tmp_path: Path) -> None:
    port = free_port()
    with RedisServer(tmp_path / "first", preferred_port=port) as first:
        assert first.port == port
        assert RedisServer(tmp_path / "second", preferred_port=port).port != port


def test_a_worker_is_not_mistaken_for_the_one_that_took_its_port(
    redis_url: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**os.environ, "REDIS_URL": redis_url, "DATABASE_URL": database_url}
    port = free_port()
    workers = []
    try:
        for folder in (tmp_path / "first", tmp_path / "second"):
            folder.mkdir()
            # As if both had looked before either listened.
            monkeypatch.setattr(ports, "is_free", lambda wanted: wanted == port or is_free(wanted))
            worker = WorkerProcess("events-worker", environment=environment, preferred_port=port, logs=folder)
            workers.append(worker)
            worker.wait_until_ready()
    finally:
        for worker in workers:
            worker.ask_to_stop()
        for worker in workers:
            worker.wait_until_stopped()

    first, second = workers
    assert (first.url, second.url == first.url) == (f"http://localhost:{port}", False)
    first.check_drained()
    second.check_drained()


def test_a_start_that_fails_shows_the_end_of_the_log(tmp_path: Path) -> None:
    broken = RedisServer(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "appendonlydir").write_text("not a folder")

    with pytest.raises(ServerFailedError, match=r"(?s)Valkey ended at once with status 1 \(log: .*appendonlydir"):
        broken.start()


def test_a_server_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    started = RedisServer(tmp_path)
    thread = threading.Thread(target=started.start)
    thread.start()
    thread.join()

    with started:
        assert started.ask("PING") == "+PONG"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.label)
def test_it_dies_with_its_supervisor_even_when_that_is_killed(kind: type[Server], tmp_path: Path) -> None:
    program = f"""
        import sys, pathlib, embedded_stack
        server = embedded_stack.{kind.__name__}(pathlib.Path(sys.argv[1]))
        server.start()
        print(server.pid, flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout
        pid = int(supervisor.stdout.readline())
        assert not gone(pid)
        supervisor.kill()

    assert soon(lambda: gone(pid))
    with kind(tmp_path) as successor:
        assert successor.pid != pid


def test_root_gets_a_postgres_without_giving_anything_away(tmp_path: Path) -> None:
    with PostgresServer(tmp_path, durable=False) as started:
        assert Path(f"/proc/{started.pid}").stat().st_uid in {os.geteuid(), 65534}
        assert started.data.stat().st_mode & 0o077 == 0


def test_a_user_without_a_name_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nameless(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    monkeypatch.setattr(pwd, "getpwuid", nameless)
    postgres._identity.cache_clear()
    try:
        with pytest.raises(ServerFailedError, match="uid 4242 has none in /etc/passwd: set DATABASE_URL"):
            PostgresServer(tmp_path).start()
    finally:
        postgres._identity.cache_clear()


def test_ports_are_never_those_a_client_may_be_given() -> None:
    # A client that reconnects in vain could otherwise connect to itself.
    first_of_clients = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])

    assert all(free_port() < first_of_clients for _ in range(100))


def test_stopping_goes_on_when_a_server_ignores_the_polite_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "STOP_SECONDS", 0.2)
    with RedisServer(tmp_path) as stubborn:
        pid = stubborn.pid
        monkeypatch.setattr(RedisServer, "stop_signal", signal.SIGCONT)
        monkeypatch.setattr(RedisServer, "hurry_signal", signal.SIGCONT)

    assert gone(pid)
