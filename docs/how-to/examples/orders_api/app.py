import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI, Request
from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel

from jobs_worker.fastapi import job_queue_health, job_queue_lifespan
from orders_api.bus import Bus, unit_of_work
from orders_api.tasks import pack

bus = Bus()


@dataclass
class OrderPlaced:
    order_id: str


@bus.on(OrderPlaced)
async def have_it_packed(event: OrderPlaced) -> None:
    await pack.defer_async(order_id=event.order_id)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncConnectionPool(os.environ["DATABASE_URL"], open=False) as app.state.pool, job_queue_lifespan(app):
        yield


app = FastAPI(lifespan=lifespan)
app.include_router(job_queue_health)


class Order(BaseModel):
    id: str
    email: str


@app.post("/orders", status_code=201)
async def place_order(order: Order, request: Request) -> Order:
    async with unit_of_work(request.app.state.pool, bus) as work:
        await work.connection.execute("INSERT INTO orders (id, email) VALUES (%s, %s)", (order.id, order.email))
        work.happened(OrderPlaced(order.id))
        await work.publish("order.placed", ("Order", order.id), "acme", {"orderId": order.id, "email": order.email})
    return order
