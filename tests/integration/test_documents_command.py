"""`intelliflow documents`: what an operator sees of documents, and how one is made to go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from command_line import operator
from worker_ops.exit_codes import ExitCode

if TYPE_CHECKING:
    from command_line import Operator

__all__ = ["operator"]

DOCUMENT = """
INSERT INTO document (tenant_id, document_id, claim, source, state, media_type, pages, chunks, problem, explanation,
                      metadata, changed_at)
VALUES (%s, %s, 'c', 's3://b/x.pdf', %s, %s, %s, %s, %s, %s, '{"author": "Ada"}', now() + %s * interval '1 s')
"""
PAGE = "INSERT INTO document_page (tenant_id, document_id, number, text, origin) VALUES (%s, %s, %s, %s, 'text')"
CHUNK = """
INSERT INTO document_chunk (tenant_id, document_id, number, text, tokens, first_page, last_page)
VALUES (%s, %s, 1, %s, 3, 1, 1)
"""


def filled(operator: Operator) -> None:
    operator.database.execute(DOCUMENT, ["t-1", "lease", "read", "application/pdf", 2, 1, None, None, 1])
    operator.database.execute(DOCUMENT, ["t-2", "lease", "read", "application/pdf", 1, 1, None, None, 2])
    locked = "it wants a password; write to ada@example.com"
    operator.database.execute(DOCUMENT, ["t-1", "safe", "failed", None, None, None, "ENCRYPTED", locked, 3])
    for tenant in ("t-1", "t-2"):
        operator.database.execute(PAGE, [tenant, "lease", 1, "Ada lives here: ada@example.com"])
        operator.database.execute(CHUNK, [tenant, "lease", "Ada lives here: ada@example.com"])
    operator.database.execute(PAGE, ["t-1", "lease", 2, "page two"])


def test_documents_are_listed_the_latest_first_and_by_what_became_of_them(operator: Operator) -> None:
    filled(operator)
    rows = operator.json("documents list")
    assert [(row["tenantId"], row["documentId"], row["state"]) for row in rows] == [
        ("t-1", "safe", "failed"),
        ("t-2", "lease", "read"),
        ("t-1", "lease", "read"),
    ]
    assert "ada@example.com" not in str(rows)
    assert [row["documentId"] for row in operator.json("documents list --problem ENCRYPTED")] == ["safe"]
    assert [row["documentId"] for row in operator.json("documents list --tenant t-1 --state read")] == ["lease"]
    groups = operator.json("documents list --group")
    assert [(row["state"], row["count"]) for row in groups] == [("read", 2), ("failed", 1)]


def test_a_document_is_shown_page_by_page_and_its_text_only_when_asked_for(operator: Operator) -> None:
    filled(operator)
    assert operator.run("documents show lease").code == ExitCode.USAGE
    shown = operator.json("documents show lease --tenant t-1")
    assert [(page["page"], page["characters"]) for page in shown["pagesRead"]] == [(1, 31), (2, 8)]
    assert "Ada" not in str(shown)
    revealed = operator.json("documents show lease --tenant t-1 --reveal")
    assert revealed["pagesRead"][1]["text"] == "page two"
    assert revealed["metadata"] == {"author": "Ada"}
    assert operator.run("documents show nothing").code == ExitCode.NOT_FOUND


def test_a_document_is_deleted_with_all_it_has_and_only_when_told_to(operator: Operator) -> None:
    filled(operator)
    assert operator.run("documents delete lease nothing --tenant t-1").code == ExitCode.OK
    assert operator.value("SELECT count(*) FROM document_page") == 3
    assert operator.run("documents delete lease nothing --tenant t-1 --apply").code == ExitCode.PARTIAL
    assert operator.value("SELECT count(*) FROM document_page") == 1
    assert operator.value("SELECT count(*) FROM document_chunk") == 1
    assert operator.run("documents delete lease --tenant t-1 --apply").code == ExitCode.NOT_FOUND


def test_a_person_is_found_in_documents_and_taken_out_of_them(operator: Operator) -> None:
    filled(operator)
    found = {row["place"]: row["found"] for row in operator.json("person find --email ada@example.com") if row["found"]}
    assert found == {"document": 1, "document_page": 2, "document_chunk": 2}
    operator.run("person erase --email ada@example.com --apply --by ann --tenant t-1")
    texts = operator.database.execute(
        "SELECT text FROM document_page WHERE tenant_id = 't-1' ORDER BY number"
    ).fetchall()
    assert "ada@example.com" not in str(texts)
    assert texts[1] == ("page two",)
    assert operator.value("SELECT text FROM document_page WHERE tenant_id = 't-2'") == "Ada lives here: ada@example.com"
