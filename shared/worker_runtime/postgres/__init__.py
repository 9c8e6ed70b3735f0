"""PostgreSQL for whoever has a store."""

from worker_runtime.postgres.database import BY_INDEX, Database, DatabaseUnavailable, Listener, SchemaOutdated

__all__ = ["BY_INDEX", "Database", "DatabaseUnavailable", "Listener", "SchemaOutdated"]
