import asyncpg, asyncio
def test_a(redis_url, database_url, mailbox): print(redis_url, database_url, mailbox.port)
async def test_b(redis_url, database_url, own_redis, own_postgres):
    c = await asyncpg.connect(database_url)
    print(await c.fetch("select tablename from pg_tables where schemaname='public'"))
    await c.close()
