"""Free TCP ports on the loopback interface."""

from __future__ import annotations

import socket
from random import SystemRandom

# Below the range from which clients' own ports come. Inside it, a client that keeps reconnecting to a stopped server
# can be given that very port and connect to itself, after which the server cannot come back.
_CANDIDATES = range(15_000, 32_000)
_ATTEMPTS = 1_000


def free_port(preferred: int | None = None) -> int:
    """Return `preferred` when nobody listens there, else a random free port. Raises OSError when none is left."""
    if preferred is not None and is_free(preferred):
        return preferred
    random = SystemRandom()
    for _ in range(_ATTEMPTS):
        port = random.choice(_CANDIDATES)
        if is_free(port):
            return port
    raise OSError(f"no free TCP port on 127.0.0.1 between {_CANDIDATES.start} and {_CANDIDATES.stop}")


def tells_of_a_taken_port(log: str) -> bool:
    """Say whether a program complains in its log that it may not listen where it should."""
    return "address already in use" in log.lower()


def is_free(port: int) -> bool:
    """Say whether a server could listen on 127.0.0.1:`port` now (a listener on all addresses counts)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do, so that connections which are just closing do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
