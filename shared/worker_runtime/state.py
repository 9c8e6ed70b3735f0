"""Small state that replicas share, in Redis under `<QUEUE_PREFIX>:state:`: breakers, and what was delivered already.

Every change is one Lua script that reads the server's clock, so replicas with wrong clocks agree. All methods may raise
`RedisUnavailable` or `RedisError`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from worker_runtime.redis.connection import Script

if TYPE_CHECKING:
    from worker_runtime.redis.connection import RedisConnection

DAY_SECONDS = 86_400
SENT_TTL_SECONDS = 7 * DAY_SECONDS
LONGEST_KEY_PART = 200

# A closed breaker without failures has no key. `granted`: 0 no, 1 go, 2 go as the only probe.
BREAKER = Script("""
local key, verb, owner = KEYS[1], ARGV[1], ARGV[2]
local threshold, reset_ms, lease_ms = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local saved = redis.call('HMGET', key, 'state', 'failures', 'openUntil', 'probe', 'probeUntil')
local state, failures = saved[1] or 'closed', tonumber(saved[2] or '0')
local open_until, probe, probe_until = tonumber(saved[3] or '0'), saved[4] or '', tonumber(saved[5] or '0')
local before = table.concat({state, failures, open_until, probe, probe_until}, '|')
local probing = state == 'half_open' and owner ~= '' and probe == owner
local granted = 0

local function become(new_state, new_open_until)
  state, open_until, probe, probe_until = new_state, new_open_until, '', 0
end

if verb == 'acquire' then
  if state == 'open' and now >= open_until then become('half_open', 0) end
  if state == 'closed' then
    granted = 1
  elseif state == 'half_open' and (probe == '' or now >= probe_until) then
    granted, probe, probe_until = 2, owner, now + lease_ms
  end
elseif verb == 'succeeded' then
  if state == 'closed' then failures = 0 elseif probing then failures = 0; become('closed', 0) end
elseif verb == 'failed' and (state == 'closed' or probing) then
  failures = failures + 1
  if probing or failures >= threshold then become('open', now + reset_ms) end
elseif verb == 'failed_for_good' then
  failures = failures + 1
  become('open', now + reset_ms)
elseif verb == 'release' and probing then
  become('half_open', 0)
elseif verb == 'restart' and state == 'open' then
  become('half_open', 0)
end

if state == 'closed' and failures == 0 then
  if saved[1] then redis.call('DEL', key) end
elseif before ~= table.concat({state, failures, open_until, probe, probe_until}, '|') then
  redis.call('HSET', key, 'state', state, 'failures', failures, 'openUntil', open_until,
    'probe', probe, 'probeUntil', probe_until)
  redis.call('PEXPIRE', key, reset_ms + 86400000)
end
local wait = 0
if state == 'open' then wait = math.max(0, open_until - now) end
if state == 'half_open' and probe ~= '' then wait = math.max(0, probe_until - now) end
return {state, failures, wait, granted, open_until}
""")

# State claimed -> sending -> sent; `doubt` stays once a sender died between sending and sent.
DELIVERY = Script("""
local key, verb, owner = KEYS[1], ARGV[1], ARGV[2]
local lease_ms, sent_ttl_ms, provider_id = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local saved = redis.call('HMGET', key, 'state', 'owner', 'until', 'doubt', 'providerId', 'sentAt')
local state, holder, held_until, doubt = saved[1], saved[2], tonumber(saved[3] or '0'), saved[4] == '1'

local function hold(new_state)
  redis.call('HSET', key, 'state', new_state, 'owner', owner, 'until', now + lease_ms, 'doubt', doubt and '1' or '0')
  redis.call('PEXPIRE', key, sent_ttl_ms)
end

if verb == 'claim' then
  if state == 'sent' then return {'sent', saved[5], saved[6]} end
  if state and holder ~= owner and held_until > now then return {'in_progress', held_until - now} end
  if state == 'sending' then doubt = true end
  hold('claimed')
  return {doubt and 'unknown' or 'claimed'}
end
if verb == 'sent' then
  if state == 'sent' then return {'0'} end
  redis.call('HSET', key, 'state', 'sent', 'owner', owner, 'providerId', provider_id, 'sentAt', now)
  redis.call('PEXPIRE', key, sent_ttl_ms)
  return {'1'}
end
if holder ~= owner or state == 'sent' then return {'0'} end
if verb == 'sending' then
  hold('sending')
elseif doubt then
  redis.call('HSET', key, 'state', 'claimed', 'until', 0)
else
  redis.call('DEL', key)
end
return {'1'}
""")


class BreakerPosition(IntEnum):
    """Where a breaker stands; the number is the gauge's."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


