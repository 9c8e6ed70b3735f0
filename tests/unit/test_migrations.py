from __future__ import annotations

import pytest

from worker_ops.migrations import DatabaseUnreachable, MigrationError, migrate, shipped_migrations
from worker_runtime.postgres.database import NEEDED_MIGRATION


def test_the_workers_need_the_newest_migration() -> None:
    assert [migration.id for migration in shipped_migrations()][-1] == NEEDED_MIGRATION


def test_a_server_that_is_not_there_is_told_apart_from_a_bad_address() -> None:
    with pytest.raises(DatabaseUnreachable, match="cannot connect to PostgreSQL") as error:
        migrate("postgresql://somebody:secret@127.0.0.1:1/nothing", print)
    assert "secret" not in str(error.value)
    with pytest.raises(MigrationError, match="not a postgresql:// URL"):
        migrate("postgresql://somebody:secret@127.0.0.1:1/nothing?colour=blue", print)
