"""All SQL of the events-worker, by what it is about."""

from events_worker.store.committed import committed_event
from events_worker.store.dead_letters import DeadLetterStore, Edit, Selection
from events_worker.store.deferrals import DeferralStore, JobRefused
from events_worker.store.endpoints import EndpointStore
from events_worker.store.outbox import OutboxStore
from events_worker.store.partitions import PartitionsDiffer, PartitionStore, Share
from events_worker.store.transactions import AlreadyReceipted, Transactions, TurnOver, TurnTaken
from events_worker.store.trial import TrialStore
from events_worker.store.turns import End, Ended, Standing, Turn, TurnStore
from events_worker.store.upkeep import Lag, UpkeepStore
from events_worker.store.workflows import (
    WORKFLOWS,
    Concern,
    NoSuchWorkflow,
    TriggeredRule,
    WakeUpStore,
    WorkflowRefused,
    WorkflowStore,
)

__all__ = [
    "WORKFLOWS",
    "AlreadyReceipted",
    "Concern",
    "DeadLetterStore",
    "DeferralStore",
    "Edit",
    "End",
    "Ended",
    "EndpointStore",
    "JobRefused",
    "Lag",
    "NoSuchWorkflow",
    "OutboxStore",
    "PartitionStore",
    "PartitionsDiffer",
    "Selection",
    "Share",
    "Standing",
    "Transactions",
    "TrialStore",
    "TriggeredRule",
    "Turn",
    "TurnOver",
    "TurnStore",
    "TurnTaken",
    "UpkeepStore",
    "WakeUpStore",
    "WorkflowRefused",
    "WorkflowStore",
    "committed_event",
]
