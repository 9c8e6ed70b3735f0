"""The page for producers shows the files that are tested, and its commands work."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from producers.mapped import TABLE, apply

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "produce.md").read_text()
EXAMPLES = ROOT / "docs" / "how-to" / "examples"
SHOWN = {
    "python": ["produce_sqlalchemy.py", "produce_django.py", "outbox_hint.py"],
    "js": ["produce_pg.mjs"],
    "prisma": ["domain_event.prisma"],
}


def fenced(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("language", SHOWN)
def test_the_page_shows_the_files_as_they_are(language: str) -> None:
    files = [(EXAMPLES / name).read_text() for name in SHOWN[language]]
    assert fenced(language)[: len(files)] == files


@pytest.mark.needs("psql")
@pytest.mark.parametrize("command", [block.strip() for block in fenced("shell")])
def test_a_mapping_is_applied_by_the_page_s_command(database_url: str, command: str) -> None:
    if "trigger" in command:
        apply(database_url, TABLE)
    environment = {**os.environ, "DATABASE_URL": database_url}
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    apply(database_url, "SELECT * FROM domain_events")
