"""What every producer does."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[2] / "docs" / "how-to" / "examples"
LEADS = "CREATE TABLE leads (id text PRIMARY KEY, tenant_id text NOT NULL, status text NOT NULL, version int NOT NULL)"

# Move a lead to a status: change its row, count its version up, write the event with both.
Move = Callable[[str, str], None]
# Open a transaction on a database of that address; it is committed when the block ends, and rolled back when it raises.
Producer = Callable[[str], AbstractContextManager[Move]]


class RolledBack(Exception):
    """What a test raises within a transaction."""


class Conflict(Exception):
    """Somebody else was faster: the transaction is to be tried again."""


@cache
def example(name: str) -> Any:
    """Import one of the examples of the documents."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def moved(lead_id: str, tenant_id: str, status: str, version: int) -> dict[str, Any]:
    """The payload of the event."""
    return {
        "leadId": lead_id,
        "tenantId": tenant_id,
        "status": status,
        "changedAt": "2026-11-22T12:00:00Z",
        "version": version,
    }
