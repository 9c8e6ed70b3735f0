from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from notifications_worker.notification import DeliveryResult, Notification, schema

PUBLISHED = Path(__file__).parents[2] / "docs" / "reference" / "notification-job.schema.json"
GOOD: dict[str, Any] = {
    "notificationId": "n-1",
    "tenantId": "t-1",
    "channel": "EMAIL",
    "recipient": {"email": "ada@example.com"},
    "content": {"subject": "Hello", "body": "Hello Ada"},
}


def parse(**changes: Any) -> Notification:
    return Notification.model_validate_json(json.dumps(GOOD | changes))


def test_what_the_contract_shows_is_read() -> None:
    notification = parse(
        priority="URGENT",
        recipient={
            "id": "l-1",
            "email": "ada@example.com",
            "phone": "+15005550006",
            "webhookUrl": "https://example.com",
        },
        content={"subject": "s", "body": "b", "htmlBody": "<b>b</b>", "templateId": "t", "templateData": {"a": 1}},
        metadata={"eventId": "e-1"},
        scheduledAt="2030-01-01T00:00:00Z",
        expiresAt="2030-01-02T00:00:00+02:00",
    )

    assert notification.recipient.webhook_url == "https://example.com"
    assert notification.content.template_data == {"a": 1}
    assert notification.scheduled_at is not None
    assert notification.scheduled_at.isoformat() == "2030-01-01T00:00:00+00:00"


def test_fields_of_a_later_version_are_ignored() -> None:
    assert parse(later=True, recipient={"email": "ada@example.com", "pager": 7}).notification_id == "n-1"


def test_absent_and_null_are_the_same() -> None:
    nothing = {"priority": None, "metadata": None, "scheduledAt": None, "expiresAt": None}

    assert parse(**nothing) == parse()


def test_a_time_without_an_offset_is_utc() -> None:
    moment = parse(expiresAt="2030-01-01T00:00:00").expires_at

    assert moment is not None
    assert moment.isoformat() == "2030-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"notificationId": ""}, "notificationId"),
        ({"notificationId": 7}, "notificationId"),
        ({"tenantId": None}, "tenantId"),
        ({"channel": "PIGEON"}, "channel"),
        ({"priority": "SOON"}, "priority"),
        ({"recipient": {"email": ""}}, "recipient.email"),
        ({"content": {"body": 7}}, "content.body"),
        ({"content": {"templateId": ""}}, "content.templateId"),
        ({"scheduledAt": "soon"}, "scheduledAt"),
    ],
)
def test_a_mistake_is_told_by_its_field(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError) as caught:
        parse(**changes)

    assert [".".join(map(str, problem["loc"])) for problem in caught.value.errors()] == [where]


@pytest.mark.parametrize(
    "address",
    [
        "ada@example.com, eve@example.org",
        "ada@example.com\r\nRCPT TO:<eve@example.org>",
        "ada@example.com\n",
        " ada@example.com",
        "Ada <ada@example.com>",
        '"ada@example.com" <eve@example.org>',
        "<ada@example.com>",
        "ada",
        "ada@",
        "@example.com",
        "ada@@example.com",
        "ada..l@example.com",
        "ada@exa mple.com",
        "ada\x00@example.com",
        "@relay.example.org:ada@example.com",
    ],
)
def test_only_one_bare_address_is_an_address(address: str) -> None:
    with pytest.raises(ValidationError) as caught:
        parse(recipient={"email": address})

    [problem] = caught.value.errors(include_input=False)
    assert problem["msg"] == "is not one bare e-mail address such as ada@example.com"
    assert "ctx" not in problem


@pytest.mark.parametrize(
    ("address", "on_the_wire"),
    [
        ("ada@example.com", "ada@example.com"),
        ("Ada.Lovelace+tag@EXAMPLE.com", "Ada.Lovelace+tag@example.com"),
        ("ada@localhost", "ada@localhost"),
        ("ada@crm.test", "ada@crm.test"),
        ("ada@mail.local", "ada@mail.local"),
        ("ada@müller.example", "ada@xn--mller-kva.example"),
        ("ädä@example.com", "ädä@example.com"),
    ],
)
def test_an_address_is_read(address: str, on_the_wire: str) -> None:
    assert parse(recipient={"email": address}).recipient.email == on_the_wire


def test_a_result_is_what_the_contract_says() -> None:
    result = DeliveryResult(
        notification_id="n-1",
        channel="EMAIL",
        success=True,
        provider_message_id="4F2A",
        delivered_at=parse(expiresAt="2030-01-01T00:00:00Z").expires_at,
        delivery_time_ms=12,
    )

    assert result.as_json() == {
        "notificationId": "n-1",
        "channel": "EMAIL",
        "success": True,
        "providerMessageId": "4F2A",
        "deliveredAt": "2030-01-01T00:00:00Z",
        "deliveryTimeMs": 12,
    }


def test_the_published_schema_is_the_models() -> None:
    assert PUBLISHED.read_text(encoding="utf-8") == schema(), "run: python -m notifications_worker.notification"


def test_the_published_schema_accepts_and_refuses_as_the_models_do() -> None:
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(published)

    jsonschema.validate(GOOD, published)
    for wrong in ({"notificationId": ""}, {"channel": "PIGEON"}, {"recipient": None}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(GOOD | wrong, published)
