"""Small state that replicas share, in Redis under `<QUEUE_PREFIX>:state:`: the breakers.

Every change is one Lua script that reads the server's clock, so replicas with wrong clocks agree. All methods may raise
`RedisUnavailable` or `RedisError`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from worker_runtime.redis.connection import Script

if TYPE_CHECKING:
    from worker_runtime.redis.connection import RedisConnection

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
        self._key = f"{prefix}:state:breaker:{key_part(dependency)}"
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


def key_part(text: str) -> str:
    """Quote what would make two keys one (a colon), and shorten what would make one very long."""
    quoted = quote(text, safe="@+.-_", errors="surrogatepass")
    return quoted if len(quoted) <= LONGEST_KEY_PART else hashlib.sha256(quoted.encode()).hexdigest()
