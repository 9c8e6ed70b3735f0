"""PostgreSQL for whoever has a store."""

from worker_runtime.postgres.database import BY_INDEX, Database, DatabaseUnavailable, Listener, SchemaOutdated
from worker_runtime.postgres.start import require_postgres
from worker_runtime.postgres.text import UnreadableJson, read_json, storable, storable_json

__all__ = [
    "BY_INDEX",
    "Database",
    "DatabaseUnavailable",
    "Listener",
    "SchemaOutdated",
    "UnreadableJson",
    "read_json",
    "require_postgres",
    "storable",
    "storable_json",
]
