"""All SQL of the notifications-worker, by what it is about."""

from notifications_worker.store.endpoints import EndpointRow, EndpointStore

__all__ = ["EndpointRow", "EndpointStore"]
