import os

from shout_worker import Shout, shout

from worker_runtime import Done
from worker_runtime.testing import job_for, running


async def test_a_text_is_shouted() -> None:
    assert await shout(job_for(Shout(text="hello"))) == Done("HELLO")


async def test_a_job_ends_with_its_shout_and_an_empty_one_as_a_dead_letter() -> None:
    async with running(shout, payload=Shout, redis_url=os.environ["REDIS_URL"]) as queue:
        good = await queue.ended(await queue.add({"text": "hello"}))
        bad = await queue.ended(await queue.add({"text": ""}))
    assert (good.state, good.returnvalue) == ("completed", "HELLO")
    assert (bad.state, bad.attempts) == ("failed", 1)
    assert str(bad.failed_reason).startswith("INVALID_PAYLOAD: text: ")
