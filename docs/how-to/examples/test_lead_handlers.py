import os

import asyncpg
from lead_handlers.counting import count_lead
from lead_handlers.greeting import greet

from events_worker.testing import handling

DATABASE, REDIS = os.environ["DATABASE_URL"], os.environ["REDIS_URL"]
LEAD = {"leadId": "lead-1", "email": "ada@analytical.example", "tenantId": "tenant-1", "company": "Analytical Engines"}
CUSTOMER = {"leadId": "lead-1", "tenantId": "tenant-1", "leadName": "Ada", "ownerEmail": "sam@example.org"}


async def test_a_lead_is_counted_once_though_its_worker_is_killed() -> None:
    database = await asyncpg.connect(DATABASE)
    await database.execute(
        "CREATE TABLE IF NOT EXISTS company_leads (company text PRIMARY KEY, leads integer NOT NULL)"
    )
    await database.execute("TRUNCATE company_leads")
    async with handling(count_lead, database_url=DATABASE, redis_url=REDIS, killed_once=True) as work:
        ended = await work.ended(await work.commit("lead.created", LEAD))
    assert ended.state == "completed"
    assert await database.fetchval("SELECT leads FROM company_leads WHERE company = 'Analytical Engines'") == 1
    await database.close()


async def test_a_customer_makes_one_mail_though_the_worker_is_killed() -> None:
    async with handling(greet, database_url=DATABASE, redis_url=REDIS, killed_once=True) as work:
        assert (await work.ended(await work.commit("lead.converted", CUSTOMER))).state == "completed"
        (mail,) = await work.added("EMAIL")
    assert mail.data["content"]["body"] == "Ada has signed."


async def test_without_an_owner_somebody_must_look_at_it() -> None:
    async with handling(greet, database_url=DATABASE, redis_url=REDIS) as work:
        ended = await work.ended(await work.commit("lead.converted", CUSTOMER | {"ownerEmail": None}))
    assert (ended.state, ended.attempts) == ("failed", 1)
    assert str(ended.failed_reason).startswith("NO_OWNER: ")
