import uuid

from django.db import models
from django.utils import timezone


class Lead(models.Model):
    id = models.TextField(primary_key=True)
    tenant_id = models.TextField()
    status = models.TextField()
    version = models.IntegerField(default=0)

    class Meta:
        app_label = "crm"
        db_table = "leads"


class OutboxEvent(models.Model):
    """What a writer gives. The table has more columns, which are the relay's."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    event_type = models.TextField()
    aggregate_type = models.TextField()
    aggregate_id = models.TextField()
    tenant_id = models.TextField()
    payload = models.JSONField(default=dict)
    metadata = models.JSONField(default=dict)

    class Meta:
        app_label = "crm"
        db_table = "domain_event_outbox"
        managed = False


def move_lead(lead_id: str, status: str) -> None:
    """Called within `transaction.atomic()`."""
    lead = Lead.objects.select_for_update().get(pk=lead_id)
    moved = {"leadId": lead.id, "tenantId": lead.tenant_id, "status": status, "previousStatus": lead.status}
    lead.status = status
    lead.version += 1
    lead.save()
    OutboxEvent.objects.create(
        event_type="lead.status_changed",
        aggregate_type="Lead",
        aggregate_id=lead.id,
        tenant_id=lead.tenant_id,
        payload={**moved, "changedAt": timezone.now().isoformat(), "version": lead.version},
    )
