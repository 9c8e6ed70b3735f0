"""Debian's Redis behind TLS, alone and as more than one: the embedded one is built without TLS.

Each has a plain port as well, the test's own way in.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from embedded_stack import process
from embedded_stack.ports import free_port
from redis_servers import PASSWORD, ConfiguredRedis, Node, as_node, sentinel_lines
from worker_runtime.redis.address import Server

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    import trustme

ADDRESS = "127.0.0.1"


class TlsRedis(ConfiguredRedis):
    """Its certificate, of that authority, names it as given and nothing else."""

    arguments: tuple[str, ...] = ()

    def __init__(self, directory: Path, authority: trustme.CA, name: str = "localhost", **settings: Any) -> None:
        self.tls_port = free_port()
        directory.mkdir(parents=True)
        self.authority = directory / "authority.pem"
        authority.cert_pem.write_to_path(self.authority)
        pair = directory / "pair.pem"
        authority.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(pair)
        files = {"tls_cert_file": f'"{pair}"', "tls_key_file": f'"{pair}"', "tls_ca_cert_file": f'"{self.authority}"'}
        settings |= {"tls_port": self.tls_port, "tls_auth_clients": "no"}
        super().__init__(directory / "server", **files, **settings)

    @property
    def tls_server(self) -> Server:
        return Server(ADDRESS, self.tls_port, password=PASSWORD, tls=True)

    def _spawn(self, lock: int) -> subprocess.Popen[bytes]:
        (self.data / "redis.conf").write_text(self._configuration())
        program = shutil.which("redis-server")
        assert program
        command: list[str | Path] = [program, "redis.conf", *self.arguments]
        return process.spawn(command, log=self.log, death_signal=self.stop_signal, cwd=self.data, keep_open=[lock])


class TlsSentinel(TlsRedis):
    """Alone it watches, and decides."""

    arguments = ("--sentinel",)

    def __init__(self, directory: Path, authority: trustme.CA, master: TlsRedis) -> None:
        super().__init__(directory, authority, ADDRESS, tls_replication="yes")
        self._master = master

    def _configuration(self) -> str:
        return self._more_lines() + sentinel_lines(self.port, self._master.tls_port, quorum=1)


class TlsNode(TlsRedis, Node):
    """One server of a cluster, which also speaks TLS to the others."""

    def __init__(self, directory: Path, authority: trustme.CA) -> None:
        self.bus_port = free_port()
        super().__init__(directory, authority, ADDRESS, tls_cluster="yes", **as_node(self.bus_port))
