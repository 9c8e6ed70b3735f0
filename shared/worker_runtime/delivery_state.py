"""What replicas share about deliveries, in Redis under `<QUEUE_PREFIX>:state:`: senders, limits, suppressed addresses.

Every change is one Lua script that reads the server's clock, so replicas with wrong clocks agree. All methods may raise
`RedisUnavailable` or `RedisError`.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

from worker_runtime.redis.connection import Script
from worker_runtime.state import key_part

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from worker_runtime.redis.connection import RedisConnection

SENT_TTL_SECONDS = 7 * 86_400
# Keys that the server looks at for one answer.
SCANNED = 500

# Nothing -> sending -> sent, or back to nothing once it is known that nobody got it. `doubt`: since when a provider may
# have it without our knowing: its sender died, or never heard the answer.
DELIVERY = Script("""
local key, verb, owner = KEYS[1], ARGV[1], ARGV[2]
local lease_ms, sent_ttl_ms, provider_id = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local saved = redis.call('HMGET', key, 'state', 'owner', 'until', 'since', 'doubt', 'providerId', 'sentAt')
local state, holder, held_until, since = saved[1], saved[2], tonumber(saved[3] or '0'), saved[4] or '0'
local doubt = saved[5] or ''

if verb == 'look' or verb == 'begin' then
  if state == 'sent' then return {'sent', saved[6], saved[7]} end
  if state == 'sending' and holder ~= owner and held_until > now then return {'in_progress', held_until - now} end
  if state == 'sending' and doubt == '' then doubt = since end
  if verb == 'begin' then
    redis.call('HSET', key, 'state', 'sending', 'owner', owner, 'until', now + lease_ms, 'since', now, 'doubt', doubt)
    redis.call('PEXPIRE', key, sent_ttl_ms)
  end
  if doubt ~= '' then return {'doubtful', doubt} end
  return {'free'}
end
if verb == 'sent' then
  if state == 'sent' then return {'0'} end
  redis.call('HSET', key, 'state', 'sent', 'owner', owner, 'providerId', provider_id, 'sentAt', now)
  redis.call('PEXPIRE', key, sent_ttl_ms)
  return {'1'}
end
if holder ~= owner or state ~= 'sending' then return {'0'} end
if verb == 'in_doubt' and doubt == '' then doubt = since end
if doubt == '' then
  redis.call('DEL', key)
else
  redis.call('HSET', key, 'state', 'waiting', 'doubt', doubt)
end
return {'1'}
""")

# At most `most` entries within any stretch of `window_ms`. Who is refused is told when it may be his turn, one after
# another, so that a crowd does not come back at once.
RATE = Script("""
local taken, queue = KEYS[1], KEYS[2]
local most, window_ms, member = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
redis.call('ZREMRANGEBYSCORE', taken, '-inf', string.format('%.3f', now - window_ms))
if redis.call('ZCARD', taken) < most then
  redis.call('ZADD', taken, string.format('%.3f', now), member)
  redis.call('PEXPIRE', taken, window_ms + 1000)
  return 0
