"""`redis-cli COMMAND [ARGUMENT...]` where there is none: one command to REDIS_URL, its answer as redis-cli pipes it."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any

from embedded_stack.terminal import log_warnings_only, say
from worker_runtime.redis.connection import RedisConnection, RedisError, RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator


async def main(command: list[str]) -> int:
    """Run the command; the exit code is 1 when it could not be run."""
    redis = RedisConnection(os.environ["REDIS_URL"], client_name="redis-cli")
    await redis.open()
    try:
        answer = await redis.call(*command or ["PING"])
    except (RedisError, RedisUnavailable) as error:
        say(f"(error) {error}")
        return 1
    finally:
        await redis.close()
    sys.stdout.buffer.write(b"".join(line + b"\n" for line in lines_of(answer)))
    return 0


def lines_of(answer: Any) -> Iterator[bytes]:
    """Write an answer as redis-cli does into a pipe: one line a value, an empty one for nil."""
    if isinstance(answer, list):
        for part in answer:
            yield from lines_of(part)
    else:
        yield answer if isinstance(answer, bytes) else str("" if answer is None else answer).encode()


if __name__ == "__main__":
    log_warnings_only()
    raise SystemExit(asyncio.run(main(sys.argv[1:])))
