"""Where Redis is: one server, the master that Sentinels know, or a cluster."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self
from urllib.parse import unquote, urlsplit

from redis.asyncio.connection import SSLConnection, parse_url

SENTINEL_PORT = 26_379


@dataclass(frozen=True, slots=True)
class Server:
    """One server and how to log in there. As text it is its address, without the login."""

    host: str
    port: int = 6379
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    database: int = 0
    tls: bool = False

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Read `redis[s]://[user:password@]host[:port][/database]`; raises ValueError for what is none."""
        parts = parse_url(url)
        return cls(
            parts.get("host", "localhost"),
            parts.get("port", 6379),
            parts.get("username") or "",
            parts.get("password") or "",
            parts.get("db", 0),
            parts.get("connection_class") is SSLConnection,
        )

    def at(self, host: bytes | str, port: bytes | int) -> Server:
        """Return another server with the same login."""
        return replace(self, host=host.decode() if isinstance(host, bytes) else host, port=int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """What the settings say about Redis.

    `server` is the only one; or one of the cluster; or, with `sentinels`, the login for whichever server is `master`.
    """

    server: Server
    sentinels: tuple[Server, ...] = ()
    master: str = ""
    cluster: bool = False

    def __str__(self) -> str:
        if self.sentinels:
            return f"{self.master} of Sentinel {', '.join(map(str, self.sentinels))}"
        return f"cluster at {self.server}" if self.cluster else str(self.server)


def read_sentinels(written: str, *, tls: bool) -> tuple[Server, ...]:
    """Read `[user:password@]host[:port],...`; raises ValueError, without repeating it, for what is none."""
    entries = [entry.strip() for entry in written.split(",") if entry.strip()]
    try:
        return tuple(_read_sentinel(entry, tls=tls) for entry in entries)
    except ValueError:
        raise ValueError("not host:port, or several of them separated by commas") from None


def _read_sentinel(entry: str, *, tls: bool) -> Server:
    parts = urlsplit(f"//{entry}")
    if not parts.hostname or parts.path or parts.query:
        raise ValueError("no host alone")
    login = (unquote(parts.username or ""), unquote(parts.password or ""))
    return Server(parts.hostname, parts.port or SENTINEL_PORT, *login, tls=tls)
