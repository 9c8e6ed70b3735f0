from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mails import RECIPIENT, composed, parsed, refusal
from notifications_worker.channels.email import queue_id
from worker_runtime.outcome import PermanentError


def test_the_headers() -> None:
    envelope = composed({"subject": "Grüße", "body": "Hello"})
    mail = parsed(envelope)

    assert (envelope.sender, envelope.recipient, envelope.utf8) == ("noreply@intelliflow.com", RECIPIENT, False)
    assert mail["From"] == "IntelliFlow <noreply@intelliflow.com>"
    assert mail["To"] == RECIPIENT
    assert mail["Subject"] == "Grüße"
    assert mail["Date"] == "Thu, 01 Jan 2026 00:00:00 +0000"
    assert mail["X-IntelliFlow-Notification-Id"] == "n-1"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"] == envelope.message_id
    assert envelope.message_id.endswith("@intelliflow.com>")


def test_a_resend_is_the_same_bytes() -> None:
    content = {"subject": "s", "body": "b", "htmlBody": "<b>b</b>"}

    assert composed(content) == composed(content)


def test_each_notification_tenant_and_recipient_has_a_message_id_of_its_own() -> None:
    variants: list[dict[str, Any]] = [
        {},
        {"notificationId": "n-2"},
        {"tenantId": "t-2"},
        {"recipient": {"email": "eve@example.com"}},
        {"tenantId": "t-1n", "notificationId": "-1"},
    ]
    ids = {parsed(composed({"body": "b"}, **variant))["Message-ID"] for variant in variants}

    assert len(ids) == len(variants)


def test_text_comes_first_and_html_last() -> None:
    mail = parsed(composed({"subject": "s", "body": "Hello Ada", "htmlBody": "<p>Hello Ädä</p>"}))

    assert mail.get_content_type() == "multipart/alternative"
    kinds = [(part.get_content_type(), part.get_content()) for part in mail.iter_parts()]
    assert kinds == [("text/plain", "Hello Ada\n"), ("text/html", "<p>Hello Ädä</p>\n")]


def test_without_html_it_is_plain_text() -> None:
    assert parsed(composed({"body": "Hello"})).get_content_type() == "text/plain"


def test_without_a_subject_there_is_no_subject() -> None:
    assert "Subject" not in parsed(composed({"body": "Hello"}))


def test_a_template_wins_over_the_body() -> None:
    content = {"subject": "no", "body": "no", "templateId": "lead-welcome", "templateData": {"firstName": "Ada"}}
    mail = parsed(composed(content))

    assert mail["Subject"] == "Welcome, Ada"
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]


def test_a_subject_or_body_is_no_template() -> None:
    mail = parsed(composed({"subject": "{{ 7 * 7 }}", "body": "{{ 7 * 7 }}"}))

    assert mail["Subject"] == "{{ 7 * 7 }}"
    assert mail.get_content() == "{{ 7 * 7 }}\n"


@pytest.mark.parametrize(
    "injected", ["a\r\nBcc: eve@example.org", "a\nb", "a\rb", "a\x00", "a\u2028b", "a\x85b", "a\n"]
)
def test_a_line_break_in_a_header_is_refused(injected: str) -> None:
    subject = refusal({"subject": injected, "body": "b"})
    identifier = refusal({"body": "b"}, notificationId=injected)

    assert str(subject) == "INVALID_PAYLOAD: content.subject holds a line break or another control character"
    assert str(identifier) == "INVALID_PAYLOAD: notificationId holds a line break or another control character"


def test_a_line_break_in_template_data_is_refused_in_the_subject() -> None:
    evil = {"templateId": "lead-welcome", "templateData": {"firstName": "Ada\r\nBcc: eve@example.org"}}

    assert refusal(evil).code == "INVALID_PAYLOAD"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "INVALID_PAYLOAD: content.body is missing, and so is content.templateId"),
        ({"body": "\ud800"}, "INVALID_PAYLOAD: content holds what cannot be written in an e-mail"),
        ({"subject": "\ud800", "body": "b"}, "INVALID_PAYLOAD: content holds what cannot be written in an e-mail"),
        ({"templateId": "nope"}, "TEMPLATE_ERROR: there is no template 'nope'"),
    ],
)
def test_what_cannot_be_a_mail_is_refused_with_a_reason(content: dict[str, Any], reason: str) -> None:
    assert str(refusal(content)).startswith(reason)


def test_no_attachments_are_no_reason_to_refuse() -> None:
    assert parsed(composed({"body": "b", "attachments": []})).get_content() == "b\n"


def test_without_an_address_there_is_no_mail() -> None:
    assert (
        str(refusal({"body": "b"}, recipient={"phone": "+15005550006"}))
        == "INVALID_PAYLOAD: recipient.email is missing"
    )


def test_every_line_can_travel() -> None:
    body = "ü" * 3000 + "\n" + "x" * 3000 + "\r.\rbare\n.\n"
    content = composed({"subject": "ü" * 500, "body": body, "htmlBody": body}, notificationId="n" * 500).content

    assert content.isascii()
    assert all(len(line) <= 998 for line in content.split(b"\r\n"))
    assert content.replace(b"\r\n", b"").find(b"\r") == -1
    assert content.replace(b"\r\n", b"").find(b"\n") == -1


@pytest.mark.parametrize("identifier", ["5f9b4c3e-7f2e-5b53-9c3d-0d5d0a1b2c3d", "notification-" + "x" * 200])
def test_an_identifier_can_be_searched_for(identifier: str) -> None:
    content = composed({"body": "b"}, notificationId=identifier).content

    assert f"\r\nX-IntelliFlow-Notification-Id: {identifier}\r\n".encode() in content


def test_an_address_outside_ascii_asks_for_smtputf8() -> None:
    envelope = composed({"body": "b"}, recipient={"email": "ädä@example.com"})

    assert envelope.utf8
    assert "To: ädä@example.com\r\n".encode() in envelope.content


@given(subject=st.text(), body=st.text(), html=st.none() | st.text(), identifier=st.text(min_size=1))
def test_whatever_the_text_it_is_a_mail_or_a_reason(subject: str, body: str, html: str | None, identifier: str) -> None:
    try:
        envelope = composed({"subject": subject, "body": body, "htmlBody": html}, notificationId=identifier)
    except PermanentError as error:
        assert error.code == "INVALID_PAYLOAD"  # noqa: PT017 - either end is right, depending on the text.
        return
    mail = parsed(envelope)
    assert {name.lower() for name in mail.keys()} <= {  # noqa: SIM118 - a message is not a dict.
        "from",
        "to",
        "subject",
        "date",
        "message-id",
        "x-intelliflow-notification-id",
        "auto-submitted",
        "mime-version",
        "content-type",
        "content-transfer-encoding",
    }
    assert mail["To"] == RECIPIENT


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("2.0.0 Ok: queued as 4F2A9", "4F2A9"),
        ("OK id=1rXyZ0-0005Ab-2C", "1rXyZ0-0005Ab-2C"),
        ("2.0.0 OK  1767225600 a640c23a62f3a-ab6fb5c9 - gsmtp", None),
        ("2.0.0 kept", None),
        ("", None),
    ],
)
def test_the_servers_name_for_a_mail_is_found_where_it_tells_one(answer: str, name: str | None) -> None:
    assert queue_id(answer) == name
