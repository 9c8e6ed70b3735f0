"""`intelliflow suppressions`, with the database and without: the same words, and what the worker reads."""

from __future__ import annotations

import asyncio

import pytest

from command_line import Operator, operator
from notifications_worker.store import SuppressionStore
from notifications_worker.suppression import RedisSuppressions, fingerprint
from worker_runtime.delivery_state import SuppressedAddresses
from worker_runtime.postgres import Database
from worker_runtime.redis.connection import RedisConnection

__all__ = ["operator"]

ADA = "Ada@Example.com"
FOR = "--tenant t-1 --channel EMAIL"


@pytest.fixture(params=["redis", "postgres"])
def kept(request: pytest.FixtureRequest, operator: Operator, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "redis":
        monkeypatch.delenv("DATABASE_URL")
    return str(request.param)


def test_an_address_is_suppressed_listed_and_let_go(operator: Operator, kept: str) -> None:
    add, remove = f"suppressions add {ADA} {FOR}", f"suppressions remove ada@example.com {FOR}"
    assert operator.run(remove).code == 3
    refused = operator.run(add)
    assert (refused.code, "--apply" in refused.err) == (5, True)
    assert operator.json("suppressions list") == []

    (added,) = operator.json(f"{add} --apply --by ann --reason ASKED_US")
    assert (added["outcome"], added["address"], added["reason"]) == ("suppressed", "***@Example.com", "ASKED_US")
    assert operator.json(f"{add} --apply --reason OTHER")[0]["outcome"] == "already suppressed"
    (row,) = operator.json("suppressions list")
    assert (row["tenantId"], row["channel"], row["reason"]) == ("t-1", "EMAIL", "ASKED_US")
    assert row["fingerprint"] == fingerprint(ADA)
    if kept == "postgres":
        assert row["address"] == "***@example.com"
        assert operator.json("suppressions list --reveal")[0]["address"].lower() == ADA.lower()
    for line in ("--tenant t-2", "--channel SMS", "--address bob@example.com"):
        assert operator.json(f"suppressions list {line}") == []
    assert len(operator.json(f"suppressions list --address {ADA}")) == 1

    assert operator.run(remove).code == 5
    assert operator.json(f"{remove} --apply")[0]["outcome"] == "removed"
    assert operator.json("suppressions list") == []
    if kept == "postgres":
        verbs = "SELECT string_agg(verb || ' ' || edited_by, ',' ORDER BY number) FROM notification_edit"
        assert operator.value(verbs).startswith("suppress ann,unsuppress ")


@pytest.mark.parametrize("address", ["+436601234567", "ada@b\u00fccher.example"])
def test_many_and_strange_ones_are_all_listed(operator: Operator, kept: str, address: str) -> None:
    channel = "EMAIL" if "@" in address else "SMS"
    for tenant in ("t:1", "t-*", "t-2"):
        assert operator.run(f"suppressions add {address} --tenant {tenant} --channel {channel} --apply").code == 0
    said = operator.run("suppressions list -o json")
    assert sorted(row["tenantId"] for row in said.rows) == ["t-*", "t-2", "t:1"]
    assert ("Redis keeps fingerprints" in said.err) == (kept == "redis")
    limited = operator.run("suppressions list --limit 2 -o json")
    assert len(limited.rows) == 2


def test_the_worker_reads_what_the_command_wrote(
    operator: Operator, kept: str, redis_url: str, database_url: str
) -> None:
    assert operator.run(f"suppressions add ada@b\u00fccher.example {FOR} --reason GONE --apply").code == 0

    async def reason(address: str) -> str | None:
        redis = RedisConnection(redis_url, client_name="test")
        await redis.open()
        async with Database(database_url) as database:
            in_redis = RedisSuppressions(SuppressedAddresses(redis, "intelliflow"))
            books = in_redis if kept == "redis" else SuppressionStore(database, database)
            found = await books.reason("t-1", "EMAIL", address)
        await redis.close()
        return found

    assert asyncio.run(reason("ada@xn--bcher-kva.example")) == "GONE"
    assert asyncio.run(reason("bob@xn--bcher-kva.example")) is None


def test_mistakes_are_told(operator: Operator) -> None:
    for line in (f"add {ADA} --tenant t-1", f"add ada@ {FOR}", f"add {ADA} --channel FAX --tenant t-1"):
        assert operator.run(f"suppressions {line} --apply").code == 2
