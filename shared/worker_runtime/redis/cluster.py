"""A Redis Cluster behind the surface of one connection: each command goes to the server that holds its key."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from worker_runtime.redis.address import RedisAddress, Server
from worker_runtime.redis.connection import RedisConnection
from worker_runtime.redis.wire import Argument, RedisError, RedisUnavailable, ask_any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from worker_runtime.redis.connection import Script, ScriptCall

Send = Callable[[RedisConnection], Awaitable[Any]]
MOST_REDIRECTIONS = 5
# One change of the cluster shows in many answers; the map is asked for once.
PAUSE_BETWEEN_MAPS_SECONDS = 0.1


class Redirection(NamedTuple):
    """Where a cluster says to go; `asking`: for this once, and after saying so."""

    asking: bool
    host: str
    port: int


class ClusterConnection(RedisConnection):
    """Connections to the servers of a cluster that hold keys in use, each opened when it is first needed.

    A command's first argument is its key, a script's keys are in one slot; a command without arguments (`PING`) goes
    to every server in use. What a server holds is learnt from any of them and from their redirections.
    """

    def __init__(
        self,
        where: str | RedisAddress,
        *,
        client_name: str,
        timeout_seconds: float = 5.0,
        on_error: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(where, client_name=client_name, timeout_seconds=timeout_seconds, on_error=on_error)
        # Whom to ask for the map.
        self._guides = deque([self._where.server])
        self._holders: list[Server | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._nodes: dict[Server, RedisConnection] = {}
        self._stale = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether the map is known and every server in use can be asked."""
        return self._ready.is_set() and all(node.connected for node in self._nodes.values())

    async def close(self) -> None:
        """See `RedisConnection.close`."""
        await super().close()
        self._nodes, nodes = {}, self._nodes
        await asyncio.gather(*(node.close() for node in nodes.values()))

    async def server_of(self, key: Argument) -> RedisConnection:
        """See `RedisConnection.server_of`; the answer holds until the key's slot moves."""
        return await self._holder(slot_of(key))

    async def call(self, *command: Argument) -> Any:
        """See `RedisConnection.call`. Without a key the answer is a list: what each server in use said."""
        if len(command) == 1:
            await self._wait_until_ready()
            return await asyncio.gather(*(node.call(*command) for node in self._nodes.values()))
        return await self._send(command[1], lambda node: node.call(*command), lambda node: node.call_asking(*command))

    async def run_script(self, script: Script, keys: Sequence[Argument], args: Sequence[Argument]) -> Any:
        """See `RedisConnection.run_script`."""
        return await self._send(
            keys[0],
            lambda node: node.run_script(script, keys, args),
            lambda node: node.call_asking("EVAL", script.source, len(keys), *keys, *args),
        )

    async def run_scripts(self, calls: Iterable[ScriptCall]) -> list[Any]:
        """See `RedisConnection.run_scripts`."""
        return await asyncio.gather(*(self.run_script(*call) for call in calls))

    async def _send(self, key: Argument, send: Send, send_asking: Send) -> Any:
        """Send to the key's server and follow its redirections: a redirected command has not run."""
        slot, way = slot_of(key), send
        node = await self._holder(slot)
        for _ in range(MOST_REDIRECTIONS):
            try:
                return await way(node)
            except RedisError as error:
                if (told := read_redirection(str(error))) is None:
                    raise
            server = node.server.at(told.host or node.server.host, told.port)
            way = send_asking if told.asking else send
            if not told.asking:
                self._holders[slot] = server
                self._stale.set()
            node = await self._node(server)
        raise RedisUnavailable(f"{self._where}: slot {slot} is on the move")

    async def _holder(self, slot: int) -> RedisConnection:
        if self._keeper is None or not self._ready.is_set():
            await self._wait_until_ready()
        if (server := self._holders[slot]) is None:
            self._stale.set()
            raise RedisUnavailable(f"{self._where}: no server of slot {slot} is known")
        return self._nodes.get(server) or await self._node(server)

    async def _node(self, server: Server) -> RedisConnection:
        if self._keeper is None:
            raise self._no_connection()
        if server not in self._nodes:
            node = self._nodes[server] = RedisConnection(
                RedisAddress(server),
                client_name=self._client_name,
                timeout_seconds=self._timeout,
                on_error=self._note_error,
            )
            await node.open()
        return self._nodes[server]

    def _note_error(self) -> None:
        self._stale.set()
        self._on_error()

    async def _connect(self) -> Callable[[], Awaitable[None]]:
        """Learn the cluster's map."""
        self._stale.clear()
        guide, ranges = await ask_any(self._guides, "CLUSTER", "SLOTS", timeout_seconds=self._timeout)
        holders: list[Server | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        servers = {self._where.server: None}
        for first, last, *members in ranges:
            # An empty host means: the one you asked.
            master, *replicas = (guide.at(host or guide.host, port) for host, port, *_ in members)
            holders[first : last + 1] = [master] * (last + 1 - first)
            servers |= dict.fromkeys((master, *replicas))
        self._holders, self._guides = holders, deque(servers)
        return self._serve_map

    async def _serve_map(self) -> None:
        """Use the map until something contradicts it."""
        self.trouble = ""
        self._ready.set()
        for server in self._nodes.keys() - set(self._holders):
            await self._nodes.pop(server).close()
        await self._stale.wait()
        await asyncio.sleep(PAUSE_BETWEEN_MAPS_SECONDS)


def slot_of(key: Argument) -> int:
    """Return the hash slot of a key: of its hash tag, if it has one."""
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


def read_redirection(error: str) -> Redirection | None:
    """Read `MOVED slot host:port` and `ASK slot host:port`; anything else is none."""
    kind, _, rest = error.partition(" ")
    if kind not in {"MOVED", "ASK"}:
        return None
    host, _, port = rest.partition(" ")[2].rpartition(":")
    return Redirection(kind == "ASK", host, int(port))


def redis_connection(
    where: str | RedisAddress,
    *,
    client_name: str,
    timeout_seconds: float = 5.0,
    on_error: Callable[[], None] = lambda: None,
) -> RedisConnection:
    """Make the connection, not yet open, that the address asks for; a URL means one server."""
    kind = ClusterConnection if isinstance(where, RedisAddress) and where.cluster else RedisConnection
    return kind(where, client_name=client_name, timeout_seconds=timeout_seconds, on_error=on_error)
