"""PostgreSQL for whoever has a store."""

from worker_runtime.postgres.database import BY_INDEX, Database, DatabaseUnavailable, Listener, SchemaOutdated
from worker_runtime.postgres.start import require_postgres
from worker_runtime.postgres.text import storable, storable_json

__all__ = [
    "BY_INDEX",
    "Database",
    "DatabaseUnavailable",
    "Listener",
    "SchemaOutdated",
    "require_postgres",
    "storable",
    "storable_json",
]
