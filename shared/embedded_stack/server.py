"""What every embedded server has in common: a directory, a port, and a start that survives whatever happened before."""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Self

from embedded_stack import process
from embedded_stack.ports import free_port, tells_of_a_taken_port

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

START_SECONDS = 60.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.01


class ServerFailedError(Exception):
    """A server did not start, or its data cannot be used. The message holds the end of its log and the remedy."""


class Server(ABC):
    """A server running as a child of this process; it ends when this process ends, however that happens.

    `directory` holds everything: `data/`, `password`, `server.log` and the lock. It listens on 127.0.0.1 only: on
    `port`, or when none is demanded on `preferred_port` or any that is free, which it keeps once started.
    With `durable=False` speed is bought with data that may be lost at a crash.
    All methods block; they may be called from any thread, but not from two at once.
    """

    label: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]
    hurry_signal: ClassVar[signal.Signals]

    def __init__(
        self, directory: Path, *, port: int | None = None, preferred_port: int | None = None, durable: bool = True
    ) -> None:
        self.directory = directory.absolute()
        self.durable = durable
        self._port_is_ours_to_choose = port is None
        self.port = port or free_port(preferred_port)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    @abstractmethod
    def url(self) -> str:
        """The address with user and password, as the product's settings take it."""

    @property
    def pid(self) -> int:
        """The server's process. Raises ServerFailedError when it does not run."""
        if self._process is None:
            raise ServerFailedError(f"{self.label} is not running")
        return self._process.pid

    @property
    def data(self) -> Path:
        """The server's own files."""
        return self.directory / "data"

    @property
    def log(self) -> Path:
        """Everything the server said, over all its starts."""
        return self.directory / "server.log"

    @property
    def password(self) -> str:
        """Made at the first start and kept beside the data, readable by its owner only."""
        return (self.directory / "password").read_text().strip()

    def start(self) -> None:
        """Start it, with the data and on the port it had, and return once it answers. Does nothing when it runs."""
        if self._process is not None:
            return
        self._make_directory()
        try:
            with self._exclusive() as lock:
                self._prepare()
                self._start_holding(lock)
        except BaseException:
            self.kill()
            raise
        self._port_is_ours_to_choose = False

    def stop(self) -> None:
        """End it as an operator would, losing nothing. Does nothing when it does not run."""
        if self._process is not None:
            process.end(self._process, self.stop_signal, self.hurry_signal, seconds_each=STOP_SECONDS)
            self._process = None

    def kill(self) -> None:
        """End it with SIGKILL, as the kernel does when memory runs out."""
        if self._process is not None:
            process.end(self._process, seconds_each=0)
            self._process = None

    def freeze(self) -> None:
        """Leave it running but silent: connections stay open and nothing answers, as when packets are swallowed."""
        process.signal_family(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        process.signal_family(self.pid, signal.SIGCONT)

    @abstractmethod
    def _prepare(self) -> None:
        """Make the data when there is none. Nobody else touches the directory meanwhile."""

    @abstractmethod
    def _spawn(self, lock: int) -> subprocess.Popen[bytes]:
        """Start the process, which inherits `lock`."""

    @abstractmethod
    def _answers(self) -> bool:
        """Say, within a second, whether it can be used, and that it is ours: a stranger on its port does not count."""

    def _start_holding(self, lock: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._attempt(lock, deadline):
            time.sleep(POLL_SECONDS)

    def _attempt(self, lock: int, deadline: float) -> bool:
        log_before = self.log.stat().st_size if self.log.exists() else 0
        self._process = self._spawn(lock)
        while self._process.poll() is None:
            if self._answers():
                return True
            if time.monotonic() > deadline:
                raise ServerFailedError(self._explain(f"did not answer within {START_SECONDS:.0f} s", log_before))
            time.sleep(POLL_SECONDS)
        status, self._process = self._process.returncode, None
        if not tells_of_a_taken_port(self._said_since(log_before)) or time.monotonic() > deadline:
            raise ServerFailedError(self._explain(f"ended at once with status {status}", log_before))
        if self._port_is_ours_to_choose:
            self.port = free_port()
        return False

    def _make_directory(self) -> None:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (self.directory / "password").exists():
                (self.directory / "password").touch(mode=0o600)
                (self.directory / "password").write_text(secrets.token_hex(16))
        except PermissionError as error:
            raise ServerFailedError(
                f"{self.directory} belongs to somebody else; remove it as that user (`./dev clean`)"
            ) from error

    @contextmanager
    def _exclusive(self) -> Iterator[int]:
        """Hold the directory, together with the server, which inherits the lock.

        So it stays held until the last of the server's processes is gone: whoever gets it need not fear a predecessor
        that is still dying, and may disbelieve any pid file found.
        """
        lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._wait_for(lock)
            yield lock
        finally:
            os.close(lock)

    def _wait_for(self, lock: int) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        while True:
            try:
                return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ServerFailedError(f"another {self.label} is using {self.directory}; stop it first") from None
            time.sleep(POLL_SECONDS)

    def _said_since(self, position: int) -> str:
        with self.log.open("rb") as log:
            log.seek(position)
            return log.read().decode(errors="replace")

    def _explain(self, what: str, position: int) -> str:
        last_lines = "\n  ".join(self._said_since(position).splitlines()[-8:])
        return f"{self.label} {what} (log: {self.log}):\n  {last_lines}"
