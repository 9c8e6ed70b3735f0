"""`intelliflow doctor`: finds what is wrong with an outbox that a test has made so, and is silent otherwise."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from command_line import Operator, operator
from worker_ops.doctor import findings
from worker_ops.doctor.store import Index, Vacuum

__all__ = ["operator"]

MIB = 2**20


def attention(operator: Operator) -> dict[str, Any]:
    said = operator.run("doctor -o json")
    found = {row["check"]: row for row in said.rows if row["status"] == "attention"}
    assert said.code == (4 if found else 0)
    assert all(row["remedy"] for row in found.values())
    return found


def own(operator: Operator) -> None:
    operator.database.execute("INSERT INTO domain_event_partition VALUES (0, 'here:1', 1, now() + interval '1 hour')")


def test_an_outbox_that_is_well_needs_nothing(operator: Operator) -> None:
    own(operator)
    operator.commit()
    assert attention(operator) == {}


def test_what_is_wrong_is_found_with_its_remedy(operator: Operator, database_url: str) -> None:
    operator.commit()
    dead, slow = operator.dead(aggregate="a"), operator.commit(aggregate="b")
    operator.under_way(dead, dead_reason="GONE: it is gone")
    operator.under_way(slow)
    operator.database.execute("UPDATE domain_event_under_way SET claimed_at = now() - interval '11 minutes'")
    operator.database.execute("UPDATE domain_event_outbox SET created_at = now() - interval '2 minutes'")
    operator.database.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'domain_event_outbox_next'::regclass"
    )
    found = attention(operator)
    assert set(found) == {"lag", "dead letters", "blocked aggregates", "under way", "partitions", "indexes"}
    assert dead in found["blocked aggregates"]["remedy"]
    assert slow in found["under way"]["remedy"]
    assert found["indexes"]["remedy"] == "`REINDEX INDEX CONCURRENTLY domain_event_outbox_next`"
    # What the remedies say, and the ends of the stories, make it well.
    operator.database.execute("REINDEX INDEX CONCURRENTLY domain_event_outbox_next")
    operator.run(f"outbox discard {dead} --apply --reason test")
    operator.database.execute("DELETE FROM domain_event_under_way WHERE dead_reason IS NULL")
    operator.database.execute("UPDATE domain_event_outbox SET processed_at = now() WHERE processed_at IS NULL")
    own(operator)
    assert attention(operator) == {}


def test_endpoints_and_deliveries_that_need_somebody_are_named(operator: Operator) -> None:
    own(operator)
    endpoint = (
        "INSERT INTO tenant_webhook_endpoint (tenant_id, url, active, disabled_because) VALUES ('t', {}, false, {})"
    )
    operator.database.execute(endpoint.format("'https://a.example/'", "'GONE'"))
    operator.database.execute(endpoint.format("'https://b.example/'", "'asked for'"))
    operator.database.execute(
        "INSERT INTO notification_delivery (tenant_id, notification_id, channel, job, state, lease_until)"
        " VALUES ('t', 'n-1', 'EMAIL', 'email:1', 'sending', now() - interval '11 minutes'),"
        " ('t', 'n-2', 'EMAIL', 'email:2', 'sending', now())"
    )
    found = attention(operator)

    assert set(found) == {"endpoints", "deliveries"}
    assert found["endpoints"]["found"].startswith("1 ")
    assert found["deliveries"]["found"].startswith("1 ")
    assert "deliveries show n-1" in found["deliveries"]["remedy"]


def test_documents_that_nobody_reads_and_those_that_kill_are_named(operator: Operator) -> None:
    own(operator)
    operator.database.execute(
        "INSERT INTO document (tenant_id, document_id, claim, source, state, problem, changed_at)"
        " VALUES ('t', 'd-1', 'c', 's', 'awaiting_ocr', NULL, now() - interval '61 minutes'),"
        " ('t', 'd-2', 'c', 's', 'reading', NULL, now()), ('t', 'd-3', 'c', 's', 'failed', 'OOM', now()),"
        " ('t', 'd-4', 'c', 's', 'failed', 'ENCRYPTED', now())"
    )
    found = attention(operator)

    assert set(found) == {"documents", "lethal documents"}
    assert "documents show d-1" in found["documents"]["remedy"]
    assert found["lethal documents"]["found"].startswith("1 ")


def test_an_old_transaction_is_named(operator: Operator, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own(operator)
    monkeypatch.setattr(findings, "LONG_TRANSACTION_SECONDS", 0.0)
    with psycopg.connect(database_url, application_name="a forgotten console") as idle:
        idle.execute("SELECT 1")
        found = attention(operator)
    assert set(found) == {"oldest transaction"}
    assert "a forgotten console" in found["oldest transaction"]["found"]
    assert "idle in transaction" in found["oldest transaction"]["found"]
    assert attention(operator) == {}


@pytest.mark.parametrize(
    ("index", "bloated"),
    [
        (Index("i", valid=True, bytes=100 * MIB, entries=100), True),
        (Index("i", valid=True, bytes=100 * MIB, entries=2_000_000), False),
        (Index("i", valid=True, bytes=1 * MIB, entries=0), False),
    ],
)
def test_an_index_is_bloated_when_it_is_large_and_empty(index: Index, *, bloated: bool) -> None:
    found = findings.indexes([index])
    assert bool(found.remedy) is bloated


@pytest.mark.parametrize(
    ("table", "bad"),
    [
        (Vacuum("t", 1_000, 60_000, None), True),
        (Vacuum("t", 1_000_000, 60_000, 100.0), False),
        (Vacuum("t", 1_000_000, 300_000, 100.0), True),
        (Vacuum("t", 10, 1_000, 100.0), False),
    ],
)
def test_dead_rows_matter_when_they_are_many(table: Vacuum, *, bad: bool) -> None:
    assert bool(findings.vacuums([table]).remedy) is bad


@pytest.mark.parametrize(("database", "bad"), [(100.0, False), (100.9, False), (102.0, True), (97.0, True)])
def test_clocks_that_differ_are_told(database: float, *, bad: bool) -> None:
    assert bool(findings.clock(database, 100.0, 0.05).remedy) is bad
    # What the network's delay alone may explain is no difference.
    assert not findings.clock(database, 100.0, 5.0).remedy


def test_a_large_archive_is_worth_a_purge() -> None:
    assert not findings.archive({"bytes": 2**30, "events": 10}).remedy
    assert "OUTBOX_ARCHIVE_PURGE_DAYS" in findings.archive({"bytes": 2**40, "events": 10}).remedy
