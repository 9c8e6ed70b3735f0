"""Why a database was not brought to the current schema."""

from __future__ import annotations

__all__ = ["DatabaseUnreachable", "MigrationError"]


class MigrationError(Exception):
    """The database was not brought to the current schema; nothing of the failed migration remains in it."""


class DatabaseUnreachable(MigrationError):
    """The server did not answer or refused the login: nothing was tried."""
