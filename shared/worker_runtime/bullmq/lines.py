"""Lines: jobs of one queue that run one after another, in the order they were claimed, over all replicas.

    if waiting := await line.may_go("endpoint-1", job.id, [{"recipient.id": "endpoint-1"}]):
        return Defer("EARLIER_DELIVERY_UNFINISHED", ..., waiting.seconds)
    ...
    await line.ended(job.id)

A job joins its line when it first asks, and stays until it is finished, however often it is retried or put off
between. Workers ask in any order; so whoever asks looks at the queue's `active` list, which has the order of the
claims, and lets those of its line that were claimed before it, and have not asked yet, join first. Nothing needs to be
cleaned up: a job that is completed, failed or removed is passed over by the next that asks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker_runtime.bullmq.scripts import shipped
from worker_runtime.redis.connection import Script

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker_runtime.bullmq.names import QueueName
    from worker_runtime.redis.connection import RedisConnection

__all__ = ["Lines", "Waiting"]

PROMOTE = shipped("promote-9")
PROMOTE_KEYS = "delayed wait paused meta prioritized active pc events marker"
# Longer than any job is put off; each job that asks renews it.
LINE_TTL_SECONDS = 8 * 86_400
# A promotion ends the wait of the next in line; this is for when that fails, and grows with the place in line.
LOOK_AGAIN_SECONDS = 1.0
MORE_FOR_EACH_SECONDS = 0.2
LONGEST_LOOK_SECONDS = 30.0

# A field in a job's hash names the line that it has joined: who asks must not let a job join that has left it already.
# Answers with the place in line, from 0, and the milliseconds until the first one runs again, if that is put off.
MAY_GO = Script("""
local line, active, delayed = KEYS[1], KEYS[2], KEYS[3]
local me, prefix, name, ttl, marks = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), cjson.decode(ARGV[5])

local function join(id)
  local last = redis.call('ZREVRANGE', line, 0, 0, 'WITHSCORES')
  redis.call('ZADD', line, 'NX', (tonumber(last[2]) or 0) + 1, id)
  if redis.call('EXISTS', prefix .. id) == 1 then redis.call('HSET', prefix .. id, 'line', name) end
end

local function at(data, path)
  for part in string.gmatch(path, '[^.]+') do
    if type(data) ~= 'table' then return nil end
    data = data[part]
  end
  return data
end

local function bears(data, mark)
  for path, value in pairs(mark) do
    if at(data, path) ~= value then return false end
  end
  return true
end

-- Reading the whole of it is only for those that hold the words at all; with an escape in it, nobody can tell so soon.
local function may_bear(text, mark)
  for _, value in pairs(mark) do
    if not string.find(text, value, 1, true) and not string.find(text, '\\\\', 1, true) then return false end
  end
  return true
end

local function belongs(id)
  local known = redis.call('HMGET', prefix .. id, 'data', 'line')
  if not known[1] or known[2] then return false end
  for _, mark in ipairs(marks) do
    if may_bear(known[1], mark) then
      local readable, data = pcall(cjson.decode, known[1])
      if readable and bears(data, mark) then return true end
    end
  end
  return false
end

if not redis.call('ZSCORE', line, me) then
  local claimed = redis.call('LRANGE', active, 0, -1)
  for place = #claimed, 1, -1 do
    if claimed[place] == me then break end
    if belongs(claimed[place]) then join(claimed[place]) end
  end
  join(me)
end
redis.call('EXPIRE', line, ttl)

local first
while true do
  first = redis.call('ZRANGE', line, 0, 0)[1]
  if first == me then return {0, 0} end
  local job = redis.call('HMGET', prefix .. first, 'timestamp', 'finishedOn')
  if job[1] and not job[2] then break end
  redis.call('ZREM', line, first)
end
local due = redis.call('ZSCORE', delayed, first)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return {redis.call('ZRANK', line, me), due and math.max(0, math.floor(tonumber(due) / 4096) - now) or 0}
""")

# Answers with the job that is first now, if it was this one that it waited for.
LEAVE = Script("""
local prefix, me = ARGV[1], ARGV[2]
local name = redis.call('HGET', KEYS[1], 'line')
if not name then return false end
local line = prefix .. 'line:' .. name
local was_first = redis.call('ZRANK', line, me) == 0
redis.call('ZREM', line, me)
return was_first and redis.call('ZRANGE', line, 0, 0)[1]
""")


@dataclass(frozen=True, slots=True)
class Waiting:
    """Others are before it. After so many seconds it should ask again, if nobody has sent for it by then."""

    seconds: float


class Lines:
    """The lines of one queue. Every method may raise `RedisUnavailable` or `RedisError`."""

    def __init__(self, redis: RedisConnection, queue: QueueName) -> None:
        self._redis = redis
        self._queue = queue
        self._prefix = queue.key("")

    async def may_go(self, line: str, job_id: str, marks: Sequence[Mapping[str, str]]) -> Waiting | None:
        """Tell a running job of a line whether it is its turn, and if not, how long to wait.

        `marks` are how a job of that line is known by its data: it bears all values of one of them, each at its path
        (`recipient.id`).
        """
        keys = [self._queue.key(f"line:{line}"), self._queue.key("active"), self._queue.key("delayed")]
        args = (job_id, self._prefix, line, LINE_TTL_SECONDS, json.dumps([dict(mark) for mark in marks]))
        place, due_ms = await self._redis.run_script(MAY_GO, keys, args)
        if place == 0:
            return None
        look_again = LOOK_AGAIN_SECONDS + MORE_FOR_EACH_SECONDS * (place - 1)
        return Waiting(due_ms / 1000 + min(look_again, LONGEST_LOOK_SECONDS))

    async def ended(self, job_id: str) -> None:
        """Let the next in line go at once. Not needed for it to go at all; nothing for a job that joined no line."""
        args = (self._prefix, job_id)
        following = await self._redis.run_script(LEAVE, [self._queue.key(job_id)], args)
        if following is not None:
            await self._promote(following)

    async def _promote(self, job_id: bytes) -> None:
        keys = [self._queue.key(part) for part in PROMOTE_KEYS.split()]
        await self._redis.run_script(PROMOTE, keys, (self._prefix, job_id))
