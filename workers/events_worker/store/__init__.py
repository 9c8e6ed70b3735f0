"""All SQL of the events-worker, by what it is about."""

from events_worker.store.database import BY_INDEX, Database, DatabaseUnavailable, Listener, SchemaOutdated
from events_worker.store.outbox import Lag, OutboxStore
from events_worker.store.partitions import PartitionsDiffer, PartitionStore, Share
from events_worker.store.transactions import AlreadyReceipted, Transactions, TurnOver, TurnTaken
from events_worker.store.turns import End, Ended, Standing, Turn, TurnStore

__all__ = [
    "BY_INDEX",
    "AlreadyReceipted",
    "Database",
    "DatabaseUnavailable",
    "End",
    "Ended",
    "Lag",
    "Listener",
    "OutboxStore",
    "PartitionStore",
    "PartitionsDiffer",
    "SchemaOutdated",
    "Share",
    "Standing",
    "Transactions",
    "Turn",
    "TurnOver",
    "TurnStore",
    "TurnTaken",
]
