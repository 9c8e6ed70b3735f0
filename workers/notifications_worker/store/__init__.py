"""All SQL of the notifications-worker, by what it is about."""

from notifications_worker.store.deliveries import PostgresLedger
from notifications_worker.store.endpoints import EndpointRow, EndpointStore
from notifications_worker.store.history import HistoryStore
from notifications_worker.store.suppressions import SuppressionStore

__all__ = ["EndpointRow", "EndpointStore", "HistoryStore", "PostgresLedger", "SuppressionStore"]
