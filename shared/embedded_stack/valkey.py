"""Valkey: the Redis this suite runs on when nobody brings another."""

from __future__ import annotations

import signal
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

from embedded_stack import process
from embedded_stack.binaries import valkey_server
from embedded_stack.server import Server

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path


class RedisServer(Server):
    """A Valkey with a password; `durable` writes the append-only file, synced every second.

    `passwordless` lets every program on this machine in: the runbooks' commands and a Node producer then need nothing
    but the port. Valkey itself refuses to let a client move its files, so what it lets in reaches the queues only.
    """

    label = "Valkey"
    stop_signal = signal.SIGTERM
    hurry_signal = signal.SIGTERM

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        preferred_port: int | None = None,
        durable: bool = True,
        passwordless: bool = False,
    ) -> None:
        super().__init__(directory, port=port, preferred_port=preferred_port, durable=durable)
        self._passwordless = passwordless

    @property
    def url(self) -> str:
        """`redis://:password@127.0.0.1:port/0`."""
        login = "" if self._passwordless else f":{self.password}@"
        return f"redis://{login}127.0.0.1:{self.port}/0"

    def ask(self, *command: str) -> str:
        """Send one command over a connection of its own and return the answer: `+OK`, `-ERR ...`, `:1`, or a string.

        Raises OSError when nobody answers within a second.
        """
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            # Without a password the first answer is an error, which is skipped like the other.
            connection.sendall(_encoded("AUTH", self.password) + _encoded(*command))
            answers = connection.makefile("rb")
            answers.readline()
            first = answers.readline().decode().rstrip()
            return answers.read(int(first[1:])).decode() if first.startswith("$") and first != "$-1" else first

    def _prepare(self) -> None:
        self.data.mkdir(mode=0o700, exist_ok=True)

    def _spawn(self, lock: int) -> subprocess.Popen[bytes]:
        # A file, because arguments (and with them the password) are everybody's to read; beside the data and named
        # without a folder, because a path with spaces or quotes needs no escaping then.
        configuration = self.data / "valkey.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(self._configuration())
        return process.spawn(
            [valkey_server(), "valkey.conf"],
            log=self.log,
            death_signal=self.stop_signal,
            cwd=self.data,
            environment={"LC_ALL": "C"},
            keep_open=[lock],
        )

    def _configuration(self) -> str:
        settings = {
            "bind": "127.0.0.1",
            "port": self.port,
            "requirepass": '""' if self._passwordless else self.password,
            "dir": ".",
            "daemonize": "no",
            "appendonly": "yes" if self.durable else "no",
            "appendfsync": "everysec",
            "save": '""',
            # A queue that forgets jobs when memory is short would be worse than one that refuses them.
            "maxmemory-policy": "noeviction",
        }
        return "".join(f"{name} {value}\n" for name, value in settings.items())

    def _answers(self) -> bool:
        try:
            return self.ask("PING") == "+PONG" and f"process_id:{self.pid}\r\n" in self.ask("INFO", "server")
        except (OSError, ValueError):  # The latter for a stranger who speaks something else.
            return False


@contextmanager
def redis_server(directory: Path, *, port: int | None = None, durable: bool = True) -> Iterator[RedisServer]:
    """Run a Valkey on the data in `directory` for the length of the block."""
    with RedisServer(directory, port=port, durable=durable) as server:
        yield server


def _encoded(*words: str) -> bytes:
    parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
    return f"*{len(words)}\r\n{''.join(parts)}".encode()
