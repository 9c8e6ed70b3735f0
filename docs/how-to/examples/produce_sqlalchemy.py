import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase): ...


class Lead(Base):
    __tablename__ = "leads"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    status: Mapped[str]
    version: Mapped[int]


class OutboxEvent(Base):
    """What a writer gives. The table has more columns, which are the relay's."""

    __tablename__ = "domain_event_outbox"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    event_type: Mapped[str]
    aggregate_type: Mapped[str]
    aggregate_id: Mapped[str]
    tenant_id: Mapped[str]
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    # `metadata` is taken in a declarative class.
    origin: Mapped[dict[str, Any]] = mapped_column("metadata", JSONB, default=dict)


def move_lead(session: Session, lead_id: str, status: str) -> None:
    # Locked before anything is written: a session flushes in an order of its own.
    lead = session.get_one(Lead, lead_id, with_for_update=True)
    moved = {"leadId": lead.id, "tenantId": lead.tenant_id, "status": status, "previousStatus": lead.status}
    lead.status = status
    lead.version += 1
    session.add(
        OutboxEvent(
            event_type="lead.status_changed",
            aggregate_type="Lead",
            aggregate_id=lead.id,
            tenant_id=lead.tenant_id,
            payload={**moved, "changedAt": datetime.now(UTC).isoformat(), "version": lead.version},
        )
    )
