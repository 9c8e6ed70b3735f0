from contextlib import asynccontextmanager
@asynccontextmanager
async def embedding_loop(runtime):
    yield None