end
local oldest = tonumber(redis.call('ZRANGE', taken, 0, 0, 'WITHSCORES')[2])
local turn = math.max(tonumber(redis.call('GET', queue) or '0'), oldest) + window_ms / most
turn = math.max(turn, oldest + window_ms)
redis.call('SET', queue, string.format('%.3f', turn), 'PX', math.ceil(turn - now) + window_ms)
return math.max(1, math.ceil(turn - now))
""")


@dataclass(frozen=True, slots=True)
class Free:
    """Nobody has sent it, and nobody is at it."""


@dataclass(frozen=True, slots=True)
class Doubtful:
    """Nobody is at it; a provider may have had it since that second of the epoch, and nobody knows."""

    since: float


@dataclass(frozen=True, slots=True)
class InProgress:
    """Somebody else is at it; their lease ends in `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class AlreadySent:
    """It was accepted: by the provider under that id, at that second since the epoch."""

    provider_message_id: str
    sent_at: float


Standing = Free | Doubtful | InProgress | AlreadySent
DeliveryVerb = Literal["look", "begin", "sent", "unsent", "in_doubt"]


class DeliveryRecords:
    """Which notifications were delivered, for 7 days. An `owner` is a job: it may come back after its worker died."""

    def __init__(self, redis: RedisConnection, prefix: str) -> None:
        self._redis = redis
        self._prefix = f"{prefix}:state:delivery"

    async def look(self, delivery: Sequence[str], owner: str) -> Standing:
        """Return where a delivery stands; it is named by tenant, notification and channel."""
        return _standing(await self._ask("look", delivery, owner))

    async def begin(self, delivery: Sequence[str], owner: str, lease_seconds: float) -> Standing:
        """Take the right to send and note that the message leaves now, if it is free or doubtful."""
        return _standing(await self._ask("begin", delivery, owner, lease_seconds))

    async def sent(self, delivery: Sequence[str], owner: str, provider_message_id: str) -> bool:
        """Record that the provider accepted it; false when it was recorded before.

        Holds whoever owns it by now: what was accepted cannot be taken back, and the new owner must learn it.
        """
        named = provider_message_id.encode("utf-8", "backslashreplace")
        return await self._ask("sent", delivery, owner, 0, named) == [b"1"]

    async def unsent(self, delivery: Sequence[str], owner: str) -> bool:
        """Give the right back after a message that surely nobody got; false when it was not ours any more."""
        return await self._ask("unsent", delivery, owner) == [b"1"]

    async def in_doubt(self, delivery: Sequence[str], owner: str) -> bool:
        """Give the right back, and let the next owner know that the message may have arrived."""
        return await self._ask("in_doubt", delivery, owner) == [b"1"]

    async def _ask(
        self,
        verb: DeliveryVerb,
        delivery: Sequence[str],
        owner: str,
        lease_seconds: float = 0,
        provider_id: bytes = b"",
    ) -> list[Any]:
        key = ":".join([self._prefix, *map(key_part, delivery)])
        args = (verb, owner, round(lease_seconds * 1000), SENT_TTL_SECONDS * 1000, provider_id)
        answer: list[Any] = await self._redis.run_script(DELIVERY, (key,), args)
        return answer


def _standing(answer: list[Any]) -> Standing:
    match answer[0]:
        case b"free":
            return Free()
        case b"doubtful":
            return Doubtful(int(answer[1]) / 1000)
        case b"in_progress":
            return InProgress(answer[1] / 1000)
        case _:
            return AlreadySent(answer[1].decode(), int(answer[2]) / 1000)


class RateLimits:
    """Limits that hold over all replicas: at most `most` within any stretch of `window_ms`."""

    def __init__(self, redis: RedisConnection, prefix: str) -> None:
        self._redis = redis
        self._prefix = f"{prefix}:state:rate"

    async def take(self, what: str, most: int, window_ms: int) -> float:
        """Take one and return 0, or return the seconds until one may be free for whoever asks now."""
        # The braces keep both keys on one server of a Redis Cluster.
        key = f"{self._prefix}:{{{key_part(what)}}}"
        member = uuid.uuid4().hex
        return int(await self._redis.run_script(RATE, (key, f"{key}:turn"), (most, window_ms, member))) / 1000


class SuppressedAddresses:
    """Addresses that nothing is sent to, by fingerprint: who reads Redis learns none of them."""

    def __init__(self, redis: RedisConnection, prefix: str) -> None:
        self._redis = redis
        self._prefix = f"{prefix}:state:suppressed"

    async def reason(self, tenant: str, channel: str, fingerprint: str) -> str | None:
        """Return why an address is suppressed, or nothing."""
        found = await self._redis.call("GET", self._key(tenant, channel, fingerprint))
        return None if found is None else found.decode()

    async def add(self, tenant: str, channel: str, fingerprint: str, reason: str) -> None:
        """Suppress an address; the first reason stays."""
        await self._redis.call("SET", self._key(tenant, channel, fingerprint), reason, "NX")

    async def remove(self, tenant: str, channel: str, fingerprint: str) -> bool:
        """Send to an address again; false when it was not suppressed."""
        return bool(await self._redis.call("DEL", self._key(tenant, channel, fingerprint)))

    async def known(self) -> AsyncIterator[tuple[str, str, str, str]]:
        """Yield tenant, channel, fingerprint and reason of each; of a very long name its digest is all there is."""
        # All are on one server: its own keyspace is walked.
        node, cursor, prefix = await self._redis.server_of(self._key()), b"0", f"{self._key()}:"
        while True:
            cursor, keys = await node.call("SCAN", cursor, "MATCH", f"{_literal(prefix)}*", "COUNT", SCANNED)
            reasons = await asyncio.gather(*(node.call("GET", key) for key in keys))
            for key, reason in zip(keys, reasons, strict=True):
                parts = [unquote(part) for part in key.decode().removeprefix(prefix).split(":")]
                if reason is not None and len(parts) == 3:  # noqa: PLR2004  see `_key`
                    yield parts[0], parts[1], parts[2], reason.decode()
            if cursor == b"0":
                return

    def _key(self, *parts: str) -> str:
        return ":".join([self._prefix, *map(key_part, parts)])


def _literal(text: str) -> str:
    """Write what stands for itself in a pattern of Redis."""
    return re.sub(r"([\\*?\[\]^-])", r"\\\1", text)
