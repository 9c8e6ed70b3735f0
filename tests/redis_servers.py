"""Redis as more than one server, started by a test on loopback: replicas, Sentinels, a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from embedded_stack import RedisServer, process
from embedded_stack.binaries import valkey_server
from embedded_stack.ports import free_port
from engine_harness import until
from worker_runtime.redis.address import RedisAddress, Server, read_sentinels
from worker_suite import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

PASSWORD = "of-all-of-them"
MASTER = "queues"


class ConfiguredRedis(RedisServer):
    """A durable server with more lines in its configuration; all have the same password."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        super().__init__(directory)
        self._settings = settings

    @property
    def password(self) -> str:
        return PASSWORD

    @property
    def server(self) -> Server:
        return Server("127.0.0.1", self.port, password=PASSWORD)

    def _configuration(self) -> str:
        return super()._configuration() + self._more_lines()

    def _more_lines(self) -> str:
        return "".join(f"{name.replace('_', '-')} {value}\n" for name, value in self._settings.items())


class Sentinel(ConfiguredRedis):
    """Watches one master; two of three decide."""

    def __init__(self, directory: Path, master: RedisServer) -> None:
        super().__init__(directory)
        self._master = master

    def _configuration(self) -> str:
        return sentinel_lines(self.port, self._master.port, quorum=2)

    def _spawn(self, lock: int) -> subprocess.Popen[bytes]:
        configuration = self.data / "sentinel.conf"
        configuration.write_text(self._configuration())
        command: list[str | Path] = [valkey_server(), "sentinel.conf", "--sentinel"]
        return process.spawn(command, log=self.log, death_signal=self.stop_signal, cwd=self.data, keep_open=[lock])


def sentinel_lines(port: int, master: int, quorum: int) -> str:
    return (
        f"bind 127.0.0.1\nport {port}\ndir .\nrequirepass {PASSWORD}\nsentinel sentinel-pass {PASSWORD}\n"
        f"sentinel monitor {MASTER} 127.0.0.1 {master} {quorum}\nsentinel auth-pass {MASTER} {PASSWORD}\n"
        f"sentinel down-after-milliseconds {MASTER} 500\nsentinel failover-timeout {MASTER} 3000\n"
    )


class Guarded:
    """A master, a replica of it, and three Sentinels that watch."""

    def __init__(self, master: ConfiguredRedis, replica: ConfiguredRedis, sentinels: Sequence[Sentinel]) -> None:
        self.master = master
        self.replica = replica
        self.sentinels = sentinels

    @property
    def variables(self) -> dict[str, str]:
        """What an operator sets; the first Sentinel named does not exist."""
        there = ",".join(f":{PASSWORD}@127.0.0.1:{one.port}" for one in self.sentinels)
        return {
            "REDIS_SENTINELS": f"127.0.0.1:{free_port()},{there}",
            "REDIS_SENTINEL_MASTER": MASTER,
            "REDIS_PASSWORD": PASSWORD,
        }

    @property
    def address(self) -> RedisAddress:
        sentinels = read_sentinels(self.variables["REDIS_SENTINELS"], tls=False)
        return RedisAddress(Server("nowhere", password=PASSWORD), sentinels, MASTER)

    async def replicated(self) -> None:
        """Wait until the replica has everything that the master has now."""

        async def level() -> bool:
            return self.master.ask("WAIT", "1", "500") == ":1"

        await until(level)

    async def watched(self) -> None:
        """Wait until the Sentinels know each other and the replica, so that they can decide."""

        async def ready() -> bool:
            quorums = [one.ask("SENTINEL", "CKQUORUM", MASTER) for one in self.sentinels]
            return all("3 usable" in quorum for quorum in quorums) and self._replica_known()

        await until(ready, within=30)

    def _replica_known(self) -> bool:
        return all("slaves=1" in one.ask("INFO", "sentinel") for one in self.sentinels)


@contextmanager
def guarded(directory: Path, **settings: Any) -> Iterator[Guarded]:
    with ExitStack() as running:
        common = {"repl_diskless_sync_delay": 0, "masterauth": PASSWORD, **settings}
        master = running.enter_context(ConfiguredRedis(directory / "master", **common))
        replica = ConfiguredRedis(directory / "replica", **common, replicaof=f"127.0.0.1 {master.port}")
        running.enter_context(replica)
        sentinels = [running.enter_context(Sentinel(directory / f"sentinel {n}", master)) for n in range(3)]
        yield Guarded(master, replica, sentinels)


class Cluster:
    """Three masters without replicas, each holding a third of the slots."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes
        self.ids = [node.ask("CLUSTER", "MYID") for node in nodes]

    @property
    def address(self) -> RedisAddress:
        return RedisAddress(self.nodes[0].server, cluster=True)

    @property
    def variables(self) -> dict[str, str]:
        """What an operator sets."""
        first = self.nodes[0]
        return {
            "REDIS_CLUSTER": "true",
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(first.port),
            "REDIS_PASSWORD": PASSWORD,
            "QUEUE_PREFIX": "{intelliflow}",
        }

    def holder(self, slot: int) -> int:
        """Return the number of the node that holds a slot."""
        return next(n for n, (first, last) in enumerate(thirds()) if first <= slot <= last)

    @contextmanager
    def replica_of(self, number: int, directory: Path) -> Iterator[ConfiguredRedis]:
        """Add a server that follows the node of that number."""
        with ClusterNode(directory) as replica:
            self.nodes[number].meet(replica)
            # It has to hear of its master first.
            wait_for(lambda: replica.ask("CLUSTER", "REPLICATE", self.ids[number]) == "+OK")
            yield replica

    async def formed(self) -> None:
        async def ready() -> bool:
            return all("cluster_state:ok" in node.ask("CLUSTER", "INFO") for node in self.nodes)

        await until(ready, within=30)


def thirds() -> list[tuple[int, int]]:
    return [(0, 5460), (5461, 10922), (10923, 16383)]


class Node(ConfiguredRedis):
    """One server of a cluster."""

    bus_port: int

    def meet(self, other: Node) -> None:
        assert self.ask("CLUSTER", "MEET", "127.0.0.1", str(other.port), str(other.bus_port)) == "+OK"


def as_node(bus_port: int) -> dict[str, Any]:
    return {
        "masterauth": PASSWORD,
        "cluster_enabled": "yes",
        "cluster_port": bus_port,
        "cluster_node_timeout": 1500,
    }


class ClusterNode(Node):
    def __init__(self, directory: Path) -> None:
        self.bus_port = free_port()
        super().__init__(directory, **as_node(self.bus_port))


@contextmanager
def cluster(directory: Path, start: Callable[[Path], Node] = ClusterNode) -> Iterator[Cluster]:
    with ExitStack() as running:
        nodes = [running.enter_context(start(directory / f"node {n}")) for n in range(3)]
        for node, (first, last) in zip(nodes, thirds(), strict=True):
            assert node.ask("CLUSTER", "ADDSLOTSRANGE", str(first), str(last)) == "+OK"
            nodes[0].meet(node)
        yield Cluster(nodes)


def waiting_jobs(variables: Mapping[str, str]) -> dict[str, int]:
    """Ask `intelliflow queues` with these settings how many jobs wait in each queue."""
    command = [sys.executable, "-m", "worker_ops", "queues", "-o", "ndjson"]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return {row["queue"]: row["waiting"] for row in map(json.loads, done.stdout.splitlines())}
