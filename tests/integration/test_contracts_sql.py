"""The check that a team may install in its database judges as the worker does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events_worker.contracts import SHIPPED, Accepted, Catalogue, Violation, load_catalogue, load_contracts
from events_worker.contracts.sql import Inexpressible, check_sql
from payload_strategies import wild

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLE = Path(__file__).parents[1] / "contracts_sample.yaml"
# Values of a field of the sample's all.keywords, good and bad ones.
EDGES: dict[str, list[Any]] = {
    "name": ["a", "ab", "abcd", "abcde", "👋👋👋👋", 5],
    "level": [0, 1, 1.0, 1.5, 5, 5.0001, 6, "1", True, None],
    "share": [0, 5e-324, 0.5, 1, 1.0, None, False],
    "count": [-1, 0, 0.5, 1e22, "", [], None],
    "kind": ["a", "b", 1, 1.0, True, False, None, [1], [1.0], [2], {"b": 2}, {"b": 2, "c": 3}, 0],
    "only": ["it", "It", None],
    "bare": ["ab", "abc", 1, 2, [], [1], {}, None, True],
    "anything": [None, 5, {}],
    "list": [[], [2], [None, 3, 2.0], [2, 2, 2, 2], [1], [2.5], ["2"], None, {}],
    "table": [[], [[]], [["a"]], [[""]], [["a"], "a"], [[["a"]]], "a"],
    "people": [[{"id": "a"}], [{}], [{"id": "a", "age": -1}], [{"id": 5}], [[]], ["id"], [{"id": "a", "age": "-1"}]],
    "inner": [
        None,
        {},
        {"a": True, "b": {"c": "x"}},
        {"a": True, "b": {"c": ""}},
        {"a": True, "b": {}},
        ["a", "b"],
        "a",
    ],
}
VERDICT = "SELECT domain_event_outbox_violation(%s, %s, %s::jsonb)"
INSERT = """
INSERT INTO domain_event_outbox (id, event_type, aggregate_type, aggregate_id, tenant_id, payload, metadata)
VALUES (gen_random_uuid(), %s, 'Lead', 'l-1', 't-1', %s::jsonb, %s::jsonb)
"""
LEAD = {"leadId": "l-1", "email": "ada@example.com", "tenantId": "t-1"}


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened


def violation(connection: psycopg.Connection, event_type: str, version: str | None, payload: Any) -> Any:
    found = connection.execute(VERDICT, [event_type, version, json.dumps(payload)]).fetchone()
    assert found
    return found[0]


@pytest.mark.parametrize("path", [SHIPPED, SAMPLE], ids=["shipped", "sample"])
def test_the_database_judges_as_the_worker_does(connection: psycopg.Connection, path: Path) -> None:
    catalogue, contracts = load_catalogue(path), load_contracts(path)
    connection.execute(check_sql(catalogue))
    releases = [(event_type, release) for event_type, entry in catalogue.events.items() for release in entry.releases()]

    @settings(max_examples=300)
    @given(st.data())
    def agree(data: st.DataObject) -> None:
        event_type, release = data.draw(st.sampled_from(releases))
        near = st.sampled_from([str(release.version), f"{release.version}.3", f"{release.version.major}"])
        version = data.draw(near | st.sampled_from(["0.1", "1.1", "2.5", "3.9", "9.0", "", "one", "1.", "1.0\n"]))
        payload = data.draw(wild(release.schema).filter(lambda drawn: isinstance(drawn, dict)))
        verdict = contracts.read(event_type, version, payload)
        said = violation(connection, event_type, version, payload)
        if isinstance(verdict, Accepted):
            assert said is None
        elif not verdict.sentence.startswith("lifted from"):
            assert said is not None
            assert said.startswith(f"{verdict.code}: ")

    agree()


def test_they_agree_on_both_sides_of_every_limit(connection: psycopg.Connection) -> None:
    connection.execute(check_sql(load_catalogue(SAMPLE)))
    contracts = load_contracts(SAMPLE)
    refused = []
    for field, values in EDGES.items():
        for value in values:
            payload = {"name": "ada", "it's": 1, field: value}
            verdict = contracts.read("all.keywords", "1.2", payload)
            said = violation(connection, "all.keywords", "1.2", payload)
            assert (said is None) == isinstance(verdict, Accepted), f"{field}: {value}: {said} {verdict}"
            refused += [field] if said else []
    assert set(refused) == set(EDGES) - {"anything"}


@pytest.mark.parametrize(
    ("version", "state"),
    [
        ("1.0", "OPEN"),
        ("1.9", "OPEN"),
        ("2.0", "open"),
        ("2.0.7", "open"),
        ("2.1", "open"),
        ("v2.1", "open"),
        ("2.8", "open"),
        ("3", "open"),
    ],
)
def test_a_payload_is_held_against_its_own_version(connection: psycopg.Connection, version: str, state: str) -> None:
    connection.execute(check_sql(load_catalogue(SAMPLE)))
    payload = {"id": 7, "dealId": "7", "ownerId": "u-1", "value": 9, "state": state, "currency": 5, "tag": 5}
    verdict = load_contracts(SAMPLE).read("deal.signed", version, payload)
    said = violation(connection, "deal.signed", version, payload)
    # The first in the order of the schema there, in the order of the alphabet here.
    first = {"1": "currency must be true or false", "3": "owner is missing"}.get(
        version[0], "currency must be a string"
    )
    if version.startswith("2.0"):
        assert (said, type(verdict)) == (None, Violation)
        assert "lifted from 2.0" in str(verdict)
    else:
        assert first in said
        assert first in str(verdict)


@pytest.mark.parametrize(
    "change",
    [
        {"email": ...},
        {"leadId": ""},
        {"company": 5},
        {"firstName": ["Ada"]},
    ],
)
def test_the_sentences_are_the_worker_s(connection: psycopg.Connection, change: dict[str, Any]) -> None:
    connection.execute(check_sql(load_catalogue()))
    payload = {field: value for field, value in (LEAD | change).items() if value is not ...}
    verdict = load_contracts().read("lead.created", "1.0", payload)
    assert isinstance(verdict, Violation)
    assert violation(connection, "lead.created", None, payload) == f"{verdict.code}: {verdict.sentence}"


def test_nothing_is_checked_until_somebody_asks_for_it(connection: psycopg.Connection) -> None:
    connection.execute(INSERT, ["lead.created", "{}", "{}"])


def test_a_bad_event_fails_the_transaction_that_makes_it(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(check_sql(load_catalogue()))
        connection.execute("CREATE TABLE leads (id text)")
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO leads VALUES ('l-1')")
        with pytest.raises(psycopg.errors.CheckViolation) as refused:
            connection.execute(INSERT, ["lead.created", json.dumps(LEAD | {"email": None}), "{}"])
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            connection.execute("SELECT 1")
    assert refused.value.diag.message_primary == "lead.created: INVALID_PAYLOAD: email must be a string"
    assert refused.value.diag.constraint_name == "domain_event_outbox_check"
    with psycopg.connect(database_url) as connection:
        connection.execute(INSERT, ["lead.created", json.dumps(LEAD), '{"version": 1}'])
        connection.execute(INSERT, ["invoice.paid", "[]", '{"version": "any"}'])
        counted = "SELECT (SELECT count(*) FROM leads), (SELECT count(*) FROM domain_event_outbox)"
        assert connection.execute(counted).fetchone() == (0, 2)


def test_it_works_wherever_the_outbox_is_and_whatever_the_writer_s_search_path(connection: psycopg.Connection) -> None:
    connection.execute("CREATE SCHEMA crm")
    connection.execute("ALTER TABLE domain_event_outbox SET SCHEMA crm")
    connection.execute("SET search_path TO crm")
    connection.execute(check_sql(load_catalogue()))
    connection.execute("SET search_path TO public")
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(INSERT.replace("INTO ", "INTO crm."), ["lead.created", "{}", "{}"])


def test_it_can_be_installed_again_and_removed(connection: psycopg.Connection) -> None:
    for _ in range(2):
        connection.execute(check_sql(load_catalogue()))
    connection.execute("DROP TRIGGER domain_event_outbox_check ON domain_event_outbox")
    connection.execute(INSERT, ["lead.created", "{}", "{}"])


def test_the_command_prints_it() -> None:
    assert printed() == (0, check_sql(load_catalogue()), "")


def printed(*paths: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "worker_ops", "contracts", "sql", *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("field", "keyword"),
    [
        ({"type": "string", "pattern": "^[A-Z]{3}$"}, "pattern"),
        ({"oneOf": [{}]}, "oneOf"),
        ({"type": "object", "additionalProperties": False}, "additionalProperties"),
        (False, "false"),
    ],
)
def test_a_keyword_that_sql_cannot_say_exactly_is_refused(field: Any, keyword: str) -> None:
    with pytest.raises(Inexpressible, match=rf"^a\.b 1\.0: lines\.\*: {keyword} cannot be said in SQL exactly; these"):
        check_sql(Catalogue.model_validate(with_lines_of(field)))


def test_the_command_says_what_it_refuses(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.yaml"
    path.write_text(json.dumps(with_lines_of({"pattern": "^[A-Z]{3}$"})))
    code, out, err = printed(str(path))
    assert (code, out) == (1, "")
    assert err.startswith("error: a.b 1.0: lines.*: pattern cannot be said")


def with_lines_of(field: Any) -> dict[str, Any]:
    entry = {"version": "1.0", "description": "Any.", "idempotencyKey": "a.b:{eventId}"}
    schema = {"type": "object", "properties": {"lines": {"items": field}}}
    return {"events": {"a.b": entry | {"schema": schema}}}
