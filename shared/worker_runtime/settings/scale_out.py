"""What must go together when Redis is more than one server."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from worker_runtime.settings.queues import known_queues

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker_runtime.redis.address import RedisAddress
    from worker_runtime.settings.worker import WorkerSettings

# Redis hashes what is between the first { and the } after it, if that is something.
HASH_TAG = re.compile(r"[^{]*\{[^}]+\}")


def contradictions(settings: WorkerSettings, redis: RedisAddress) -> Iterator[str]:
    """Yield a line for each setting of Redis that does not go with the others."""
    if bool(redis.sentinels) != bool(redis.master):
        there, lacking = ("SENTINELS", "SENTINEL_MASTER") if redis.sentinels else ("SENTINEL_MASTER", "SENTINELS")
        yield f"REDIS_{there} is set and REDIS_{lacking} is not; allowed: both or neither"
    if not redis.cluster:
        return
    if redis.sentinels:
        yield "REDIS_CLUSTER=true and REDIS_SENTINELS: a cluster has no Sentinels; allowed: one of the two"
    if redis.server.database:
        yield f"REDIS_CLUSTER=true and database {redis.server.database}: a cluster has none but 0; allowed: 0"
    yield from dict.fromkeys(_untagged(settings))


def _untagged(settings: WorkerSettings) -> Iterator[str]:
    """Yield a line for each prefix that would spread the keys of one queue over the cluster."""
    for key in known_queues(settings.own_queues):
        if HASH_TAG.match(settings.queue_name(key).label):
            continue
        own = settings.queues.of(key).prefix
        variable, prefix = (f"QUEUE_{key}_PREFIX", own) if own else ("QUEUE_PREFIX", settings.queue_prefix)
        yield f"REDIS_CLUSTER=true and {variable}={prefix!r}: needs a hash tag; allowed: like {{{prefix}}}"