BreakerVerb = Literal["peek", "acquire", "succeeded", "failed", "failed_for_good", "release", "restart"]


@dataclass(frozen=True, slots=True)
class BreakerReading:
    """What Redis said. `wait_seconds`: until anything may be tried; `open_until`: server's clock, in seconds."""

    position: BreakerPosition = BreakerPosition.CLOSED
    failures: int = 0
    wait_seconds: float = 0.0
    granted: bool = True
    probe: bool = False
    open_until: float | None = None


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """When a breaker opens, how long it stays so, and how long one probe may take at most."""

    threshold: int = 5
    reset_ms: int = 60_000
    probe_ms: int = 65_000


class BreakerState:
    """One dependency's breaker, the same for all replicas."""

    def __init__(self, redis: RedisConnection, prefix: str, dependency: str, limits: BreakerLimits) -> None:
        self._redis = redis
        self._key = f"{prefix}:state:breaker:{_key_part(dependency)}"
        self._limits = (limits.threshold, limits.reset_ms, limits.probe_ms)

    async def ask(self, verb: BreakerVerb, owner: str = "") -> BreakerReading:
        """Tell the breaker what happened to `owner`'s call, or ask whether it may go; return where it stands then."""
        state, failures, wait_ms, granted, until_ms = await self._redis.run_script(
            BREAKER, (self._key,), (verb, owner, *self._limits)
        )
        return BreakerReading(
            BreakerPosition[state.decode().upper()],
            failures,
            wait_ms / 1000,
            granted > 0,
            granted == 2,  # noqa: PLR2004  the script's word for a probe
            until_ms / 1000 or None,
        )


@dataclass(frozen=True, slots=True)
class Claimed:
    """Nobody sent it; it is ours until the lease ends."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """It is ours, and somebody died while sending it: it may have arrived."""


@dataclass(frozen=True, slots=True)
class InProgress:
    """Somebody else is at it; their lease ends in `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class AlreadySent:
    """It was accepted: by the provider under that id, at that second since the epoch."""

    provider_message_id: str
    sent_at: float


class DeliveryRecords:
    """Which notifications were delivered: what makes sending twice the exception that a crash in the gap leaves."""

    def __init__(self, redis: RedisConnection, prefix: str) -> None:
        self._redis = redis
        self._prefix = f"{prefix}:state:delivery"

    async def claim(
        self, tenant: str, notification_id: str, owner: str, lease_seconds: float
    ) -> Claimed | Unknown | InProgress | AlreadySent:
        """Take the right to send. `owner` is unique to this attempt; the same owner may claim again."""
        answer = await self._ask("claim", tenant, notification_id, owner, lease_seconds)
        match answer[0]:
            case b"claimed":
                return Claimed()
            case b"unknown":
                return Unknown()
            case b"in_progress":
                return InProgress(answer[1] / 1000)
            case _:
                return AlreadySent(answer[1].decode(), int(answer[2]) / 1000)

    async def sending(self, tenant: str, notification_id: str, owner: str, lease_seconds: float) -> bool:
        """Say that the message leaves now, and renew the lease; false: the claim was lost, do not send."""
        return bool(await self._ask("sending", tenant, notification_id, owner, lease_seconds) == [b"1"])

    async def sent(self, tenant: str, notification_id: str, owner: str, provider_message_id: str) -> bool:
        """Record that the provider accepted it; false when it was recorded before.

        Holds whoever owns the claim by now: what was accepted cannot be taken back, and the new owner must learn it.
        """
        answer = await self._ask("sent", tenant, notification_id, owner, 0, provider_message_id)
        return bool(answer == [b"1"])

    async def release(self, tenant: str, notification_id: str, owner: str) -> bool:
        """Give the claim back after an attempt that surely did not send; false when it was not ours any more."""
        return bool(await self._ask("release", tenant, notification_id, owner, 0) == [b"1"])

    async def _ask(
        self, verb: str, tenant: str, notification_id: str, owner: str, lease_seconds: float, provider_id: str = ""
    ) -> list[Any]:
        key = f"{self._prefix}:{_key_part(tenant)}:{_key_part(notification_id)}"
        args = (verb, owner, round(lease_seconds * 1000), SENT_TTL_SECONDS * 1000, provider_id)
        answer: list[Any] = await self._redis.run_script(DELIVERY, (key,), args)
        return answer


def _key_part(text: str) -> str:
    """Quote what would make two keys one (a colon), and shorten what would make one very long."""
    quoted = quote(text, safe="@+.-_")
    return quoted if len(quoted) <= LONGEST_KEY_PART else hashlib.sha256(text.encode()).hexdigest()
