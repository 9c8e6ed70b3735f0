"""The SQL of the durable execution worker's pages: no statement is missing, and all of it runs as it is typed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest

import seed_sql
from embedded_stack.postgres import create_database, drop_database

if TYPE_CHECKING:
    from collections.abc import Iterator

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations"
PAGES = {name: (OPERATIONS / name).read_text() for name in ("runbooks/workflow-runbook.md", "workflow-admin-guide.md")}
SECTION = re.compile(r"^## (?P<title>.+?)\n(?P<body>.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"```sql\n(.*?)```", re.DOTALL)
SECTIONS = [
    pytest.param(tuple(blocks), id=f"{name}: {found['title']}")
    for name, page in PAGES.items()
    for found in SECTION.finditer(page)
    if (blocks := BLOCK.findall(found["body"]))
]
FAILED = """
INSERT INTO fw_module_settings (organization_id, fw_execution_worker_enabled) VALUES ('acme', true);
INSERT INTO fw_workflow_executions (id, organization_id, workflow, workflow_version)
VALUES ('8a6e0804-2bd0-4672-b79d-d97027f9071a', 'acme', 'demo', 1);
UPDATE fw_workflow_executions SET status = 'failed', last_error = 'HTTP_500: no';
SELECT pgmq.send('workflow_dlq', jsonb_build_object('execution_id', id, 'organization_id', organization_id))
  FROM fw_workflow_executions;
"""


@pytest.fixture
def database(migrated_template: tuple[str, str]) -> Iterator[str]:
    server_url, template = migrated_template
    name = f"page_{uuid4().hex}"
    create_database(server_url, name, template=template)
    url = server_url.rsplit("/", 1)[0] + f"/{name}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(FAILED.encode())
    yield url
    drop_database(server_url, name)


@pytest.mark.parametrize(
    ("page", "blocks"),
    [("runbooks/workflow-runbook.md", seed_sql.RUNBOOK), ("workflow-admin-guide.md", seed_sql.GUIDE)],
)
def test_every_statement_is_there_word_for_word(page: str, blocks: tuple[str, ...]) -> None:
    shown = "".join(BLOCK.findall(PAGES[page]))
    for block in blocks:
        if block is seed_sql.ROLLBACK:
            assert [line for line in block.strip().splitlines() if line not in shown] == []
        else:
            assert block.lstrip("\n") in shown


@pytest.mark.needs("psql")
@pytest.mark.parametrize("blocks", SECTIONS)
def test_a_section_runs_as_it_is_typed(database: str, blocks: tuple[str, ...]) -> None:
    command = ["psql", "-X", "-A", "-v", "ON_ERROR_STOP=1", "-v", "msg_id=1", "-f", "-", database]
    for block in blocks:
        done = subprocess.run(command, input=block.replace("<org_id>", "acme"), capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), block
        assert done.stdout.strip()
