import contextlib
import threading
import time

import psycopg


class OutboxHint(threading.Thread):
    """Tells the relay of commits, by a connection of its own and at most once in so many seconds.

    Call `hint.committed.set()` after a commit: that takes a microsecond and never fails. A lost hint costs a poll.
    """

    def __init__(self, database_url: str, every_seconds: float = 0.008) -> None:
        super().__init__(name="outbox-hint", daemon=True)
        self.committed = threading.Event()
        self._database_url = database_url
        self._every_seconds = every_seconds

    def run(self) -> None:
        while True:
            with contextlib.suppress(psycopg.Error):
                self._tell()
            time.sleep(1)

    def _tell(self) -> None:
        with psycopg.connect(self._database_url, autocommit=True) as connection:
            # A hint need not wait for the disk.
            connection.execute("SET synchronous_commit = off")
            while self.committed.wait():
                self.committed.clear()
                connection.execute("NOTIFY domain_event_outbox")
                time.sleep(self._every_seconds)
